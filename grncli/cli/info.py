"""``grn info``: what a store or run directory is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import FAILED, Progress, format_bytes, guarded, print_json, say
from grncli.cli.help_pages import examples
from grncli.cli.terminal import Field, field, field_lines, screen_width, shorten, table_lines
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.text import counted
from grncli.runtime.urls import reads_urls

SHOWN_FAILURES = 10
SHOWN_LABELS = 12
SHOWN_PARTS = 16
LONGEST_PROMPT = 120  # columns
LONGEST_HEAD = 24


@examples(
    "grn info photos.zarr --verify",
    "grn info runs/tok --json | jq .sha256",
    "# Which settings differ",
    "grn info photos.zarr other.zarr",
)
@guarded
@reads_urls("path", "other")
def info(
    path: Annotated[
        Path,
        Argument(
            metavar="PATH",
            help="A bit store, a features store, the URL of one, or a run directory.",
            show_default=False,
        ),
    ],
    other: Annotated[
        Path | None,
        Argument(
            metavar="[OTHER]",
            help="Another store, run or recipe: show which settings differ. Both may be recipes.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool, Option("--verify", help="Check every byte of a store against its checksums; load a run's weights.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a store or run directory is.

    It tells shapes, counts, settings, size, labels, failures, and whether it is complete. Of two stores, runs or
    recipes, or a store and a run, it shows which settings differ.
    """
    if other is not None:
        if verify:
            raise UsageError(f"--verify: checks one store or run, expected it without {other}")
        _compare(path, other, json=json)
        return
    from grncli.runs.describing import describe

    with Progress("info", "MiB") as progress:
        monitor = Monitor(progress=lambda done, total, note: progress(done >> 20, (total or 0) >> 20, note))
        facts = describe(path, verify=verify, monitor=monitor)
    problems = facts.get("problems", [])
    if json:
        print_json(facts)
    elif "kind" in facts:
        show = {"store": _show_store, "features": _show_features}.get(facts["kind"], _show_run)
        for line in field_lines(show(path, facts), screen_width()):
            print(line)
    if verify and not problems:
        whole = "the weights load and are finite" if "checkpoint" in facts else "every byte is as it was committed"
        say(f"{path}: {whole}")
    for problem in problems:
        say(problem, always=True)
    if problems:
        raise typer.Exit(FAILED)


def _compare(one: Path, other: Path, *, json: bool) -> None:
    from grncli.runs.side_by_side import compare_settings
    from grncli.runtime.differences import shown_value

    found = compare_settings(one, other)
    if json:
        differing = [{"field": name, "one": first, "other": second} for name, first, second in found]
        print_json({"one": str(one), "other": str(other), "differences": differing})
    elif found:
        rows = [[name, shown_value(first), shown_value(second)] for name, first, second in found]
        heads = [shorten(str(path), LONGEST_HEAD) for path in (one, other)]
        for line in table_lines(["", *heads], rows, screen_width(), names={0, 1, 2}):
            print(line)
    count = "1 setting differs" if len(found) == 1 else f"{len(found) or 'no'} settings differ"
    say(f"{one}, {other}: {count}")


def _show_store(path: Path, facts: dict[str, Any]) -> list[Field]:
    time, height, width = facts["stride"]
    labels = [f"{name} ({count})" for name, count in facts["labels"].items()]
    return [
        ("", f"{path}: bit store, {_state(facts)}"),
        field("samples", str(facts["samples"])),
        *((f"    grid {grid:<12}", str(count)) for grid, count in facts["grids"].items()),
        field(
            "bits",
            f"{counted(facts['rounds'], 'round')} x {facts['channels']} channels a token of {time}x{height}x{width} "
            f"pixels, {facts['bits_per_pixel']:.3g} bits a pixel",
        ),
        field("size", _size(facts["bits_bytes"], "bits", facts["disk_bytes"])),
        field("tokenizer", _tokenizer(facts["tokenizer"])),
        field("preprocessing", ", ".join(f"{k}={v}" for k, v in facts["preprocessing"].items() if v is not None)),
        *([field("labels", ", ".join(_some(labels, SHOWN_LABELS)))] if labels else []),
        *(_show_captions(facts) if "captions" in facts else []),
        *_show_parts(facts["parts"]),
        *_under("parts", facts["faults"]),
        *_show_failures(facts["failures"]),
    ]


