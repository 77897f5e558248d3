"""``grn tokenize``: media to a store of bits."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import (
    format_seconds,
    guarded,
    monitored,
    parse_part,
    print_json,
    say,
    worker_count,
    works_alone,
)
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor

if TYPE_CHECKING:
    from grncli.tokenizing.tokenizing_plan import TokenizeSettings
    from grncli.tokenizing.tokenizing_stage import TokenizingSummary


@guarded
def tokenize(
    src: Annotated[
        str,
        Argument(
            metavar="SRC",
            help="Images and clips: a file, a directory, a .tar or .zip (also archive.zip/folder), a text file of "
            "paths, or - for paths on standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, Argument(metavar="OUT.zarr", help="Bit store to make, or to resume.", show_default=False)],
    tokenizer: Annotated[str, Option(metavar="RUN", help="Run directory of the tokenizer.")],
    size: options.Size = None,
    budget: options.Budget = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    clips: Annotated[str, Option(metavar="all|first|K", help="Which windows of N frames of each clip.")] = "all",
    labels: Annotated[
        str,
        Option(
            metavar="none|dirs|dirs:N",
            help="dirs: the directory a source lies in is its class; dirs:1: the first directory below SRC, dirs:2 the "
            "next; dirs:-2: the directory above that of the source.",
        ),
    ] = "none",
    flip: Annotated[bool, Option("--flip", help="Store the mirrored picture as well.")] = False,
    rounds: Annotated[
        int | None, Option(metavar="M", min=1, max=8, help="Bits a feature; default: the tokenizer's.")
    ] = None,
    batch: options.Batch = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    dtype: Annotated[
        str, Option(metavar="float32|bfloat16", help="Number format of the encoder's arithmetic.")
    ] = "float32",
    part: options.Part = "0/1",
    limit: options.Limit = None,
    sample: options.Sample = None,
    max_time: options.MaxTime = None,
    strict: options.Strict = False,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Try failed sources again.")] = False,
    overwrite: Annotated[bool, options.overwrite("Replace an existing store.")] = False,
    no_captions: Annotated[
        bool, Option("--no-captions", help="Leave out the captions in text files beside media (0001.txt, 0001.jpg).")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what would be done, without doing it.")] = False,
    json: options.Json = False,
) -> None:
    """Encode images and clips into a bit store.

    Killed or stopped, run it again: it resumes, and ends with the same bytes. Text files beside media of the same name
    are their captions, one a line.
    """
    chosen_part, parts = parse_part(part)
    chosen: dict[str, Any] = {"clips": parse_clips(clips), "part": chosen_part, "parts": parts}
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"--dtype {dtype}: expected float32 or bfloat16, as both make other bits")
    works_alone(part)
    with monitored("tokenize", "sources", max_time) as monitor:
        from grncli.runtime.devices import pick_device
        from grncli.tokenizing.tokenizing_plan import TokenizeSettings
        from grncli.tokenizing.tokenizing_stage import tokenize

        settings = TokenizeSettings(
            size=size,
            budget=budget,
            frames=frames,
            fps=fps,
            labels=labels,
            flip=flip,
            rounds=rounds,
            dtype=dtype,  # type: ignore[arg-type]
            batch=batch,
            workers=worker_count(workers),
            device=str(pick_device(device)),
            limit=limit,
            sample=sample,
            strict=strict,
            retry_failed=retry_failed,
            overwrite=overwrite,
            captions=not no_captions,
            **chosen,
        )
        if dry_run:
            _say_plan(src, out, tokenizer, settings, monitor, json=json)
            return
        summary = tokenize(src, out, tokenizer, settings, monitor=monitor)
    if json:
        print_json({"out": str(out), **asdict(summary)})
    added = f"{summary.made} samples made in {format_seconds(summary.seconds)}" if summary.made else "nothing to do"
    failed = f", {summary.failed} could not be read (see grn info)" if summary.failed else ""
    ignored = f", {summary.ignored} other files ignored" if summary.ignored else ""
    cut = f", {summary.cut} read with a note" if summary.cut else ""
    enlarged = f", {summary.enlarged} smaller than asked for and scaled up" if summary.enlarged else ""
    rest = f"{failed}{cut}{enlarged}{_captions(summary)}{ignored}"
    say(f"{out}: {added}; {summary.samples} samples of {summary.sources} sources{rest}")


def _captions(summary: "TokenizingSummary") -> str:
    """The captions in the last line; nothing where there are none."""
    if not summary.captioned and not summary.lone_captions:
        return ""
    lacking = f" ({summary.uncaptioned} have none)" if summary.uncaptioned else ""
    lone = f", captions without media: {summary.lone_captions}" if summary.lone_captions else ""
    return f", captions of {summary.captioned} sources{lacking}{lone}"


def _say_plan(
    src: str, out: Path, tokenizer: str, settings: "TokenizeSettings", monitor: Monitor, *, json: bool
) -> None:
    """What ``--dry-run`` prints."""
    from grncli.tokenizing.tokenizing_plan import describe_target, make_plan

    plan = make_plan(src, tokenizer, settings, monitor=monitor)
    target, counts = describe_target(out, plan, settings), plan.counts()
    if json:
        print_json({**counts, "out": str(out), "fingerprint": plan.fingerprint.to_attributes()["grn"]})
    for line in [*plan.lines()[1:], *plan.chosen.doubts]:
        say(line)
    say(f"{out}: {target}; {', '.join(f'{k}: {n}' for k, n in counts.items() if n)}; nothing was written")


def parse_clips(text: str) -> int | None:
    """``all`` as None, ``first`` as 1, or a number above 0."""
    if text == "all":
        return None
    if text == "first":
        return 1
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--clips {text}: expected all, first or a number above 0")
    return int(text)
