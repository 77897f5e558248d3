"""Sheets of a tokenizer's training say what each of their rows is."""

import numpy as np
import pytest

from grncli.media.writing import contact_sheet
from grncli.training.reconstruction_objective import preview_rows


@pytest.mark.parametrize(("frames", "samples", "rows", "across"), [(1, 5, 3, 5), (9, 2, 6, 4)])
def test_the_first_picture_of_each_row_says_what_the_row_is(frames, samples, rows, across):
    parts = [np.full((frames, 8, 8, 3), value, np.uint8) for value in (10, 20, 30)]
    pictures, captions = preview_rows([tuple(parts)] * samples)
    assert [len(row) for row in pictures] == [across] * rows
    assert [int(row[0].flat[0]) for row in pictures] == [10, 20, 30] * (rows // 3)
    assert captions[::across] == ["source", "reconstruction", "difference x2"] * (rows // 3)
    assert sum(map(bool, captions)) == rows
    assert contact_sheet(pictures, captions).shape[2] == 3