def _show_captions(facts: dict[str, Any]) -> list[Field]:
    captions = facts["captions"]
    kinds = ", ".join(f"{kind} ({count})" for kind, count in captions["kinds"].items())
    counts = f"of {captions['samples']} of {counted(facts['samples'], 'sample')}"
    every = f"{counted(captions['captions'], 'caption')} of {counted(captions['sources'], 'source')}"
    every += f", of the kinds {kinds}" if kinds else ""
    examples = [f"{shorten(one['caption'], LONGEST_PROMPT)} ({one['source']})" for one in captions["examples"]]
    return [field("captions", f"{counts}; {every}"), *_under("such as", examples)]


def _show_features(path: Path, facts: dict[str, Any]) -> list[Field]:
    lengths = [f"{length} ({count})" for length, count in facts["lengths"].items()]
    size = _size(facts["features_bytes"], "features", facts["disk_bytes"])
    parts = facts["parts"] if len(facts["parts"]) > 1 else []
    return [
        ("", f"{path}: features store, {_state(facts)}"),
        field("prompts", f"{facts['prompts']}, {facts['tokens']} tokens"),
        *([field("token counts", ", ".join(_some(lengths, SHOWN_LABELS)))] if lengths else []),
        field("features", f"{facts['width']} wide, computed in {facts['dtype']}, kept in bfloat16"),
        field("size", size),
        field("text encoder", f"{_tokenizer(facts['encoder'])}, at most {facts['max_tokens']} tokens a prompt"),
        *_under("such as", [shorten(prompt, LONGEST_PROMPT) for prompt in facts["examples"]]),
        *map(_show_feature_part, parts),
    ]


def _size(data: int, noun: str, on_disk: int | None) -> str:
    return f"{format_bytes(data)} of {noun}" + ("" if on_disk is None else f", {format_bytes(on_disk)} on disk")


def _show_feature_part(part: dict[str, Any]) -> Field:
    of = "?" if part["asked"] is None else part["asked"]
    state = "" if part["complete"] else ", not complete"
    return field(f"part {part['part']}", f"{part['prompts']}/{of} prompts{state}")


def _state(facts: dict[str, Any]) -> str:
    return "complete" if facts["complete"] else "NOT complete: run the command that makes it again to resume it"


def _show_parts(parts: Sequence[dict[str, Any]]) -> list[Field]:
    """A line for each of a few parts; of many for those that are not complete, and one for all."""
    if len(parts) <= SHOWN_PARTS:
        return list(map(_show_part, parts))
    lacking = [part for part in parts if not part["complete"]]
    done, failed = (sum(part[name] for part in parts) for name in ("done", "failed"))
    whole = f"{len(parts) - len(lacking)} of {len(parts)} complete, with {done} sources, {failed} failed"
    more = len(lacking) - SHOWN_PARTS
    rest = [field("", f"and {more} more are not complete; --json lists them all")] if more > 0 else []
    return [field("parts", whole), *map(_show_part, lacking[:SHOWN_PARTS]), *rest]


def _show_part(part: dict[str, Any]) -> Field:
    of = "?" if part["sources"] is None else part["sources"]
    state = "" if part["complete"] else ", not complete"
    dropped = f" ({part['dropped']} dropped)" if part["dropped"] else ""
    sources = f"{part['done']}/{of} sources, {part['failed']} failed"
    if part["missing"]:
        return field(f"part {part['part']}", "missing")
    return field(f"part {part['part']}", f"{counted(part['samples'], 'sample')}{dropped} of {sources}{state}")


