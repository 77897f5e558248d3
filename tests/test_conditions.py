"""Conditions as values: rows that are chosen, joined, padded and dropped without a look inside."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from grncli.conditions import ClassCondition, Condition, Rows

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
