"""Prompts as the released generators read them."""

import html

from grncli.text.optional_packages import text_package


def cleaned(text: str) -> str:
    """``text`` with broken Unicode repaired, HTML entities resolved and every run of whitespace as one space.

    Entities are resolved twice, as captions from the web are often escaped twice; letters keep their case.
    Facts section 8; UsageError without the ftfy package.
    """
    ftfy = text_package("ftfy")
    if text.isascii() and text.isprintable() and "&" not in text:
        # Nothing to repair or to resolve, which takes 40 times as long to find out: hours for 40 million captions.
        return " ".join(text.split())
    repaired = ftfy.fix_text(text)
    return " ".join(html.unescape(html.unescape(repaired)).split())
