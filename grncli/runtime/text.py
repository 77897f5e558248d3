"""Text from anywhere as one line that any output can show."""

import os
import unicodedata


def one_line(error: BaseException, most: int | None = None) -> str:
    """The reason that an error of another library or the operating system gives, on one line, cut to ``most``."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())[:most]


def counted(count: int, noun: str) -> str:
    """``1 sample``, ``2 samples``, ``2 classes``."""
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def printable(path: str) -> str:
    """``path`` as one line of text any output can show.

    Bytes that are not UTF-8 become ``\\xNN``; what would break the line, drive a terminal or turn the reading
    direction becomes ``\\n``, ``\\x1b``, ``\\u202e`` and so on.
    """
    if path.isprintable():
        return path
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may hold and no file name does
        text = path.encode("utf-8", "backslashreplace").decode()
    return "".join(char.encode("unicode_escape").decode() if _disturbs(char) else char for char in text)


def _disturbs(char: str) -> bool:
    # The two joiners belong to the spelling of Persian, of Indian languages and of many emoji.
    return unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") and char not in "\u200c\u200d"
