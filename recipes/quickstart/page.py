"""Everything that the demo made on one page that needs nothing else: python page.py OUT."""

import base64
import json
import os
import sys
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import asked_for, listed
from PIL import Image

import grncli
from grncli.demo.shape_sets import SETS
from grncli.demo.wordings import GROUP
from grncli.evaluation.curve_plots import curves_svg
from grncli.evaluation.drawing import BLUE, ORANGE, inline_svg, new_figure, style
from grncli.evaluation.html import heading, page, paragraph, table
from grncli.runtime.files import whole_file

COLOURS, SHAPES = list(SETS["easy"].colours), list(SETS["easy"].shapes)
TITLES = {
    "held-out/images": "held-out drawings",
    "decoded": "the same, through the tokenizer",
    "samples": "samples by class",
    "prompts/seen": "samples by prompt, combinations seen in training",
    "prompts/unseen": "samples by prompt, combinations never seen",
}
KINDS = ("one figure", "four small figures")
STYLE = """<style>
.figures{display:grid;grid-template-columns:5.2rem repeat(8,minmax(2.2rem,5.2rem));gap:.35rem;align-items:center;
  margin:1rem 0}
.figures b{font-weight:400;font-size:12px;color:var(--quiet);text-align:center}
.figures b.row{text-align:right;padding-right:.4rem}
.figures img,.strip img{border-radius:3px}
.figures img.unseen{outline:3px solid #d9730d;outline-offset:1px}
.key{display:inline-block;width:.8rem;height:.8rem;border:3px solid #d9730d;border-radius:3px;vertical-align:-2px}
.strip{display:grid;grid-template-columns:repeat(8,minmax(2.2rem,4.6rem));gap:.35rem;margin:.6rem 0}
video{max-width:100%;width:40rem;image-rendering:pixelated}
figure video{width:100%}
.sheet{max-width:46rem}
.sheet img{image-rendering:auto}
</style>"""


def main() -> None:
    """Write ``OUT/index.html``, and say where it is."""
    out = Path(sys.argv[1])
    file = out / "index.html"
    sections = [
        STYLE,
        *introduction(out),
        *prompts(out),
        *bits(out),
        *trainings(out),
        *classes(out),
        *steps(out),
        *moving(out),
    ]
    document = page("From drawings to prompts", [*sections, *numbers(out), *commands(out)])
    with whole_file(file) as temporary:
        temporary.write_text(document, encoding="utf-8")
    print(f"The demo on one page: {file.resolve()}")


def introduction(out: Path) -> Iterable[str]:
    """What this is, and how long it took."""
    minutes = seconds_busy(read_stages(out)) / 60
    yield paragraph(
        f"A Generative Refinement Network, made from nothing by grn {grncli.__version__} in {minutes:.0f} minutes "
        f"on {os.cpu_count()} CPU cores (PyTorch {torch.__version__}): drawings, a tokenizer that turns each into "
        "1,024 bits, and two generators that refine noise into such bits, one told a class, one told a caption."
    )


def prompts(out: Path) -> Iterable[str]:
    """A drawing of each combination by prompt, and those of one's own prompt."""
    shown: dict[str, str] = {}
    for kind in ("seen", "unseen"):
        folder = out / "prompts" / kind
        for sample in listed(folder):
            if asked_for(sample) not in shown:
                note = ", a combination never seen" if kind == "unseen" else ""
                shown[asked_for(sample)] = picture(folder / sample["file"], sample["prompt"] + note, kind == "unseen")
    yield heading("Drawings by prompt")
    yield paragraph("The first sample of each combination of a colour and a shape, none chosen by hand.")
    yield '<p><span class="key"></span> never seen in training: the words have to combine.</p>'
    yield grid(shown)
    yours = listed(out / "yours")
    yield heading(f"Your prompt: {yours[0]['prompt']}")
    drawn = "".join(picture(out / "yours" / each["file"], each["prompt"]) for each in yours)
    yield f'<div class="strip">{drawn}</div>'
    yield paragraph('Another: DEMO_PROMPT="a yellow star" bash recipes/demo.sh')


def bits(out: Path) -> Iterable[str]:
    """What went in, and what comes back after each number of rounds."""
    rounds = read(out / "rounds.json")
    yield heading("Drawings as bits")
    yield paragraph(
        "Held-out drawings, and what comes back of them after 1 to 4 rounds of binary quantization: each round halves "
        "the largest error that a feature can have."
    )
    sheet = picture(out / "rounds.png", "Drawings, and what comes back after 1 to 4 rounds")
    yield f'<p class="sheet">{sheet}</p>'
    rows = [
        [str(row["rounds"]), f"{row['compression']:.0f}x", f"{row['bound']:.4f}", f"{row['metrics']['psnr']:.2f} dB"]
        for row in rounds["rows"]
        if row["rounds"] is not None
    ]
    yield table(["rounds", "smaller than the pixels", "largest error of a feature", "PSNR of 256 drawings"], rows)


