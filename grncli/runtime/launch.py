"""How this process was started: alone, or as one of several by ``torchrun`` or by Slurm's ``srun``."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from grncli.runtime.errors import UsageError

# Slurm's own numbers for what is no step of srun: the batch script, an interactive allocation and the like.
_NO_STEP = 0xFFFFFFF0
_PORTS = range(12_000, 32_000)  # below those that Linux gives to outgoing connections
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Launch:
    """This process among those that were started together.

    Parameters
    ----------
    rank, count, local_rank : its number, how many there are, and its number among those of this machine
    address : ``tcp://host:port`` where they connect; None for one process
    by : what started several, to be named in messages
    hosted : whether what started them answers at the address; otherwise the first process does
    attempt : how often torchrun has started them anew
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    address: str | None = None
    by: str = ""
    hosted: bool = False
    attempt: int = 0


def read_launch(environment: Mapping[str, str]) -> Launch:
    """What the environment says of this process.

    ``RANK`` and ``WORLD_SIZE``, which torchrun and others set, come first; then Slurm's variables, in a step that srun
    started with several tasks. The shell of a batch job or an allocation has some of the latter too, and is alone.

    Raises
    ------
    UsageError
        If the variables contradict each other or hold no numbers.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        return _of_variables(environment)
    step = _step(environment)
    return Launch() if step is None else _of_slurm(environment, step)


def require_one_process(launch: Launch, *, part_of: str | None = None) -> None:
    """Raise UsageError where several processes would all do the whole work.

    Parameters
    ----------
    part_of : the value of ``--part``, for a command that has the option
    """
    if launch.count == 1 or (part_of is not None and not part_of.endswith("/1")):
        return
    remedy = "start one process"
    if part_of is not None and launch.by == "srun":
        remedy = "give each its part, srun grn ... --part auto, or start one process"
    elif part_of is not None:
        remedy = "give each its part, --part auto, or start one process"
    raise UsageError(f"{launch.by} started {launch.count} processes, each of which would do the whole work; {remedy}")


def first_host(nodes: str) -> tuple[str, bool]:
    """The first host of a Slurm node list such as ``node[01-03,07],gpu4``, and whether it is the only one.

    Raises
    ------
    ValueError
        If the text is no such list.
    """
    inside = re.sub(r"\[[^\[\]]*\]", lambda match: match[0].replace(",", ";"), nodes)
    first, comma, _ = inside.partition(",")
    several = bool(comma)

    def lowest(match: re.Match[str]) -> str:
        nonlocal several
        low, more = re.fullmatch(r"([0-9]+)((?:[-;][0-9]+)*)", match[1]).groups()  # type: ignore[union-attr]
        several = several or bool(more)
        return str(low)

    try:
        host = re.sub(r"\[([^\[\]]*)\]", lowest, first)
    except AttributeError:
        host = ""
    if _HOST.fullmatch(host) is None:
        raise ValueError(f"{nodes[:80]!r} is no list of hosts")
    return host, not several


def _of_variables(environment: Mapping[str, str]) -> Launch:
    count = _number(environment, "WORLD_SIZE", 1)
    rank = _number(environment, "RANK", 0, below=count)
    if count == 1:
        return Launch()
    local = _number(environment, "LOCAL_RANK", 0) if "LOCAL_RANK" in environment else 0
    host, port = environment.get("MASTER_ADDR", ""), _port(environment)
    if not host or port is None:
        missing = "MASTER_PORT" if host else "MASTER_ADDR"
        raise UsageError(f"WORLD_SIZE is {count} and {missing} is missing; start the processes by srun or torchrun")
    by = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "the launcher"
    hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    name = "TORCHELASTIC_RESTART_COUNT"
    attempt = _number(environment, name, 0) if name in environment else 0
    return Launch(rank, count, local, _address(host, port), by, hosted, attempt)


def _of_slurm(environment: Mapping[str, str], step: int) -> Launch:
    # SLURM_NTASKS may be the allocation's where a wrapper has set it anew; the step's own number is right.
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    count = _number(environment, name, 1) if name in environment else 1
    if count == 1:
        return Launch()
    rank = _number(environment, "SLURM_PROCID", 0, below=count)
    local = _number(environment, "SLURM_LOCALID", 0)
    port = _port(environment)
    if port is None:
        job = _number(environment, "SLURM_JOB_ID", 0)
        port = _PORTS[(job + 1009 * step) % len(_PORTS)]  # another one for steps that run side by side
    return Launch(
        rank, count, local, _address(environment.get("MASTER_ADDR") or _rendezvous_host(environment), port), "srun"
    )


def _rendezvous_host(environment: Mapping[str, str]) -> str:
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    name = next((name for name in names if environment.get(name)), names[0])
    try:
        host, alone = first_host(environment.get(name, ""))
    except ValueError as error:
        raise UsageError(f"{name}: {error}; set MASTER_ADDR to the machine of the first process") from None
    return "127.0.0.1" if alone else host  # which needs no name service


def _address(host: str, port: int) -> str:
    plain = host.strip("[]")
    if _HOST.fullmatch(plain) is None and re.fullmatch(r"[0-9A-Fa-f:.]+(%\w+)?", plain) is None:
        raise UsageError(f"MASTER_ADDR is {host[:80]!r}, expected the name or address of a machine")
    return f"tcp://[{plain}]:{port}" if ":" in plain else f"tcp://{plain}:{port}"


def _port(environment: Mapping[str, str]) -> int | None:
    if not environment.get("MASTER_PORT"):
        return None
    return _number(environment, "MASTER_PORT", 1, below=1 << 16)


def _number(environment: Mapping[str, str], name: str, least: int, below: int = 1 << 31) -> int:
    text = environment.get(name)
    if text is not None and re.fullmatch(r"[0-9]{1,10}", text) and least <= int(text) < below:
        return int(text)
    value = "missing" if text is None else repr(text[:40])
    raise UsageError(
        f"the environment variable {name} is {value}, expected a whole number from {least}"
        f"{f' to {below - 1}' if below < 1 << 31 else ''}, as srun and torchrun set it"
    )


def parent_watch(launch: Launch) -> int | None:
    """The process whose end means that the launcher is gone; None where the user started this one alone."""
    return os.getppid() if launch.count > 1 else None


def read_part(environment: Mapping[str, str]) -> tuple[int, int]:
    """The part of the work that falls to this process, and how many parts there are: ``--part auto``.

    They are the tasks of a Slurm array, the processes that srun or torchrun started, or those of every task.

    Raises
    ------
    UsageError
        If the environment names neither an array nor such processes, or its variables contradict each other.
    """
    task, tasks = _array_task(environment)
    _refuse_repeated_ranks(environment)
    launch = read_launch(environment)
    if not tasks and "RANK" not in environment and _step(environment) is None:
        raise UsageError(
            "--part auto: neither SLURM_ARRAY_TASK_ID nor variables of srun or torchrun are set, expected a task of "
            "sbatch --array or one of several processes; give --part i/n"
        )
    return task * launch.count + launch.rank, max(tasks, 1) * launch.count


def _array_task(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of this task of a Slurm array, from 0, and how many there are; (0, 0) outside an array."""
    prefix = "SLURM_ARRAY_TASK_"
    if f"{prefix}ID" not in environment:
        return 0, 0
    number, first, last, count = (_number(environment, f"{prefix}{name}", 0) for name in ("ID", "MIN", "MAX", "COUNT"))
    step = _number(environment, f"{prefix}STEP", 1) if f"{prefix}STEP" in environment else 1
    even = range(first, last + 1, step)
    if len(even) != count or number not in even:
        raise UsageError(
            f"--part auto: the array has {count} tasks, this one is {number}, and {first} to {last} in steps of {step} "
            f"are {len(even)}; submit all parts as --array=0-{max(count, 1) - 1}, or some of n as --part "
            "$SLURM_ARRAY_TASK_ID/n"
        )
    return even.index(number), count


def _step(environment: Mapping[str, str]) -> int | None:
    """Number of the step whose srun started this process; None outside of one."""
    step = environment.get("SLURM_STEP_ID", "")
    return int(step) if step.isascii() and step.isdecimal() and int(step) < _NO_STEP else None


def _refuse_repeated_ranks(environment: Mapping[str, str]) -> None:
    """UsageError where each task of srun began a torchrun of its own: their processes have the same numbers."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or "1"
    if "RANK" in environment and environment.get("GROUP_WORLD_SIZE") == "1" and tasks != "1":
        raise UsageError(
            f"--part auto: srun started {tasks[:40]} tasks, each with a torchrun that counts its processes from 0; "
            "give torchrun --nnodes and --rdzv-endpoint, or let srun start all processes"
        )
