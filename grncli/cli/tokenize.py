"""``grn tokenize``: media to a store of bits."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import format_seconds, guarded, monitored, own_part, print_json, say
from grncli.cli.help_pages import examples
from grncli.cli.terminal import field_lines, screen_width
from grncli.runtime.monitor import Monitor
from grncli.runtime.text import counted

if TYPE_CHECKING:
    from grncli.calls.media_calls import TokenizeOptions
    from grncli.tokenizing.tokenizing_stage import TokenizingSummary


@examples(
    "grn tokenize photos photos.zarr --tokenizer runs/tok --labels dirs",
    "grn tokenize clips clips.zarr --tokenizer runs/tok --size 128x224 --frames 17",
    "# Paths, classes and captions in a table",
    "grn tokenize photos.csv photos.zarr --tokenizer runs/tok --labels manifest",
    "# Paths on standard input",
    'find photos -name "*.png" | grn tokenize - some.zarr --tokenizer runs/tok',
    "# WebDataset shards and a folder",
    "grn tokenize 'shards-{000..127}.tar' photos all.zarr --tokenizer runs/tok",
)
@guarded
def tokenize(
    src: Annotated[
        list[str],
        Argument(
            metavar="SRC...",
            help="Images and clips: a file, a directory, a .tar or .zip (also archive.zip/folder), "
            "shards-{000..127}.tar, a text file of paths, a manifest (.jsonl, .csv, .tsv, .parquet), or - for paths on "
            "standard input; or several of them.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, Argument(metavar="OUT.zarr", help="Bit store to make, or to resume.", show_default=False)],
    tokenizer: Annotated[str, Option(metavar="RUN", help="Run directory of the tokenizer.")],
    size: options.Size = None,
    budget: options.Budget = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    clips: Annotated[
        str, Option(**options.one_of("all", "first", others=["K"]), help="Which windows of N frames of each clip.")
    ] = "all",
    labels: Annotated[
        str,
        Option(
            **options.one_of("none", "dirs", "cls", "json", "manifest", others=["dirs:N", "json:FIELD", "FILE"]),
            help="dirs: the directory a source lies in is its class; dirs:1: the first directory below SRC, dirs:2 the "
            "next; dirs:-2: the directory above that of the source; cls, json: a file of the same key; manifest: its "
            "column label; FILE: two columns, key or path and label.",
        ),
    ] = "none",
    class_names: Annotated[
        Path | None,
        Option(metavar="FILE", help="Names of classes, one a line, in the order of their numbers; no other is taken."),
    ] = None,
    flip: Annotated[bool, Option("--flip", help="Store the mirrored picture as well.")] = False,
    rounds: Annotated[
        int | None, Option(metavar="M", min=1, max=8, help="Bits a feature; default: the tokenizer's.")
    ] = None,
    batch: options.Batch = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    dtype: Annotated[
        str, Option(**options.one_of("float32", "bfloat16"), help="Number format of the encoder's arithmetic.")
    ] = "float32",
    part: options.Part = "0/1",
    limit: options.Limit = None,
    sample: options.Sample = None,
    max_time: options.MaxTime = None,
    strict: options.Strict = False,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Try failed sources again.")] = False,
    overwrite: Annotated[bool, options.overwrite("Replace an existing store.")] = False,
    add: Annotated[
        bool,
        Option(
            "--add",
            help="Add what is new, classes too; keep samples of sources that SRC lists no longer or that have changed.",
        ),
    ] = False,
    no_captions: Annotated[
        bool, Option("--no-captions", help="Leave out the captions of manifests and of files beside media (0001.txt).")
    ] = False,
    prefix_keys: Annotated[
        bool,
        Option("--prefix-keys", help="Begin each key with the name of its SRC or shard, for several that share names."),
    ] = False,
    null: Annotated[
        bool, Option("--null", help="Paths of lists and standard input end with a zero byte (find -print0).")
    ] = False,
    comments: Annotated[bool, Option("--comments", help="Lines of lists that begin with # are no paths.")] = False,
    columns: options.Columns = None,
    outside: Annotated[bool, Option("--outside", help="Let paths of a manifest leave its folder.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what would be done, and what it takes.")] = False,
    json: options.Json = False,
) -> None:
    """Encode images and clips into a bit store.

    Killed or stopped, run it again: it resumes, and ends with the same bytes. New sources are added to a store that
    has the others, wherever they sort. Captions are those of a manifest, or of text files beside media of the same
    name, one a line.
    """
    part = own_part(part)
    with monitored("tokenize", "sources", max_time) as monitor:
        from grncli.calls.media_calls import tokenize

        chosen: TokenizeOptions = {
            "size": size,
            "budget": budget,
            "frames": frames,
            "fps": fps,
            "clips": clips,  # type: ignore[typeddict-item]
            "labels": labels,
            "class_names": class_names,
            "flip": flip,
            "rounds": rounds,
            "dtype": dtype,
            "batch": batch,
            "workers": workers,
            "device": device,
            "part": part,
            "limit": limit,
            "sample": sample,
            "strict": strict,
            "retry_failed": retry_failed,
            "overwrite": overwrite,
            "add": add,
            "captions": not no_captions,
            "prefix_keys": prefix_keys,
            "null": null,
            "comments": comments,
            "columns": columns,
            "outside": outside,
        }
        if dry_run:
            _say_plan(src, out, tokenizer, chosen, monitor, json=json)
            return
        summary = tokenize(src, out, tokenizer=tokenizer, progress=monitor, **chosen)
    if json:
        print_json({**asdict(summary), "out": str(out)})
    added = (
        f"{counted(summary.made, 'sample')} made in {format_seconds(summary.seconds)}"
        if summary.made
        else "nothing to do"
    )
    failed = f", {summary.failed} could not be read (see grn info)" if summary.failed else ""
    ignored = f", {counted(summary.ignored, 'other file')} ignored" if summary.ignored else ""
    cut = f", {summary.cut} read with a note" if summary.cut else ""
    enlarged = f", {summary.enlarged} smaller than asked for and scaled up" if summary.enlarged else ""
    rest = f"{failed}{cut}{enlarged}{_captions(summary)}{ignored}"
    total = f"{counted(summary.samples, 'sample')} of {counted(summary.sources, 'source')}"
    say(f"{out}: {added}; {total}{rest}", always=bool(summary.failed))


def _captions(summary: "TokenizingSummary") -> str:
    """The captions in the last line; nothing where there are none."""
    if not summary.captioned and not summary.lone_captions:
        return ""
    lacking = f" ({summary.uncaptioned} have none)" if summary.uncaptioned else ""
    lone = f", captions without media: {summary.lone_captions}" if summary.lone_captions else ""
    return f", captions of {counted(summary.captioned, 'source')}{lacking}{lone}"


def _say_plan(
    src: list[str], out: Path, tokenizer: str, chosen: "TokenizeOptions", monitor: Monitor, *, json: bool
) -> None:
    """What ``--dry-run`` prints."""
    from grncli.calls.media_calls import tokenize_settings
    from grncli.cli.cost_report import cost_fields, say_warnings
    from grncli.costs.tokenizing_costs import tokenizing_costs
    from grncli.tokenizing.part_work import describe_target
    from grncli.tokenizing.tokenizing_plan import make_plan, with_classes_of

    settings = tokenize_settings(chosen)
    plan = with_classes_of(out, make_plan(src, tokenizer, settings, monitor=monitor), settings)
    target, counts = describe_target(out, plan, settings), plan.counts()
    for line in [*plan.lines()[1:], *plan.chosen.doubts]:
        say(line)
    costs = tokenizing_costs(plan, out, settings, monitor=monitor)
    if json:
        fingerprint = plan.fingerprint.to_attributes()["grn"]
        print_json({**counts, "out": str(out), "fingerprint": fingerprint, "costs": costs.to_json()})
    else:
        for line in field_lines(cost_fields(costs), screen_width()):
            print(line)
    say_warnings(costs)
    say(f"{out}: {target}; {', '.join(f'{k}: {n}' for k, n in counts.items() if n)}; nothing was written")
