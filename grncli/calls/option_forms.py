"""Options of the commands as Python values: what a call may be given, and what the stages take."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, Signature, signature
from numbers import Integral
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

from grncli.runtime.errors import UsageError
from grncli.runtime.launch import read_launch, read_part
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, parse_duration
from grncli.runtime.system import usable_cores
from grncli.runtime.urls import refuse_urls

P = ParamSpec("P")
R = TypeVar("R")

Place = str | Path
"""A path."""
Several = str | float | Iterable[str | float]
"""Text as the command takes it, or its values: ``"32x48"`` or ``(32, 48)``, ``"ant,bee"`` or ``["ant", "bee"]``."""
Progress = Callable[[int, int | None, str], object] | Monitor | None
"""Called with (units done, units in all or None, a note) now and then; a `Monitor` may stop the work as well, and is
told in sentences what begins and what the user should know."""

# What stands between the values of an option that takes several.
_SIGNS = dict.fromkeys(("size", "budget", "grid"), "x")
_SIGNS |= dict.fromkeys(("ratio", "guidance_interval"), ":") | dict.fromkeys(("classes", "metrics"), ",")
_PATHS = (
    "prompts",
    "text",
    "init",
    "first_frame",
    "sheet",
    "film",
    "recipe",
    "lpips",
    "cache",
    "class_names",
    "html",
    "plot",
)
# Least values, which the command line checks by itself.
_LEAST = dict.fromkeys(("batch", "limit", "sample", "frames", "per_class", "quality", "shard_size"), 1)
_LEAST |= dict.fromkeys(("workers", "seed"), 0)
_MOST_ROUNDS = 8
# Defaults of the commands where those of the stages' settings differ.
_DEFAULTS: Mapping[str, Any] = {"device": "auto", "part": "0/1", "workers": None}

_log = logging.getLogger("grncli")


def following(progress: Progress, max_time: str | float | None = None) -> Monitor:
    """What a stage reports to; sentences go to the logger ``grncli`` where no `Monitor` takes them.

    Parameters
    ----------
    max_time : seconds, or as the commands take it (``3h50m``), after which to stop
    """
    seconds = parse_duration(max_time) if isinstance(max_time, str) else max_time
    if isinstance(progress, Monitor):
        return progress if seconds is None else replace(progress, stop=Stop(seconds))
    monitor = Monitor(stop=Stop(seconds), say=_log.info)
    return monitor if progress is None else replace(monitor, progress=progress)


def takes_options(settings: type | None = None, **defaults: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For a call: URLs are taken for stores only, and its typed ``**options`` are shown and checked one by one.

    Parameters
    ----------
    settings : dataclass whose defaults the options have; without it they are None
    defaults : of options that differ from it
    """

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        shown = _shown(call, settings, {**_DEFAULTS, **defaults})

        @wraps(call)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            _check_names(call.__name__, kwargs, shown.parameters)
            refuse_urls(call, shown.bind(*args, **kwargs).arguments)
            return call(*args, **kwargs)

        run.__signature__ = shown  # type: ignore[attr-defined]
        return run

    return decorate


def _shown(call: Callable[..., Any], settings: type | None, defaults: dict[str, Any]) -> Signature:
    """The signature of a call with each of its options."""
    written = signature(call)
    known = ({} if settings is None else {each.name: each.default for each in fields(settings)}) | defaults
    parameters: list[Parameter] = []
    for each in written.parameters.values():
        if each.kind is not Parameter.VAR_KEYWORD:
            parameters.append(each)
            continue
        (several,) = get_args(each.annotation)  # of Unpack[TheOptions]
        parameters += [
            Parameter(name, Parameter.KEYWORD_ONLY, default=known.get(name), annotation=kind)
            for name, kind in get_type_hints(several).items()
        ]
    return written.replace(parameters=parameters)


def _check_names(call: str, given: Iterable[str], known: Collection[str]) -> None:
    """TypeError for a keyword that is none, with the one that may be meant."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{hint}")


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the stages' settings have them; those that are None or not given are left out, except the device.

    UsageError for a number that is too small, or no whole one.
    """
    values = {name: value for name, value in options.items() if value is not None}
    values |= {name: _at_least(least, name, values[name]) for name, least in _LEAST.items() if name in values}
    if isinstance(rounds := values.get("rounds"), Integral) and not 1 <= int(rounds) <= _MOST_ROUNDS:
        raise UsageError(f"--rounds {rounds}: expected 1 to {_MOST_ROUNDS}")
    values |= {name: joined(values[name], sign) for name, sign in _SIGNS.items() if name in values}
    values |= {name: Path(values[name]) for name in _PATHS if name in values}
    if isinstance(values.get("labels"), Path):  # else the name of a form
        values["labels"] = str(values["labels"])
    if "part" in values:
        values["part"], values["parts"] = parse_part(values["part"])
    return values | {"device": device_name(values.get("device"))}


def _at_least(least: int, name: str, value: Any) -> int:
    if not isinstance(value, Integral) or int(value) < least:
        raise UsageError(f"--{name.replace('_', '-')} {value}: expected a whole number, {least} or more")
    return int(value)


def device_name(device: object) -> str:
    """Name of the device called so, or of the quickest present for None; UsageError where there is none.

    Of processes that a launcher started, each takes the GPU of its number on this machine, also where each does a part.
    """
    from grncli.runtime.devices import pick_device  # only here: it imports torch, which the command line does later

    return str(pick_device(str(device or "auto"), read_launch(os.environ).local_rank))


def joined(value: Several, sign: str) -> str:
    """Values as the text of an option."""
    return sign.join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)


def parse_part(part: str | tuple[int, int]) -> tuple[int, int]:
    """``i/n`` as two numbers, those of this process for ``auto``; UsageError unless 0 <= i < n."""
    if part == "auto":
        return read_part(os.environ)
    text = part if isinstance(part, str) else joined(part, "/")
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"--part {text}: expected i/n with i from 0 to n - 1, such as 0/4, or auto")
    return int(index), int(count)


def worker_count(workers: int | None) -> int:
    """Decoding processes; by default half of the cores, at most 8, as the network wants the others."""
    if workers is not None:
        return workers
    return max(1, min(8, usable_cores() // 2))


def source_arguments(src: Place | Sequence[Place]) -> str | list[str]:
    """One SRC or several as the stages take them."""
    return str(src) if isinstance(src, str | Path) else [str(each) for each in src]


def check_dtype(dtype: str | None, made: str) -> None:
    """UsageError for a number format other than the two that what is ``made`` may depend on."""
    if dtype not in (None, "float32", "bfloat16"):
        raise UsageError(f"--dtype {dtype}: expected float32 or bfloat16, as both make other {made}")


def check_measured(
    store: Place | None, media: Place | None, tokenizer: Place | None, options: Mapping[str, Any]
) -> None:
    """For quantize-stats: UsageError unless there is either a store, or media with a tokenizer."""
    if (store is None) == (media is None):
        raise UsageError("give either a STORE, or --media SRC with --tokenizer RUN")
    if media is not None and tokenizer is None:
        raise UsageError("--media needs --tokenizer RUN, whose bits are to be measured")
    unfit = [name for name, value in {"tokenizer": tokenizer, **options}.items() if value is not None]
    if store is not None and unfit:
        raise UsageError(f"--{unfit[0]} goes with --media, the bits of a STORE are taken as they are")
