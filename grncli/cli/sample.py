"""``grn sample``: refine random bits into samples."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import format_seconds, guarded, monitored, own_part, print_json, say
from grncli.cli.cost_report import print_costs
from grncli.cli.help_pages import examples
from grncli.cli.terminal import histogram, screen_width
from grncli.runtime.errors import GrnError, UsageError
from grncli.runtime.files import check_file
from grncli.runtime.text import counted
from grncli.runtime.urls import reads_urls

if TYPE_CHECKING:
    from grncli.runtime.monitor import Monitor
    from grncli.sampling.settings import SampleOptions
    from grncli.sampling.stage import SamplingSummary

MOST = 10_000_000  # samples of a class, or steps; more is a typing error


def _in_panel(panel: str) -> Callable[..., Any]:
    """`Option` for the section ``panel`` of the help."""

    def option(*names: str, **settings: Any) -> Any:
        return Option(*names, rich_help_panel=panel, **settings)

    return option


_what, _size, _step, _start = map(_in_panel, ("What is sampled", "Size", "Refinement", "What samples start from"))


@dataclass(frozen=True, kw_only=True)
class SubjectGroup:
    """Which classes or prompts are sampled."""

    classes: Annotated[str, _what(metavar="all|0,3,7", help="Classes to sample, by number or name.")] = "all"
    prompt: Annotated[str | None, _what(metavar="TEXT", help="One prompt.")] = None
    prompts: Annotated[
        Path | None,
        _what(
            metavar="FILE|-",
            help="Prompts: GenEval's or VBench's JSON, or plain lines. With - the networks stay loaded and answer each "
            "line of standard input by a JSON line with its files, below a folder OUT/00000, OUT/00001, ... for each "
            "prompt. For a generator of classes, prompts that name a class each.",
        ),
    ] = None
    per_class: Annotated[
        int | None,
        _what(
            "--per-prompt",
            "--per-class",
            metavar="N",
            min=1,
            max=MOST,
            help="Samples of each prompt or class, or in all for a generator without classes; default: 1 of a prompt, "
            "8 of a class.",
        ),
    ] = None
    rewrite: Annotated[
        str | None,
        _what(
            metavar="CMD",
            help='Program that reads {"number": n, "prompt": ...} a line and writes as many with new prompts; the '
            "answers are kept in OUT.prompts.jsonl.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TextGroup:
    """How a generator reads prompts."""

    text_encoder: Annotated[
        str | None, _what(metavar="DIR|minilm", help="Folder of the text encoder, or the small one of a package.")
    ] = None
    text: Annotated[
        Path | None, _what(metavar="STORE", help="Text features that grn encode-text made, instead of an encoder.")
    ] = None
    negative_prompt: Annotated[
        str | None, _what(metavar="TEXT|@FILE", help="What guidance leads away from; default: the run's.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class AreaGroup:
    """How large samples are, whatever the tokenizer."""

    budget: Annotated[
        str | None,
        _size(metavar="1M|WxH", help="Pixels of a frame: 0.06M, 0.25M, 0.41M, 0.92M, 1M, 2M, or those of WxH."),
    ] = None
    ratio: Annotated[
        str | None, _size(metavar="W:H", help="Aspect ratio that fills the budget, such as 16:9: the nearest of 15.")
    ] = None
    frames: Annotated[
        int | None, _size(metavar="N", min=1, help="Frames of a clip: 1 + n times the tokenizer's stride in time.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class SizeGroup(AreaGroup):
    """How large samples are."""

    size: Annotated[str | None, _size(metavar="HxW", help="Height and width in pixels.")] = None
    grid: Annotated[
        str | None, _size(metavar="TxHxW", help="The same in tokens; default: the most frequent of training.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class RefinementGroup:
    """How samples are refined; what is not given is the run's for a generator of texts."""

    steps: Annotated[
        int, _step(metavar="N", min=1, max=MOST, help="Refinement steps; with complexity, the pace of the warm-up.")
    ] = 50
    schedule: Annotated[
        Literal["linear", "cosine", "complexity"] | None,
        _step(
            help="How the selection ratio grows; complexity gives each sample steps by its entropy. Default: linear, "
            "or the run's for text."
        ),
    ] = None
    cosine_end: Annotated[
        float | None, _step(metavar="RATIO", help="Where the cosine ends; default: 1, or the run's for text.")
    ] = None
    shift: Annotated[
        float | None, _step(metavar="A", help="Shift of the cosine towards noise, 1 for none; default: 1.")
    ] = None
    k: Annotated[
        float | None, _step("--k", metavar="K", help="Steps per unit of entropy; default: fitted before, or 600.")
    ] = None
    b: Annotated[
        float | None, _step("--b", metavar="B", help="Steps at entropy 0; default: fitted before, or -547.")
    ] = None
    min_steps: Annotated[
        int | None, _step(metavar="N", min=1, help="Fewest steps of a sample; default: 20, of pictures from text 10.")
    ] = None
    max_steps: Annotated[int | None, _step(metavar="N", min=1, help="Most steps of a sample; default: 50.")] = None
    warmup_steps: Annotated[
        int | None, _step(metavar="N", min=0, help="Steps before the entropy decides; default: 5.")
    ] = None
    target_steps: Annotated[
        float | None, _step(metavar="MEAN", help="Fit b (and k, unless given) so that samples take this many steps.")
    ] = None
    guidance: Annotated[
        float | None,
        _step(
            metavar="SCALE",
            help="Scale of classifier-free guidance, 1 for none; default: 2.35, or the run's for text.",
        ),
    ] = None
    guidance_interval: Annotated[
        str | None,
        _step(
            metavar="LOW:HIGH",
            help="Ratios with guidance, LOW < 0 turns it up gradually; default: 0.44:1, for text always.",
        ),
    ] = None
    temperature: Annotated[
        float | None, _step(metavar="TAU", help="Divides the logits; default: 1.31, or the run's for text.")
    ] = None
    adapt_temperature: Annotated[
        bool, _step("--adapt-temperature", help="Lower it for samples of few steps, as the release does.")
    ] = False
    select: Annotated[
        Literal["random", "confidence", "mask"],
        _step(help="random (the paper), confidence (Appendix E.2), mask: accepted tokens stay fixed."),
    ] = "random"