def _show_failures(failures: Sequence[dict[str, Any]]) -> list[Field]:
    shown = [field("failed", f"{line['source']}: {line['error']}") for line in failures[:SHOWN_FAILURES]]
    more = len(failures) - len(shown)
    return [*shown, *([field("", f"and {more} more; --json lists them all")] if more else [])]


def _show_run(path: Path, facts: dict[str, Any]) -> list[Field]:
    time, height, width = facts["stride"]
    imported = facts["recipe"]["imported"]
    source = ", ".join(imported[name] for name in ("file", "weights") if name in imported) if imported else ""
    origin = f"imported from {source or 'a released file'}" if imported else f"step {facts['step']}"
    state = "" if facts["complete"] else f", NOT complete ({facts['recipe']['training']['steps']} steps wanted)"
    depth = "continuous features" if facts["rounds"] is None else counted(facts["rounds"], "round")
    return [
        ("", f"{path}: {facts['kind']}, {origin}{state}"),
        field("parameters", f"{facts['parameters'] / 1e6:.2f} M"),
        field("bits", f"{depth} x {facts['channels']} channels a token of {time}x{height}x{width} pixels"),
        *(_show_generator(facts) if facts["kind"] == "generator" else []),
        field("checkpoint", f"{facts['checkpoint']}, sha256 {facts['sha256'][:12]}"),
    ]


def _show_generator(facts: dict[str, Any]) -> list[Field]:
    predicts = "indices" if facts["prediction"] == "ind" else "bits"
    is_text, text = "attention" in facts, facts["recipe"].get("text")
    given = f"text ({facts['attention']} attention)" if is_text else f"{facts['classes'] or 'no'} classes"
    belonging = " or ".join(text["tokenizers"]) if text and not facts["tokenizer"] else ""
    return [
        field("predicts", f"{predicts} (GRN_{facts['prediction']}), {given}"),
        field("latent grids", ", ".join(_some(list(facts["grids"]), SHOWN_LABELS))),
        *(_show_text(facts["recipe"]) if text else []),
        field("tokenizer", belonging or _tokenizer(facts["tokenizer"])),
    ]


def _show_text(recipe: dict[str, Any]) -> list[Field]:
    """What a text-conditional generator is asked with, and sampled by default."""
    text, fps = recipe["text"], recipe["bits"]["fps"]
    encoder = text["encoder"]
    end = f" that ends at {text['cosine_end']:g}" if text["schedule"] == "cosine" else ""
    return [
        field(
            "text encoder",
            f"{encoder.get('name', 'not known')}{_short(encoder)}, {recipe['network']['text_width']} features a token, "
            f"at most {text['max_tokens']} tokens",
        ),
        field("pictures", _task(text["image"])),
        field("clips", f"{_task(text['clip'])}{f', {fps:g} frames a second' if fps else ''}"),
        field("from a frame", _task(text["first_frame"])),
        field("schedule", f"{text['schedule']}{end}"),
    ]


def _task(task: dict[str, Any]) -> str:
    """How one kind of sample is asked for; texts in quotes, as their spaces count."""
    texts = [
        f'{name.replace("_", " ")} "{task[name]}"' for name in ("prefix", "suffix", "negative_prompt") if task[name]
    ]
    return ", ".join([f"guidance {task['guidance']:g}, temperature {task['temperature']:g}", *texts])


def _tokenizer(identity: dict[str, Any]) -> str:
    return f"{identity.get('name')}{_short(identity)}" if "sha256" in identity else "not known"


def _short(identity: dict[str, Any]) -> str:
    return f" ({str(identity['sha256'])[:12]})" if "sha256" in identity else ""


def _under(name: str, texts: Sequence[str]) -> list[Field]:
    """One name, and a line for each text."""
    return [field("" if place else name, text) for place, text in enumerate(texts)]


def _some(texts: Sequence[str], most: int) -> list[str]:
    return [*texts[:most], *([f"and {len(texts) - most} more"] if len(texts) > most else [])]
