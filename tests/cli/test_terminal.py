"""Tables and sentences on a screen: every number whole, no line wider than the screen."""

import math
import re

import numpy as np
import pytest

from grncli.cli.reports import report_lines
from grncli.cli.terminal import columns_of, histogram, shorten, table_lines, wrap
from grncli.evaluation.generation import Generation
from grncli.evaluation.halving import Search
from grncli.evaluation.pair_comparison import PairComparison, ReconRow
from grncli.evaluation.rounds import RoundQuality, RoundStatistics
from grncli.evaluation.sample_metrics import MetricValue
from grncli.evaluation.sampling_costs import Cost
from grncli.evaluation.search_folder import Trial
from grncli.metrics.pairwise import Spread
from grncli.reporting.generation_report import tabulate as tabulate_generation
from grncli.reporting.reconstruction_report import tabulate as tabulate_reconstruction
from grncli.reporting.rounds_report import tabulate as tabulate_rounds
from grncli.reporting.search_report import tabulate as tabulate_search
from grncli.reporting.text_report import Table, TextReport, number

WIDTHS = (60, 80, 120)
LONG = "photographs-of-a-very-long-name/" * 6 + "0001.png"
DETAIL = "100 subsets of 1000 out of 50000 features of each side"
NUMBER = re.compile(r"[-+]?\d[\d.,:]*(?:e[-+]\d+)?")


def check(lines, tables, width):
    """Each number of the cells appears whole, and nothing is too wide."""
    assert max(map(columns_of, lines)) <= width
    shown = set(re.findall(r"[^\s()]+", "\n".join(lines)))
    for table in tables:
        for row in table.rows:
            for i, cell in enumerate(row):
                if i not in table.names:
                    for word in cell.split():
                        assert not NUMBER.match(word) or word.strip("()") in shown, word


def numbers(scale):
    return [1.0 * scale, -3.123456789 * scale, math.nan, math.inf, 0.0]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9, 1e30])
