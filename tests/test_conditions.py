"""Conditions as values: rows that are chosen, joined, padded and dropped without a look inside."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from grncli.conditions import ClassCondition, Condition, Ragged, Rows, TextCondition

NULL = 3


def classes(*labels):
    return ClassCondition(torch.tensor(labels), NULL)


@dataclass(frozen=True)
class Features(Condition):
    """A kind with rows of several shapes, as text has them."""

    features: Tensor  # [B, length, width]
    lengths: Tensor  # [B]

    @property
    def guides(self):
        return True

    def dropped(self, rows):
        return Features(self.features, torch.where(rows, 0, self.lengths))

    def predict(self, network, state, ratio):
        return network(state, ratio, self.features, self.lengths)


@dataclass(frozen=True)
class Call(Rows):
    state: Tensor
    condition: Condition


def features(count=3):
    return Features(torch.arange(count * 8.0).view(count, 4, 2), torch.arange(1, count + 1))


def test_rows_are_chosen_by_mask_index_and_slice():
    condition = classes(2, 0, 1)
    assert condition[torch.tensor([True, False, True])].labels.tolist() == [2, 1]
    assert condition[torch.tensor([1, 1])].labels.tolist() == [0, 0]
    assert condition[1:].labels.tolist() == [0, 1]
    assert condition[1:].null_class == NULL


def test_rows_are_joined_in_their_order():
    assert classes(2).joined(classes(0, 1), classes(2)).labels.tolist() == [2, 0, 1, 2]


def test_the_last_row_fills_a_call_up():
    assert classes(2, 1).padded(3).labels.tolist() == [2, 1, 1, 1, 1]
    assert classes(2, 1).padded(0).labels.tolist() == [2, 1]


def test_a_row_without_a_condition_is_of_the_null_class():
    condition = classes(2, 0, 1)
    assert condition.dropped(torch.tensor([True, False, False])).labels.tolist() == [NULL, 0, 1]
    assert condition.unconditional().labels.tolist() == [NULL] * 3
    assert condition.labels.tolist() == [2, 0, 1]


def test_labels_of_a_store_are_below_0_for_none():
    assert ClassCondition.of(torch.tensor([-1, 2, 0]), NULL).labels.tolist() == [NULL, 2, 0]


@pytest.mark.parametrize(("null_class", "guides"), [(0, False), (3, True)])
def test_classes_guide_where_there_are_any(null_class, guides):
    assert ClassCondition(torch.zeros(2, dtype=torch.int64), null_class).guides is guides


def test_a_network_is_called_with_its_labels():
    state, ratio = torch.zeros(2, 4), torch.tensor([0.1, 0.2])
    seen = classes(2, 0).predict(lambda *call: call, state, ratio)
    assert seen[0] is state
    assert seen[1] is ratio
    assert seen[2].tolist() == [2, 0]


def test_a_condition_of_several_tensors_goes_through_the_same_hands():
    condition = features()
    again = condition[:1].joined(condition[torch.tensor([1, 2])])
    assert torch.equal(again.features, condition.features)
    assert condition.unconditional().lengths.tolist() == [0, 0, 0]
    assert len(condition.padded(2)) == 5


def test_conditions_are_rows_of_larger_values():
    call = Call(torch.arange(3), features())
    padded = call.joined(call[1:]).padded(1)
    assert padded.state.tolist() == [0, 1, 2, 1, 2, 2]
    assert padded.condition.lengths.tolist() == [1, 2, 3, 2, 3, 3]
    assert len(padded) == 6


def test_rows_move_to_a_device_as_one():
    moved = Call(torch.arange(3), features()).to("meta")
    assert {moved.state.device.type, moved.condition.features.device.type} == {"meta"}


RED, BLUE, EMPTY = (torch.full((length, 2), float(length)) for length in (3, 5, 1))


def texts(*text, **options):
    return TextCondition.of(text, EMPTY, **options)


def lengths(ragged):
    return [len(item) for item in ragged.items]


class Reader:
    """Remembers a text as its length, and what it was asked to remember."""

    def __init__(self):
        self.read = []

    def remember(self, text):
        self.read += text
        return [torch.tensor(len(features)) for features in text]


def test_texts_of_several_lengths_are_rows_as_all_others_are():
    condition = texts(RED, BLUE, RED)
    assert lengths(condition[torch.tensor([False, True, True])].text) == [5, 3]
    assert lengths(condition[torch.tensor([1, 0, 1])].text) == [5, 3, 5]
    assert lengths(condition[1:].text) == [5, 3]
    assert lengths(condition.joined(texts(BLUE), texts(EMPTY, RED)).text) == [3, 5, 3, 5, 1, 3]
    assert lengths(condition.padded(2).text) == [3, 5, 3, 3, 3]
    assert len(condition) == 3


def test_texts_lie_beside_tensors_in_larger_values():
    call = Call(torch.arange(2), texts(RED, BLUE)).padded(1)
    assert call.state.tolist() == [0, 1, 1]
    assert lengths(call.condition.text) == [3, 5, 5]


def test_a_row_without_its_text_has_the_negative_one():
    condition = texts(RED, BLUE, RED, clean_first=True)
    assert lengths(condition.dropped(torch.tensor([True, False, False])).text) == [1, 5, 3]
    assert condition.unconditional().text.items == (EMPTY,) * 3
    assert condition.unconditional().clean_first
    assert lengths(condition.text) == [3, 5, 3]


def test_rows_may_have_negative_texts_of_their_own():
    condition = texts(RED).joined(TextCondition.of([RED], BLUE))
    assert lengths(condition.unconditional().text) == [1, 5]


def test_a_network_is_called_with_a_list_of_texts():
    calls = []
    texts(RED, BLUE, clean_first=True).predict(lambda *call, **options: calls.append((call, options)), 1, 2)
    assert calls == [((1, 2, [RED, BLUE]), {"clean_first": True})]


def test_a_text_that_rows_share_is_read_once():
    reader = Reader()
    prepared = texts(RED, BLUE, RED).prepared(reader)
    assert [id(text) for text in reader.read] == [id(RED), id(BLUE), id(EMPTY)]
    assert [int(item) for item in prepared.text.items] == [3, 5, 3]
    assert [int(item) for item in prepared.unconditional().text.items] == [1, 1, 1]


def test_classes_need_no_preparation():
    condition = classes(1)
    assert condition.prepared(Reader()) is condition


def test_shared_items_stay_shared_on_another_device():
    moved = Ragged((RED, BLUE, RED)).to("meta")
    assert moved.items[0] is moved.items[2]
    assert {item.device.type for item in moved.items} == {"meta"}


def test_a_clean_first_frame_is_not_predicted():
    maps = torch.arange(24).view(1, 2, 3, 2, 2)
    assert torch.equal(texts(RED, clean_first=True).predicted(maps), maps[:, :, 1:])
    assert texts(RED).predicted(maps) is maps
    assert classes(0).predicted(maps) is maps