def trainings(out: Path) -> Iterable[str]:
    """Curves of the three trainings."""
    yield heading("Trainings")
    yield f"<p>{curves_svg([out / 'tokenizer'], metrics=['loss', 'psnr'], columns=2)}</p>"
    generators = [out / "generator", out / "text-generator"]
    yield paragraph(
        "The generators: both predict the index of each channel's bits, so that their losses are of the same kind; "
        "which share of the tokens is known is drawn anew for every sample."
    )
    yield f"<p>{curves_svg(generators, metrics=['loss', 'accuracy', 'rate'], columns=3)}</p>"


def classes(out: Path) -> Iterable[str]:
    """A sample of each class, and how samples come about."""
    folder = out / "samples"
    shown: dict[str, str] = {}
    for sample in listed(folder):
        if sample["class"] not in shown:
            shown[sample["class"]] = picture(folder / sample["file"], sample["class"])
    yield heading("Drawings by class")
    yield paragraph("The first sample of each class of the generator that is told classes; six were held out.")
    yield grid(shown)
    yield heading("Refinement")
    yield paragraph(
        "All tokens are refined together: at each step the network predicts the whole picture, and a growing share of "
        "its predictions is kept, drawn anew each time, so that a mistake can be erased."
    )
    film = base64.b64encode((out / "film.mp4").read_bytes()).decode()
    yield (
        '<video controls loop muted playsinline autoplay aria-label="Refinement of the first samples, step by step" '
        f'src="data:video/mp4;base64,{film}"></video>'
    )


def steps(out: Path) -> Iterable[str]:
    """What the schedule by entropy does with easy and hard drawings."""
    sampled = listed(out / "schedule/complexity")
    samples = {title: of_kind(sampled, title) for title in KINDS}
    yield heading("Steps where they are needed")
    yield paragraph(
        "The complexity-aware schedule (paper, Eq. 9) gives each sample steps by its own entropy in the first ones. "
        "Every point is a sample of the generator that is told classes."
    )
    drawn = draw_steps(samples)
    means = {title: np.mean([point["steps"] for point in points]) for title, points in samples.items()}
    told = ", ".join(f"{title} take {mean:.1f} steps" for title, mean in means.items())
    yield f"<p>{inline_svg(drawn, f'Steps by entropy: {told} on average.')}</p>"
    yield table(["", "equal steps", "by entropy"], schedule_rows(out))


@style()
def draw_steps(samples: dict[str, list[dict[str, Any]]]) -> Any:
    """A figure of steps by entropy, a colour for each kind of drawing."""
    drawn = new_figure(6.2, 3.2)
    axes = drawn.subplots()
    for (title, points), colour in zip(samples.items(), (BLUE, ORANGE), strict=True):
        jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(points))
        axes.scatter(
            [point["entropy"] for point in points], np.array([point["steps"] for point in points]) + jitter,
            s=9, alpha=0.5, color=colour, label=title, linewidths=0,
        )  # fmt: skip
    axes.set_xlabel("entropy when the steps are decided (1 is noise)")
    axes.set_ylabel("steps")
    axes.legend(loc="upper left")
    return drawn


def schedule_rows(out: Path) -> list[list[str]]:
    """Steps, time and quality of both schedules."""
    quality, rows = read(out / "quality.json"), []
    both = ("fixed", "complexity")
    for title in KINDS:
        found = [of_kind(listed(out / "schedule" / name), title) for name in both]
        rows.append([f"mean steps, {title}", *(f"{np.mean([each['steps'] for each in one]):.1f}" for one in found)])
    seconds = [[line["seconds"] for line in read_stages(out) if f"schedule/{name}" in line["command"]] for name in both]
    rows.append(["seconds of the command", *(f"{sum(each):.0f}" for each in seconds)])
    right = [single_figures(quality[folder_of(quality, f"schedule/{name}")]) for name in both]
    rows.append(["colour and shape right, one figure", *(f"{100 * each:.1f} %" for each in right)])
    distances = [read(out / f"{name}-groups.json")["figures"][0]["value"] for name in both]
    rows.append(["Frechet distance, four small figures", *(f"{each:.2f}" for each in distances)])
    return rows


