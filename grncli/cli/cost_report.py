"""What ``--dry-run`` prints: counts, time, memory and disk."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from grncli.cli.console import format_bytes, format_seconds, print_json, say
from grncli.cli.terminal import Field, field, field_lines, screen_width
from grncli.runtime.text import counted

if TYPE_CHECKING:
    from grncli.costs.run_costs import MemoryUse, RunCosts

TIGHT = 0.9  # share of what is free from which on a figure is warned of


def print_costs(call: Callable[..., object], *arguments: Any, json: bool, silent: bool = False, **options: Any) -> None:
    """Print what a call takes; a ``silent`` process only does its share of the trial."""
    from grncli.calls.costs_call import estimate_costs

    costs = estimate_costs(call, *arguments, **options)
    if not silent:
        show_costs(costs, json=json)


def show_costs(costs: "RunCosts", *, json: bool, more: "list[Field] | None" = None) -> None:
    """Print costs as fields, ``more`` of them first, or as JSON; notes and warnings go to standard error."""
    if json:
        print_json(costs.to_json())
    else:
        for line in field_lines([*(more or []), *cost_fields(costs)], screen_width()):
            print(line)
    say_warnings(costs)


def say_warnings(costs: "RunCosts") -> None:
    """What the figures leave out, and what would not fit."""
    from grncli.machine.system_limits import memory

    for note in costs.notes:
        say(f"{costs.command}: {note}")
    need = costs.disk
    if need is not None and need.written is not None and need.written > TIGHT * need.free:
        say(
            f"{need.place}: {format_bytes(need.free)} are free, and {format_bytes(need.written)} would be written",
            always=True,
        )
    use, state = costs.memory, memory()
    here = min((size for size in (state.total, state.limit) if size is not None), default=None)
    if here is not None and use.process is not None and _in_all(use) > TIGHT * here:
        say(
            f"{costs.command}: takes {format_bytes(_in_all(use))} of memory for one process, and "
            f"{format_bytes(here)} are here",
            always=True,
        )


def cost_fields(costs: "RunCosts") -> list[Field]:
    """Each figure under its name."""
    counts = ", ".join(_units(count, name) for name, count in costs.counts.items() if count)
    fields = [field("to do", counts or "nothing")]
    if costs.seconds is not None:
        rates = [f"{_units(rate.done, rate.unit)} in {format_seconds(rate.seconds)}" for rate in costs.rates]
        measured = ", ".join(rates)
        fields.append(
            field("time", f"about {format_seconds(costs.seconds)}{f' (tried: {measured})' if measured else ''}")
        )
    fields += _training_fields(costs.details)
    fields.append(field("memory", _memory(costs.memory)))
    if costs.disk is not None:
        written = "" if costs.disk.written is None else f"about {format_bytes(costs.disk.written)} to write, "
        fields.append(field("disk", f"{written}{format_bytes(costs.disk.free)} free at {costs.disk.place}"))
    return fields


def _training_fields(details: Mapping[str, Any]) -> list[Field]:
    """Of a training, what its memory holds."""
    if "state_bytes" not in details:
        return []
    state = f"{format_bytes(details['state_bytes'])} of weights, gradients, optimizer and moving averages"
    if details["shards"] > 1:
        state += f", in each process ({details['parallel']}, {details['shards']} shards)"
    activations = details["activation_bytes"]
    kept = "" if activations is None else f", {format_bytes(activations)} of activations ({details['dtype']})"
    return [field("parameters", f"{details['parameters'] / 1e6:.2f} M"), field("state", f"{state}{kept}")]


def _units(count: float, name: str) -> str:
    """A count and the plural it is called by, which one alone has without its end."""
    return f"{count if isinstance(count, int) else f'{count:g}'} {name.removesuffix('s') if count == 1 else name}"


def _memory(use: "MemoryUse") -> str:
    if use.process is None:
        return "not known on this system"
    parts = [format_bytes(use.process)]
    if use.device is not None:
        parts.append(f"{format_bytes(use.device)} on the GPU")
    if use.decoders and use.decoder is not None:
        parts.append(f"{counted(use.decoders, 'decoding process')} of {format_bytes(use.decoder)}")
    return f"{', '.join(parts)}, for {'each of ' if use.processes > 1 else ''}{counted(use.processes, 'process')}"


def _in_all(use: "MemoryUse") -> int:
    return (use.process or 0) + use.decoders * (use.decoder or 0)
