"""The final form of a prompt."""

import pytest

from grncli.text.templates import final_prompt, prompt_digest


@pytest.mark.parametrize(
    ("prompt", "prefix", "suffix", "expected"),
    [
        ("a red star", "", "", "a red star"),
        (" a  red star\n", "<T2I>", "", "<T2I>a red star"),
        ("a red star", "<T2V>", " The quality is very high!", "<T2V>a red star The quality is very high!"),
        ("a red star", "", ". masterpiece, high quality.", "a red star. masterpiece, high quality."),
        ("A &amp; B", "<T2I>", "", "<T2I>A & B"),
        ("", "<T2I>", " The quality is very high!", ""),
        (" \n&nbsp;", "<T2I>", " x", ""),
    ],
)
def test_templates_stand_round_the_cleaned_prompt_and_leave_the_empty_one_alone(prompt, prefix, suffix, expected):
    assert final_prompt(prompt, prefix, suffix) == expected


def test_the_digest_is_the_sha256_of_the_utf8_bytes():
    assert prompt_digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert prompt_digest("café") == "850f7dc43910ff890f8879c0ed26fe697c93a067ad93a7d50f466a7028a9bf4e"