@dataclass(frozen=True, kw_only=True)
class StartGroup:
    """What of samples is known before the first step."""

    first_frame: Annotated[
        Path | None,
        _start(
            metavar="PNG|DIR",
            help="Picture that clips of prompts start from; of a folder, one for each in their order.",
        ),
    ] = None
    init: Annotated[
        Path | None, _start(metavar="STORE", help="Start from these samples; --keep selects what of them stays.")
    ] = None
    keep: Annotated[
        str | None,
        _start(metavar="MASK.png|first-frame|SHARE", help="White pixels, the first frame, or a share of all bits."),
    ] = None


@examples(
    "grn sample runs/gen samples --tokenizer runs/tok --sheet sheet.png",
    "# More steps for what is difficult, 12 on average",
    "grn sample runs/gen samples --tokenizer runs/tok --schedule complexity \\",
    "    --target-steps 12 --min-steps 4",
    "# From text",
    "grn sample runs/t2i stars --tokenizer runs/tok --text-encoder minilm \\",
    '    --prompt "a purple star" --per-prompt 4',
)
@guarded
@reads_urls("init")
@options.grouped
def sample(
    run: Annotated[Path, Argument(metavar="RUN", help="Run directory of the generator.", show_default=False)],
    out: Annotated[
        Path,
        Argument(metavar="OUT", help="OUT.zarr for bits; else a folder for PNG and MP4.", show_default=False),
    ],
    subjects: SubjectGroup,
    texts: TextGroup,
    sizes: SizeGroup,
    refinement: RefinementGroup,
    starts: StartGroup,
    tokenizer: Annotated[
        str | None, Option(metavar="RUN2", help="Tokenizer that turns bits into pictures; not needed for OUT.zarr.")
    ] = None,
    weights: options.Weights = "ema",
    seed: options.Seed = 0,
    batch: options.Batch = None,
    part: options.Part = "0/1",
    sheet: Annotated[
        Path | None, Option(metavar="PNG", help="Write a contact sheet, a row for each class or prompt.")
    ] = None,
    film: Annotated[
        Path | None,
        Option(metavar="MP4", help="Write a film of the refinement of the first samples, and a PNG beside it."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    offload: Annotated[
        bool,
        Option("--offload", help="Let generator and tokenizer take turns on the device: less memory, later files."),
    ] = False,
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace samples made with other settings.")] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Sample from a generator of classes or texts: bits, or pictures and clips."""
    part = own_part(part)
    for path in (sheet, film):
        if path is not None:
            check_file(path)
    with monitored("sample", "samples", max_time) as monitor:
        from grncli.calls.sampling_files import sample_options
        from grncli.sampling.stage import sample
        from grncli.text.prompts import STANDARD_INPUT

        groups = vars(subjects) | vars(texts) | vars(sizes) | vars(refinement) | vars(starts)
        chosen = {
            **groups,
            "weights": weights,
            "seed": seed,
            "tokenizer": tokenizer,
            "batch": batch,
            "device": device,
            "dtype": dtype,
            "part": part,
            "sheet": sheet,
            "film": film,
            "offload": offload,
            "overwrite": overwrite,
        }
        settings = sample_options(chosen)
        if dry_run and subjects.prompts == STANDARD_INPUT:
            raise UsageError("--dry-run with --prompts -: how many prompts will come is not known; give a file of them")
        if dry_run:
            from grncli.calls.sampling_files import sample as call

            print_costs(call, run, out=out, progress=monitor, json=json, **chosen)
            return
        if subjects.prompts == STANDARD_INPUT:
            _answer_lines(run, out, settings, monitor)
            return
        summary = sample(run, out, settings, monitor)
    if json:
        print_json(_document(out, summary))
    elif len(summary.steps) > 1:
        for line in histogram(summary.steps, screen_width()):
            print(line)
    _say_summary(out, part, summary)


def _answer_lines(run: Path, out: Path, settings: "SampleOptions", monitor: "Monitor") -> None:
    """Answer each prompt of standard input by a JSON line."""
    from grncli.runtime.jsonlines import encode_line
    from grncli.sampling.from_text.prompt_session import PromptSession

    if sys.stdin is None:
        raise UsageError("--prompts -: standard input is closed, expected a prompt a line")

    def tell(answer: dict[str, Any]) -> None:
        print(encode_line(answer).decode(), end="", flush=True)

    refused = PromptSession(run, out, settings, monitor).answer(sys.stdin.fileno(), tell)
    if refused:
        raise GrnError(f"--prompts -: {refused} prompts were refused, as the lines of their answers say")


def _document(out: Path, summary: "SamplingSummary") -> dict[str, Any]:
    return {
        "out": str(out),
        "samples": summary.samples,
        "made": summary.made,
        "steps": {str(count): samples for count, samples in summary.steps.items()},
        "nfe": summary.nfe,
        "entropy": summary.mean_entropy,
        "seconds": summary.seconds,
    }


def _say_summary(out: Path, part: str, summary: "SamplingSummary") -> None:
    if not summary.samples:
        say(f"{out}: there is no sample, as none falls to part {part}")
        return
    nfe = summary.nfe / summary.samples
    mean = sum(count * samples for count, samples in summary.steps.items()) / summary.samples
    new = f"{counted(summary.made, 'sample')} made in {format_seconds(summary.seconds)}"
    say(
        f"{out}: {new if summary.made else 'all samples were there'}; {counted(summary.samples, 'sample')}, {mean:.1f} "
        f"steps and NFE {nfe:.1f} each, entropy {summary.mean_entropy:.4f}"
    )
    for path in summary.written:
        say(f"{path}: written")
