"""Where text, selection ratio and pictures lie in time and space (facts section 4)."""

import math

import pytest
import torch

from grncli.models.text_positions import grid_rotation, ratio_rotation, text_rotation

CPU = torch.device("cpu")


def expected(place, head_width):
    """Cosines and sines of one place, from the definition."""
    third = head_width // 2 // 3
    counts = (third, third, head_width // 2 - 2 * third)
    angles = [position * 10000 ** (-i / n) for position, n in zip(place, counts, strict=True) for i in range(n)]
    return torch.tensor([[math.cos(angle) for angle in angles], [math.sin(angle) for angle in angles]])


@pytest.mark.parametrize("head_width", [12, 16, 128])  # halves of 6, 8 and 64: the last two leave a remainder
def test_a_third_turns_with_time_one_with_rows_and_the_rest_with_columns(head_width):
    turns = grid_rotation((2, 4, 4), head_width, CPU).view(2, 2, 4, 4, -1)
    for frame, row, column in ((0, 0, 0), (1, 0, 3), (0, 3, 1), (1, 2, 2)):
        # A square spreads over sqrt(225 * 75) = 129.9 positions, of which 129 are counted; 64.5 rounds to the even 64.
        place = (600 + frame, (0, 32, 64, 97)[row], (0, 32, 64, 97)[column])
        torch.testing.assert_close(turns[:, frame, row, column], expected(place, head_width), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("grid", "rows", "columns"),
    [
        ((1, 3, 1), (0, 75, 150), (0,)),  # 3:1, 225 by 75
        ((1, 12, 21), (0, 8), (0, 8)),  # 9:16, 97 by 173
        ((1, 21, 12), (0, 8), (0, 8)),  # 16:9, by 1.777: 173 by 97
        ((1, 2, 20), (0, 37), (0, 11)),  # beyond all: as 1:3, 74 by 225
    ],
)
def test_rows_and_columns_are_spread_by_the_nearest_aspect_ratio(grid, rows, columns):
    turns = grid_rotation(grid, 12, CPU).view(2, *grid, -1)
    for i, row in enumerate(rows):
        torch.testing.assert_close(turns[:, 0, i, 0], expected((600, row, 0), 12), atol=1e-6, rtol=0)
    for i, column in enumerate(columns):
        torch.testing.assert_close(turns[:, 0, 0, i], expected((600, 0, column), 12), atol=1e-6, rtol=0)


def test_rows_and_columns_lie_one_apart_where_a_network_asks_for_it():
    turns = grid_rotation((2, 3, 5), 12, CPU, "per-token").view(2, 2, 3, 5, -1)
    for frame, row, column in ((0, 0, 0), (1, 2, 4), (0, 1, 3)):
        torch.testing.assert_close(
            turns[:, frame, row, column], expected((600 + frame, row, column), 12), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("length", [1, 7, 512, 513])
def test_a_text_lies_in_time_alone(length):
    turns = text_rotation(length, 16, CPU)
    assert turns.shape == (2, length, 8)
    torch.testing.assert_close(turns[:, -1], expected((length - 1, 0, 0), 16), atol=1e-6, rtol=0)


def test_the_ratio_lies_at_the_time_512():
    torch.testing.assert_close(ratio_rotation(16, CPU)[:, 0], expected((512, 0, 0), 16), atol=1e-6, rtol=0)


def test_the_first_frame_of_a_clip_lies_where_a_lone_one_does():
    assert torch.equal(grid_rotation((3, 4, 5), 16, CPU)[:, :20], grid_rotation((1, 4, 5), 16, CPU))
