"""Curves of runs, as numbers, as SVG and as files, by what their logs hold."""

import json
import os
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from grncli.evaluation.curve_plots import curves_svg, draw_curves
from grncli.evaluation.curves import read_curves
from grncli.evaluation.drawing import BLUE, COLOURS, INK, inline_svg, save_figure
from grncli.runtime.errors import CheckpointError, UsageError

TENTHS = {f"accuracy_{i / 10:.1f}": 0.5 + 0.04 * i for i in range(10)}


@pytest.fixture
def write_log(tmp_path):
    def write(name, lines):
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run

    return write


def tokenizer_lines(seconds=2.0, last=400):
    for step in range(100, last + 1, 100):
        yield {"step": step, "loss": 40 / step, "image_psnr": 20 + step / 100, "learning_rate": 1e-3,
               "seconds": seconds, "waiting_share": 0.25, "gradient_norm": 1.0}  # fmt: skip


@pytest.fixture
def tokenizer(write_log):
    return write_log("tok", [*tokenizer_lines(), {"step": 400, "validation_image_psnr": 23.5}])


@pytest.fixture
def generator(write_log):
    return write_log("gen", [{"step": s, "loss": 0.5, "accuracy": 0.75, **TENTHS, "seconds": 4.0} for s in (50, 100)])


def panel(curves, heading):
    (found,) = [each for each in curves.panels if each.heading == heading]
    return found


def test_every_panel_says_its_unit_and_holds_what_was_logged(tokenizer):
    curves = read_curves([tokenizer])
    headings = ["Loss (weighted sum)", "PSNR of pictures (dB)", "Learning rate (per step)", "Speed (steps/s)"]
    assert [each.heading for each in curves.panels] == [*headings, "Waiting (% of time)"]
    trained, held_out = panel(curves, "PSNR of pictures (dB)").lines
    assert (trained.x.tolist(), trained.y.tolist()) == ([100, 200, 300, 400], [21, 22, 23, 24])
    assert (held_out.held_out, held_out.x.tolist(), held_out.y.tolist()) == (True, [400], [23.5])
    assert panel(curves, "Speed (steps/s)").lines[0].y.tolist() == [50, 50, 50, 50]
    assert panel(curves, "Waiting (% of time)").lines[0].y.tolist() == [25, 25, 25, 25]


def test_losses_of_generators_and_tokenizers_have_panels_of_their_own(tokenizer, generator):
    curves = read_curves([tokenizer, generator], metrics=["loss"])
    assert [(each.heading, [line.run for line in each.lines]) for each in curves.panels] == [
        ("Loss (weighted sum)", [0]),
        ("Cross entropy (nats)", [1]),
    ]


def test_accuracy_is_drawn_by_the_share_of_known_tokens_at_the_middle_of_each_tenth(generator):
    (drawn,) = read_curves([generator], metrics=["ratio"]).panels
    assert [line.label for line in drawn.lines] == ["step 50", "step 100"]
    assert drawn.lines[-1].x.tolist() == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert drawn.lines[-1].y.tolist() == pytest.approx([50 + 4 * i for i in range(10)])


def test_time_is_what_training_took_not_what_passed(write_log):
    quick, slow = write_log("quick", tokenizer_lines(60.0)), write_log("slow", tokenizer_lines(120.0))
    drawn = panel(read_curves([quick, slow], over="time"), "PSNR of pictures (dB)")
    assert drawn.x_label == "minutes of training"
    assert [line.x.tolist() for line in drawn.lines] == [[1, 2, 3, 4], [2, 4, 6, 8]]


def test_a_loss_over_decades_has_a_logarithmic_axis(write_log):
    run = write_log("long", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.1}])
    assert read_curves([run]).panels[0].heading == "Loss (weighted sum, log)"


def test_what_is_no_number_and_a_torn_last_line_are_left_out(write_log):
    run = write_log("run", [{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 0.5}])
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    assert read_curves([run]).panels[0].lines[0].x.tolist() == [1, 3]


def test_runs_of_one_name_are_told_apart_by_their_folders(write_log):
    runs = [write_log(f"{name}/run", tokenizer_lines()) for name in "ab"]
    assert read_curves(runs).names == ["a/run", "b/run"]


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [(["accuracy"], "no such number; expected some of loss, psnr, rate"), (["ratio"], "no such number")],
)
def test_a_metric_that_was_not_logged_is_refused(tokenizer, metrics, sentence):
    with pytest.raises(UsageError, match=sentence):
        read_curves([tokenizer], metrics=metrics)


