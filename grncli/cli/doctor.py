"""``grn doctor``: what this machine has, what is wrong, and what is slow."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import FAILED, complain, format_bytes, guarded, print_json
from grncli.cli.help_pages import examples
from grncli.cli.terminal import Field, field, field_lines, screen_width, wrap
from grncli.runtime.text import one_line

if TYPE_CHECKING:
    from grncli.machine.cached_weights import CachedWeights
    from grncli.machine.computing_devices import DeviceState, ProcessorState
    from grncli.machine.examination import Examination
    from grncli.machine.packages import PackageState
    from grncli.machine.system_limits import DiskState, MemoryState


@examples(
    "grn doctor",
    "# Of another place for stores and runs, with the weights' checksums",
    "grn doctor /scratch --verify",
    "grn doctor --json | jq .problems",
)
@guarded
def doctor(
    folder: Annotated[
        Path, Argument(metavar="[FOLDER]", help="Where stores and runs are to lie.", show_default=False)
    ] = Path(),
    verify: Annotated[
        bool, Option("--verify", help="Read cached weights and compare them with their published checksums.")
    ] = False,
    cache: options.Cache = None,
    json: options.Json = False,
) -> None:
    """Show what this machine has, what is wrong, and what is slow and why.

    Versions, processor, devices, memory, disks, ffmpeg and the weights in the cache. Exit code 1 where something does
    not work. Nothing is timed: grn bench does that.
    """
    try:
        problems = _examine(folder, cache, verify=verify, json=json)
    except ImportError as error:  # of what everything is built on
        problems = _missing_packages(error, json=json)
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(FAILED)


def _examine(folder: Path, cache: Path | None, *, verify: bool, json: bool) -> list[str]:
    """Print everything; what does not work is left to be said."""
    from grncli.machine.examination import examine
    from grncli.machine.slow_reasons import slow_reasons
    from grncli.runtime.cache_folder import default_cache

    found = examine(folder, cache or default_cache(), os.environ, verify=verify)
    reasons = slow_reasons(found)
    if json:
        print_json({**asdict(found), "slow": reasons})
        return found.problems
    width = screen_width()
    for line in [*field_lines(_facts(found), width), "", *_list("What is slow here, and why", reasons, width)]:
        print(line)
    if not found.problems:
        print("\nEverything that the commands need works.")
    return found.problems


def _missing_packages(error: ImportError, *, json: bool) -> list[str]:
    """What keeps the rest from being looked at."""
    from grncli.machine.packages import package_problems, package_states

    states = package_states()
    broken = f"{error.name or 'a package'} cannot be imported ({one_line(error)}); install it again"
    problems = package_problems(states) or [broken]
    if json:
        print_json({"packages": [asdict(one) for one in states], "problems": problems})
    return problems


def _list(title: str, sentences: list[str], width: int) -> list[str]:
    return [title, *(line for text in sentences or ["Nothing that can be seen."] for line in wrap(text, width, "  - "))]


def _facts(found: "Examination") -> list[Field]:
    versions = found.versions
    return [
        ("", f"grn {versions['grn']} on Python {versions['python']}, {versions['system']}"),
        field("python", versions["interpreter"]),
        field("packages", ", ".join(f"{one.name} {one.installed}" for one in found.packages if not one.extra)),
        *_extras(found.packages),
        *_processor(found.processor),
        *(field("" if place else "devices", _device(device)) for place, device in enumerate(found.devices)),
        field("memory", _memory(found.memory)),
        field("disk", _disk(found.folder)),
        field("temporary", _disk(found.temporary)),
        field("ffmpeg", f"{found.ffmpeg['version'] or 'does not run'}, {found.ffmpeg['path']}"),
        field("weights", f"in {found.cache.path}"),
        *(field("", _weights(one)) for one in found.weights),
    ]


def _extras(packages: "list[PackageState]") -> list[Field]:
    """A line for each extra: its packages, or how to get them."""
    fields = []
    for extra in dict.fromkeys(one.extra for one in packages if one.extra):
        belonging = [one for one in packages if one.extra == extra]
        lacking = [one.name for one in belonging if one.installed is None]
        there = ", ".join(f"{one.name} {one.installed}" for one in belonging if one.installed)
        missing = f"lacks {', '.join(lacking)}: pip install 'grncli[{extra}]'" if lacking else ""
        fields.append(field(f"[{extra}]", "; ".join(filter(None, [there, missing]))))
    return fields


def _processor(processor: "ProcessorState") -> list[Field]:
    quota = "" if processor.quota is None else f", of which it may keep {processor.quota:g} busy"
    set_by = f" ({processor.threads_set_by})" if processor.threads_set_by else ""
    known = (
        "not known" if processor.instructions is None else ", ".join(processor.instructions) or "none of those known"
    )
    through = "oneDNN, where PyTorch's own way is MKL's AVX2" if processor.onednn_products else "PyTorch's own way"
    return [
        field("processor", f"{processor.name} ({processor.architecture}), {processor.cores} cores{quota}"),
        field("threads", f"{processor.threads}{set_by}"),
        field("instructions", known),
        field("products", f"float32 by {through}"),
    ]


def _device(device: "DeviceState") -> str:
    if device.fault:
        return f"{device.name}: {device.fault}"
    memory = (
        "" if device.memory is None else f", {format_bytes(device.free or 0)} of {format_bytes(device.memory)} free"
    )
    model = f" {device.model}" if device.model else ""
    return f"{device.name}:{model} --dtype auto is {device.dtype}{memory}"


def _memory(memory: "MemoryState") -> str:
    known = [(memory.available, "available"), (memory.total, "in all"), (memory.limit, "allowed")]
    return ", ".join(f"{format_bytes(size)} {what}" for size, what in known if size is not None) or "not known"


def _disk(disk: "DiskState") -> str:
    kind = f" ({disk.file_system})" if disk.file_system else ""
    return f"{format_bytes(disk.free)} of {format_bytes(disk.total)} free in {disk.path}{kind}"


def _weights(weights: "CachedWeights") -> str:
    there = f"{len(weights.files)} files, {format_bytes(weights.size)}"
    return f"{weights.network} ({weights.use}): {f'not here; {weights.remedy}' if weights.lacking else there}"