def test_any_table_keeps_its_numbers(width, scale):
    forms = (".5f", ".3f", ".4g", ".1f")
    cells = [[number(value, form) for form in forms * 3] for value in numbers(scale)]
    header = ["guidance_interval", "largest error", "bound", "of two channels"] * 3
    table = Table("Of " + LONG, ["", *header], [[f"{LONG}{i}", *row] for i, row in enumerate(cells)], names={0})
    check(report_lines(TextReport([table], ["A note of " + LONG]), width), [table], width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("tokenizer", [None, {"name": "tok", "sha256": "0" * 64}])
def test_reconstructions_fit(width, scale, tokenizer):
    spread = Spread(samples=3, mean=23.1 * scale, deviation=1.5 * scale, worst=[(LONG, 12, 3.2 * scale)])
    spreads = dict.fromkeys(("psnr", "ssim", "ms-ssim", "lpips", "lpips-vgg"), spread)
    distances = {"rfid": 9.1 * scale, "rfvd": math.nan}
    rows = [ReconRow(rounds=1, label=label, spreads=spreads, distances=distances) for label in ("1", "continuous")]
    network = {"name": "inception", "sha256": "0" * 64, "input": "as it is", "vectors": 9}
    found = PairComparison(
        src=LONG,
        about={"size": "native"},
        tokenizer=tokenizer,
        images=10**9,
        clips=0,
        failed=1,
        rows=rows,
        networks={"rfid": network},
        warnings=[LONG],
        sheet=np.zeros((1, 1, 3), np.uint8),
    )
    report = tabulate_reconstruction(found)
    check(report_lines(report, width), report.tables, width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_generations_fit(width, scale):
    figures = [
        MetricValue(metric="fid", label="FID", value=9.1 * scale),
        MetricValue(metric="kid", label="KID", value=-0.3 * scale, deviation=0.01 * scale, detail=DETAIL),
        MetricValue(metric="is", label="Inception Score", value=math.nan),
    ]
    settings = {"schedule": {"kind": "complexity", "k": 600.0, "b": -547.25}, "guidance": 2.35, "temperature": 1.31}
    cost = Cost(samples=10**9, steps={50: 3}, mean_steps=50, nfe=89.0 * scale, seconds=None, settings=settings)
    about = {"src": LONG, "count": 50000}
    file = {"name": LONG, "sha256": "5" * 64}
    text_image = {"image": file, "text": file, "input": DETAIL, "prompt": DETAIL, "clip": DETAIL}
    found = Generation(samples=about, reference=about, text_image=text_image, figures=figures, cost=cost, warnings=[])
    report = tabulate_generation(found)
    check(report_lines(report, width), report.tables, width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_rounds_fit(width, scale):
    metrics = {"psnr": 26.3 * scale, "ssim": 0.8 * scale, "lpips": math.nan}
    rows = [
        RoundQuality(rounds=r, compression=3.4 * scale, bound=e, largest_error=e, mean_error=e, metrics=metrics)
        for r, e in ((1, 0.5), (8, 0.0039 * scale), (None, None))
    ]
    found = RoundStatistics(
        src=LONG,
        tokenizer={"name": LONG, "sha256": "0" * 64},
        trained_rounds=None,
        channels=16,
        stride=(4, 16, 16),
        images=10**9,
        clips=3,
        failed=0,
        rows=rows,
        sheet=np.zeros((1, 1, 3), np.uint8),
    )
    report = tabulate_rounds(found)
    check(report_lines(report, width), report.tables, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_search_grid_fits(width):
    from grncli.evaluation.grids import SEARCHED

    # Of each setting but the last.
    values = (1.31, 2.35, "0.44:1", 50, "complexity", 0.95, 1.0, 600.0, -547.0, 20, 50, 5, 30.0, True)
    point = dict(zip(SEARCHED, values, strict=False))
    point["select"] = "confidence"
    trials = [Trial(point=point, per_class=9, samples=90000, distance=d, nfe=89.1) for d in (12.3, math.nan)]
    about = {"reference": {"src": LONG, "count": 5}, "network": {"name": "inception", "sha256": "0" * 64}}
    found = Search(grid={n: [v] for n, v in point.items()}, trials=trials, distance="fid", about=about, warnings=[LONG])
    report = tabulate_search(found)
    lines = report_lines(report, width)
    check(lines, report.tables, width)
    assert sum(line.split()[:1] == ["2"] for line in lines) > (width < 120)  # rows of further blocks can be told apart


def test_columns_that_do_not_fit_follow_under_the_same_rows():
    lines = table_lines(["", "a", "b"], [["one", "1" * 14, "2" * 14], ["two", "3" * 14, "4" * 14]], 30)
    assert [line.split() for line in lines if line.split()[:1] == ["one"]] == [["one", "1" * 14], ["one", "2" * 14]]


def test_a_table_that_fits_is_one_block_with_heads_in_one_line():
    assert table_lines(["rounds", "largest error"], [["1", "0.5"]], 80) == [
        "  rounds  largest error",
        "  ------  -------------",
        "       1            0.5",
    ]


def test_heads_are_broken_before_anything_else():
    assert table_lines(["rounds", "largest error"], [["1", "0.50000"]], 20)[:2] == [
        "          largest",
        "  rounds    error",
    ]


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (math.nan, ""), (math.inf, "inf"), (2.0, "2.00")])
def test_a_number_that_is_not_defined_is_an_empty_cell(value, shown):
    assert number(value, ".2f") == shown


def test_a_long_name_keeps_both_ends():
    assert shorten("photos/train/cat/0001.png", 15) == "photos/…001.png"
    assert columns_of(shorten("日本語" * 9, 16)) <= 16


def test_what_drives_a_terminal_is_escaped():
    assert wrap("a\x1b[31mred", 80) == ["a\\x1b[31mred"]
    assert "\x1b" not in "".join(table_lines(["\x1b"], [["\x1b[2J"]], 80))


def test_a_word_longer_than_the_screen_loses_nothing():
    assert "".join(line.strip() for line in wrap("x" * 100, 40, "  failed  ")) == "failed  " + "x" * 100


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("most", [1, 50, 10**12])
def test_a_histogram_fits_with_every_count(width, most):
    lines = histogram({20: 1, 21: most, 50: 3}, width)
    assert max(map(len, lines)) <= width
    assert sum(int(line.split()[-1]) for line in lines) == most + 4


def test_the_screen_is_80_columns_without_a_terminal_and_as_columns_says(monkeypatch):
    from grncli.cli.terminal import screen_width

    monkeypatch.setenv("COLUMNS", "123")
    assert screen_width() == 123
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("os.get_terminal_size", lambda fd: (_ for _ in ()).throw(OSError()))
    assert screen_width() == 80