def test_any_number_of_the_log_can_be_drawn(tokenizer):
    assert read_curves([tokenizer], metrics=["gradient_norm"]).panels[0].heading == "gradient norm (as logged)"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "holds no metrics.jsonl"),
        ("", "holds no line yet"),
        ('{"step": "1"}\n', "expected a number of steps"),
        (f'{{"step": {10**400}}}\n', "expected a number of steps"),
        ('{"step": 1}\n', "none of the numbers"),
    ],
)
def test_what_is_no_log_is_one_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(CheckpointError, match=sentence):
        read_curves([tmp_path])


def test_svg_for_a_page_is_read_aloud_scales_and_takes_the_colour_of_the_text(tokenizer, generator):
    svg = curves_svg([tokenizer, generator])
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert "PSNR of pictures (dB): tok ends at 24, tok ends at 23.5" in root.attrib["aria-label"]
    assert "max-width" in root.attrib["style"]
    texts = {"".join(text.itertext()) for text in root.iter("text")}
    assert {"PSNR of pictures (dB)", "step", "tok", "gen", "held out"} <= texts
    assert "currentColor" in svg
    assert INK not in svg
    assert not re.search(r"https?://|<style|<metadata", svg)


def test_figures_on_one_page_share_no_names_and_are_the_same_every_time(tokenizer, generator):
    svgs = [curves_svg([run]) for run in (tokenizer, generator, tokenizer)]
    assert svgs[0] == svgs[2]
    for svg in svgs:
        defined, used = set(re.findall(r' id="([^"]+)"', svg)), set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
        assert used == defined
        assert not any(re.fullmatch(r"[a-z]+\d*_\d+", name) for name in defined)  # such as axes_1


@pytest.mark.filterwarnings("error")
def test_any_name_of_a_run_is_shown_as_it_is(write_log):
    names = ["_run$1$", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", os.fsdecode(b"caf\xe9")]
    svg = curves_svg([write_log(name, tokenizer_lines()) for name in names], metrics=["psnr"])
    texts = {"".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("text")}
    assert {*names[:2], "caf\\xe9"} <= texts


def test_steps_are_whole_numbers_on_the_axis(write_log):
    run = write_log("short", [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
    ticks = draw_curves(read_curves([run])).axes[0].get_xticks()
    assert all(tick == round(tick) for tick in ticks)


def test_more_runs_than_named_colours_still_differ(write_log):
    runs = [write_log(f"run{i:02d}", tokenizer_lines(last=200)) for i in range(len(COLOURS) + 3)]
    axes = draw_curves(read_curves(runs, metrics=["psnr"])).axes[0]
    assert len({str(line.get_color()) for line in axes.lines}) == len(runs)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_suffix_decides_the_format(tokenizer, tmp_path, suffix):
    file = tmp_path / f"c.{suffix}"
    save_figure(draw_curves(read_curves([tokenizer])), file)
    assert file.read_bytes().lstrip()[:5] in {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}[suffix]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("ground", ["#ffffff", "#16181c"])
def test_lines_are_seen_on_white_and_on_black(colour, ground):
    lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 3  # WCAG 2.2, 1.4.11


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_a_description_cannot_leave_its_attribute(tokenizer):
    figure = draw_curves(read_curves([tokenizer], metrics=["psnr"]))
    svg = inline_svg(figure, 'a "b" <script>')
    assert ElementTree.fromstring(svg).attrib["aria-label"] == 'a "b" <script>'
    assert BLUE in svg


def test_numbers_that_nothing_measures_are_left_out_and_names_that_look_like_tenths_are_no_ratios(write_log):
    odd = {"loss": 10**400, "accuracy": 1e300, "accuracy_0.x": 1, "learning_rate": 0.1, "seconds": 10**400}
    curves = read_curves([write_log("odd", [{"step": 1, **odd}])])
    assert [each.name for each in curves.panels] == ["rate"]


@pytest.mark.filterwarnings("error")
def test_a_run_that_was_logged_at_step_0_alone_is_drawn_without_a_warning(write_log):
    assert curves_svg([write_log("begun", [{"step": 0, "loss": 2.0}])]).startswith("<svg")
