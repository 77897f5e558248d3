"""``grn info``: what a store or run directory is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import FAILED, Progress, format_bytes, guarded, print_json, say
from grncli.cli.terminal import screen_width, wrap
from grncli.runtime.monitor import Monitor

SHOWN_FAILURES = 10
SHOWN_LABELS = 12

Field = tuple[str, str]  # what stands before the first of its lines, and its text


@guarded
def info(
    path: Annotated[Path, Argument(metavar="PATH", help="A bit store or a run directory.", show_default=False)],
    verify: Annotated[
        bool, Option("--verify", help="Check every byte of a store against its checksums; load a run's weights.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a store or run directory is.

    Shapes, counts, settings, size, labels, failures, completeness.
    """
    from grncli.runs.describing import describe

    with Progress("info", "MiB") as progress:
        monitor = Monitor(progress=lambda done, total, note: progress(done >> 20, (total or 0) >> 20, note))
        facts = describe(path, verify=verify, monitor=monitor)
    problems = facts.get("problems", [])
    if json:
        print_json(facts)
    elif "kind" in facts:
        show = _show_store if facts["kind"] == "store" else _show_run
        for head, text in show(path, facts):
            for line in wrap(text, screen_width(), head):
                print(line)
    if verify and not problems:
        whole = "every byte is as it was committed" if facts["kind"] == "store" else "the weights load and are finite"
        say(f"{path}: {whole}")
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(FAILED)


def _show_store(path: Path, facts: dict[str, Any]) -> list[Field]:
    state = "complete" if facts["complete"] else "NOT complete: run the command that makes it again to resume it"
    time, height, width = facts["stride"]
    labels = [f"{name} ({count})" for name, count in facts["labels"].items()]
    return [
        ("", f"{path}: bit store, {state}"),
        _field("samples", str(facts["samples"])),
        *((f"    grid {grid:<12}", str(count)) for grid, count in facts["grids"].items()),
        _field(
            "bits",
            f"{facts['rounds']} rounds x {facts['channels']} channels a token of {time}x{height}x{width} pixels, "
            f"{facts['bits_per_pixel']:.3g} bits a pixel",
        ),
        _field("size", f"{format_bytes(facts['bits_bytes'])} of bits, {format_bytes(facts['disk_bytes'])} on disk"),
        _field("tokenizer", _tokenizer(facts["tokenizer"])),
        _field("preprocessing", ", ".join(f"{k}={v}" for k, v in facts["preprocessing"].items() if v is not None)),
        *([_field("labels", ", ".join(_some(labels, SHOWN_LABELS)))] if labels else []),
        *map(_show_part, facts["parts"]),
        *_show_failures(facts["failures"]),
    ]


def _show_part(part: dict[str, Any]) -> Field:
    of = "?" if part["sources"] is None else part["sources"]
    state = "" if part["complete"] else ", not complete"
    counts = f"{part['samples']} samples of {part['done']}/{of} sources, {part['failed']} failed{state}"
    return _field(f"part {part['part']}", counts)


def _show_failures(failures: Sequence[dict[str, Any]]) -> list[Field]:
    shown = [_field("failed", f"{line['source']}: {line['error']}") for line in failures[:SHOWN_FAILURES]]
    more = len(failures) - len(shown)
    return [*shown, *([_field("", f"and {more} more; --json lists them all")] if more else [])]


def _show_run(path: Path, facts: dict[str, Any]) -> list[Field]:
    time, height, width = facts["stride"]
    imported = facts["recipe"]["imported"]
    source = ", ".join(imported[name] for name in ("file", "weights") if name in imported) if imported else ""
    origin = f"imported from {source or 'a released file'}" if imported else f"step {facts['step']}"
    state = "" if facts["complete"] else f", NOT complete ({facts['recipe']['training']['steps']} steps wanted)"
    depth = "continuous features" if facts["rounds"] is None else f"{facts['rounds']} rounds"
    return [
        ("", f"{path}: {facts['kind']}, {origin}{state}"),
        _field("parameters", f"{facts['parameters'] / 1e6:.2f} M"),
        _field("bits", f"{depth} x {facts['channels']} channels a token of {time}x{height}x{width} pixels"),
        *(_show_generator(facts) if facts["kind"] == "generator" else []),
        _field("checkpoint", f"{facts['checkpoint']}, sha256 {facts['sha256'][:12]}"),
    ]


def _show_generator(facts: dict[str, Any]) -> list[Field]:
    predicts = "indices" if facts["prediction"] == "ind" else "bits"
    return [
        _field("predicts", f"{predicts} (GRN_{facts['prediction']}), {facts['classes'] or 'no'} classes"),
        _field("latent grids", ", ".join(_some(list(facts["grids"]), SHOWN_LABELS))),
        _field("tokenizer", _tokenizer(facts["tokenizer"])),
    ]


def _tokenizer(identity: dict[str, Any]) -> str:
    return f"{identity.get('name')} ({str(identity['sha256'])[:12]})" if "sha256" in identity else "not known"


def _field(name: str, text: str) -> Field:
    return f"  {name:<14} ", text


def _some(texts: Sequence[str], most: int) -> list[str]:
    return [*texts[:most], *([f"and {len(texts) - most} more"] if len(texts) > most else [])]
