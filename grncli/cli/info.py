"""``grn info``: what a store or run directory is."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from grncli.cli.console import FAILED, format_bytes, guarded, print_json, say
from grncli.errors import GrnError

SHOWN_FAILURES = 10
SHOWN_LABELS = 12


@guarded
def info(
    path: Annotated[Path, Argument(metavar="PATH", help="A bit store or a run directory.", show_default=False)],
    verify: Annotated[
        bool, Option("--verify", help="Check every byte of a store against its checksums; load a run's weights.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show what a store or run directory is: shapes, counts, settings, size, labels, failures, completeness."""
    from grncli.describing import describe
    from grncli.describing import verify as verify_path
    from grncli.media.sources import printable

    problems = verify_path(path) if verify else []
    try:
        found = describe(path)
    except GrnError as error:
        if not problems:
            raise
        found = {}
        problems += [] if str(error) in problems else [str(error)]
    if verify:
        found["problems"] = problems
    if json:
        print_json(found)
    elif "kind" in found:
        for line in _store_lines(path, found) if found["kind"] == "store" else _run_lines(path, found):
            print(printable(line))
    if verify and not problems:
        whole = "every byte is as it was committed" if found["kind"] == "store" else "the weights load and are finite"
        say(f"{path}: {whole}")
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(FAILED)


def _store_lines(path: Path, found: dict[str, Any]) -> list[str]:
    state = "complete" if found["complete"] else "NOT complete: run the command that makes it again to go on"
    time, height, width = found["stride"]
    tokenizer = found["tokenizer"]
    lines = [
        f"{path}: bit store, {state}",
        f"  samples        {found['samples']}",
        *(f"    grid {grid:<12}{count}" for grid, count in found["grids"].items()),
        f"  bits           {found['rounds']} rounds x {found['channels']} channels a token of {time}x{height}x{width} "
        f"pixels, {found['bits_per_pixel']:.3g} bits a pixel",
        f"  size           {format_bytes(found['bits_bytes'])} of bits, {format_bytes(found['disk_bytes'])} on disk",
        f"  tokenizer      {tokenizer.get('name')} ({str(tokenizer.get('sha256'))[:12]})",
        f"  preprocessing  {', '.join(f'{k}={v}' for k, v in found['preprocessing'].items() if v is not None)}",
    ]
    if found["labels"]:
        shown = [f"{name} ({count})" for name, count in list(found["labels"].items())[:SHOWN_LABELS]]
        more = len(found["labels"]) - len(shown)
        lines.append(f"  labels         {', '.join(shown)}{f' and {more} more' if more else ''}")
    for part in found["parts"]:
        of = "?" if part["sources"] is None else part["sources"]
        state = "" if part["complete"] else ", not complete"
        counts = f"{part['samples']} samples of {part['done']}/{of} sources, {part['failed']} failed"
        lines.append(f"  part {part['part']:<10}{counts}{state}")
    failures = found["failures"]
    lines += [f"  failed         {line['source']}: {line['error']}" for line in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"                 and {len(failures) - SHOWN_FAILURES} more; --json lists them all")
    return lines


def _run_lines(path: Path, found: dict[str, Any]) -> list[str]:
    time, height, width = found["stride"]
    imported = found["recipe"]["imported"]
    origin = f"imported from {imported['file']} ({imported['weights']})" if imported else f"step {found['step']}"
    state = "" if found["complete"] else f", NOT complete ({found['recipe']['training']['steps']} steps wanted)"
    depth = "continuous features" if found["rounds"] is None else f"{found['rounds']} rounds"
    bits = f"{depth} x {found['channels']} channels a token of {time}x{height}x{width} pixels"
    return [
        f"{path}: {found['kind']}, {origin}{state}",
        f"  parameters     {found['parameters'] / 1e6:.2f} M",
        f"  bits           {bits}",
        *(_generator_lines(found) if found["kind"] == "generator" else []),
        f"  checkpoint     {found['checkpoint']}, sha256 {found['sha256'][:12]}",
    ]


def _generator_lines(found: dict[str, Any]) -> list[str]:
    tokenizer = found["tokenizer"]
    return [
        f"  predicts       {'indices' if found['prediction'] == 'ind' else 'bits'} (GRN_{found['prediction']}), "
        f"{found['classes'] or 'no'} classes",
        f"  latent grids   {', '.join(found['grids'])}",
        f"  tokenizer      {tokenizer.get('name', 'not known')} ({str(tokenizer.get('sha256', ''))[:12]})",
    ]
