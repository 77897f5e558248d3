"""Prompts are cleaned as the releases clean them."""

import html
import sys

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.runtime.errors import UsageError
from grncli.text.cleaning import cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t red\n\n star  ", "a red star"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("&lt;T2I&gt; x", "<T2I> x"),
        ("cafÃ© naïve", "café naïve"),
        ("“Blue” Circle", '"Blue" Circle'),
        ("ideographic　space", "ideographic space"),
        ("lone \ud83d half", "lone \ufffd half"),
        ("", ""),
        (" &nbsp;\n", ""),
    ],
)
def test_a_prompt_is_cleaned(text, expected):
    assert cleaned(text) == expected


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_whatever_the_text_the_result_is_one_line_of_valid_unicode(text):
    result = cleaned(text)
    result.encode()
    assert " ".join(result.split()) == result


def test_without_the_package_the_error_names_it_and_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(UsageError, match=r"needs the ftfy package: pip install 'grncli\[text\]'"):
        cleaned("a red star")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_plain_prompts_are_cleaned_as_all_others(text):
    repaired = ftfy.fix_text(text)
    assert cleaned(text) == " ".join(html.unescape(html.unescape(repaired)).split())
