"""The final form of a prompt: the run's prefix and suffix round it, cleaned."""

from hashlib import sha256

from grncli.text.cleaning import cleaned


def final_prompt(prompt: str, prefix: str = "", suffix: str = "") -> str:
    """What the text encoder reads.

    Parameters
    ----------
    prompt : as the user wrote it; without a visible character it is the unconditional prompt, which stays empty
    prefix : stands directly before the prompt, such as ``<T2I>``
    suffix : stands directly behind it, with its own space or punctuation in front

    Returns
    -------
    Valid Unicode on one line. Facts section 8: the whole text is cleaned once, templates included.
    """
    return cleaned(f"{prefix}{prompt.strip()}{suffix}") if cleaned(prompt) else ""


def prompt_digest(final: str) -> str:
    """SHA-256, in hexadecimal, of a final prompt in UTF-8; the key of its features."""
    return sha256(final.encode()).hexdigest()