def of_kind(samples: list[dict[str, Any]], title: str) -> list[dict[str, Any]]:
    """Those of one figure, or of four."""
    return [each for each in samples if (each["class"] == GROUP) == (title != KINDS[0])]


def single_figures(found: dict[str, Any]) -> float:
    """Mean share of right samples over the classes of one figure."""
    return float(np.mean([share for name, share in found["classes"].items() if name != GROUP]))


def moving(out: Path) -> Iterable[str]:
    """Clips of moving figures, where they were made."""
    folder = out / "moving-samples"
    if not (folder / "samples.json").exists():
        return
    yield heading("Figures that move")
    yield paragraph(
        "A tokenizer of drawings and clips, and a generator that is told captions; one sample of each prompt."
    )
    clips = []
    for sample in listed(folder):
        data = base64.b64encode((folder / sample["file"]).read_bytes()).decode()
        prompt = escape(sample["prompt"])
        video = (
            f'<video loop muted playsinline autoplay aria-label="{prompt}" src="data:video/mp4;base64,{data}"></video>'
        )
        clips.append(f"<figure>{video}<figcaption>{prompt}</figcaption></figure>")
    yield f'<div class="grid">{"".join(clips)}</div>'


def numbers(out: Path) -> Iterable[str]:
    """What the classifier says of everything."""
    quality = read(out / "quality.json")
    yield heading("The numbers")
    yield paragraph(
        "A classifier that was trained on 4,900 other drawings, blurred and noisy ones, and has seen no sample says "
        "which class each picture shows; a picture is right where that is the class asked for."
    )
    rows = []
    for name, title in TITLES.items():
        found = quality[folder_of(quality, name)]
        shares = [f"{100 * found[kind]:.1f} %" for kind in ("right", "colour", "shape")]
        rows.append([title, str(found["samples"]), *shares])
    yield table(["pictures", "number", "right", "colour", "shape"], rows)
    unseen = quality[folder_of(quality, "prompts/unseen")]["classes"]
    told = ", ".join(f"{name.replace('-', ' ')} {100 * share:.0f} %" for name, share in unseen.items())
    yield paragraph(f"Combinations never seen in training: {told}.")


def commands(out: Path) -> Iterable[str]:
    """The commands of each stage, with the time they took."""
    yield heading("The commands")
    stages: dict[str, list[dict[str, Any]]] = {}
    for line in read_stages(out):
        stages.setdefault(line["stage"], []).append(line)
    for stage, lines in stages.items():
        took = sum(line["seconds"] for line in lines)
        shown = "\n".join(dict.fromkeys(line["command"].replace(f"{out}/", "") for line in lines))
        yield f"<details><summary>{escape(stage)}, {took:.0f} s</summary><pre>{escape(shown)}</pre></details>"
    yield paragraph("make -C recipes/quickstart STAGE does one stage and what it needs.")


def grid(shown: dict[str, str]) -> str:
    """Pictures by colour and shape; a combination that there is none of stays empty."""
    cells = ["<b></b>", *(f"<b>{colour}</b>" for colour in COLOURS)]
    for shape in SHAPES:
        cells.append(f'<b class="row">{shape}</b>')
        cells += [shown.get(f"{colour}-{shape}", "<b></b>") for colour in COLOURS]
    return f'<div class="wide"><div class="figures">{"".join(cells)}</div></div>'


def picture(file: Path, alt: str, unseen: bool = False) -> str:
    """A PNG file without its metadata, inline, with its text for readers who cannot see it."""
    buffer = BytesIO()
    with Image.open(file) as opened:
        opened.convert("RGB").save(buffer, format="PNG", optimize=True)
    mark = ' class="unseen"' if unseen else ""
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img{mark} alt="{escape(alt)}" title="{escape(alt)}" src="data:image/png;base64,{data}">'


def read(file: Path) -> Any:
    """A JSON document."""
    return json.loads(file.read_text(encoding="utf-8"))


def read_stages(out: Path) -> Sequence[dict[str, Any]]:
    """The log of the commands."""
    return [json.loads(line) for line in (out / "stages.jsonl").read_text(encoding="utf-8").splitlines()]


def seconds_busy(stages: Sequence[dict[str, Any]]) -> float:
    """Seconds in which at least one command ran."""
    total = until = 0.0
    for line in sorted(stages, key=lambda line: line["began"]):
        end = line["began"] + line["seconds"]
        total += max(0.0, end - max(until, line["began"]))
        until = max(until, end)
    return total


def folder_of(quality: dict[str, Any], name: str) -> str:
    """The key of a folder that was measured: its path."""
    return next(key for key in quality if key.endswith(f"/{name}"))


if __name__ == "__main__":
    main()
