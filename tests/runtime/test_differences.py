"""Which fields of two nested settings differ."""

from grncli.runtime.differences import Difference, describe_differences, differences


def test_equal_settings_have_no_difference():
    assert list(differences({"a": {"b": [1, 2]}, "c": None}, {"a": {"b": [1, 2]}})) == []


def test_every_differing_field_is_named_by_its_dotted_name():
    there = {"network": {"rounds": 4, "width": [1, 2]}, "old": 1, "same": 0}
    asked = {"same": 0, "network": {"rounds": 6, "width": [1, 3]}, "new": "x"}
    assert list(differences(there, asked)) == [
        Difference("network.rounds", 4, 6),
        Difference("network.width", [1, 2], [1, 3]),
        Difference("old", 1, None),
        Difference("new", None, "x"),
    ]


def test_a_section_beside_none_is_compared_field_by_field():
    assert list(differences({"clip": None}, {"clip": {"size": 32}})) == [Difference("clip.size", None, 32)]
    assert list(differences({"clip": {"size": 32}}, {})) == [Difference("clip.size", 32, None)]


def test_an_empty_section_differs_from_none_and_from_a_filled_one():
    assert list(differences({"clip": {}}, {})) == [Difference("clip", {}, None)]
    assert list(differences({"clip": {"size": 32}}, {"clip": {}})) == [Difference("clip", {"size": 32}, {})]


def test_a_section_differs_from_a_single_value_as_a_whole():
    assert list(differences({"a": {"b": 1}}, {"a": 2})) == [Difference("a", {"b": 1}, 2)]


def test_a_sentence_names_the_first_fields_and_counts_the_rest():
    there, asked = {f"f{i}": i for i in range(10)}, {f"f{i}": [i] for i in range(10)}
    text = describe_differences(there, asked)
    assert text.startswith("f0=0 there, [0] asked, f1=1 there, [1] asked")
    assert text.endswith("f7=7 there, [7] asked, and 2 more")
