"""How the state of a training lies in the processes that train together: whole in each of them, or in shards.

Sharded (ZeRO-3, PyTorch's ``fully_shard``), a process keeps its part of weights, gradients, moments and averages, and
has a block's whole weights only while it computes that block. Of several machines of several processes the shards may
lie within a machine, and the machines hold copies of each other (HSDP).
"""

import platform
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from grncli.runs.networks import memory_of
from grncli.runs.tokenizer_recipe import Optimization, Parallel
from grncli.runtime.errors import RecipeError
from grncli.runtime.processes import Processes

STATE_SHARE = 0.6  # of its memory that a process may fill with state; the rest is for activations


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How the state of a training lies in its processes.

    Attributes
    ----------
    kind : ``none`` (one process), ``ddp`` (all of it in each), ``fsdp`` or ``hsdp`` (shards within each machine)
    machines : ranks of the processes of each machine
    device : type of the device that it is on
    memory : bytes that each process has, at least
    """

    kind: Literal["none", "ddp", "fsdp", "hsdp"] = "none"
    machines: tuple[tuple[int, ...], ...] = ((0,),)
    device: str = "cpu"
    memory: int = sys.maxsize

    @property
    def shards(self) -> int:
        """Parts that the state is split in, 1 where every process has all of it."""
        sizes = {"fsdp": sum(map(len, self.machines)), "hsdp": len(self.machines[0])}
        return sizes.get(self.kind, 1)

    @property
    def is_sharded(self) -> bool:
        """Whether a process has a part of the weights only, so that all of them compute together or not at all."""
        return self.kind in ("fsdp", "hsdp")

    def bytes_of(self, parameters: int, settings: Optimization) -> int:
        """What a process keeps of weights, gradients, moments and averages of a network.

        Pieces of a batch add their gradients up whole, and only their sum is sharded.
        """
        whole = 1 if self.is_sharded and settings.gradient_accumulation > 1 else 0
        floats = whole * parameters + (settings.copies - whole) * -(-parameters // self.shards)
        return floats * torch.float32.itemsize

    def bytes_of_save(self, parameters: int, settings: Optimization) -> int:
        """What a save copies into main memory, where a thread writes it while the training goes on."""
        saved = (settings.copies - 1) * -(-parameters // self.shards)  # all but the gradients
        return saved * torch.float32.itemsize if self.is_sharded else 0

    @cached_property
    def mesh(self) -> DeviceMesh:
        """The processes as a line, or as machines by processes of a machine."""
        names = ("replicate", "shard") if self.kind == "hsdp" else ("shard",)
        ranks = torch.tensor(self.machines) if self.kind == "hsdp" else torch.arange(self.shards)
        return DeviceMesh(self.device, ranks, mesh_dim_names=names)

    def apply(self, network: nn.Module, units: Iterable[nn.Module], dtype: torch.dtype = torch.float32) -> None:
        """Shard the weights of a network, each unit by itself and what is left with the root.

        Parameters
        ----------
        units : modules whose weights are gathered together, when the module is called
        dtype : that the weights of the units are gathered and computed in; gradients are summed up in float32
        """
        # Nobody changes what a network gives in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        low = dtype if dtype != torch.float32 else None
        # Inputs stay as they are: autocast and the networks know what is to be computed in which format.
        policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for unit in units:
            fully_shard(unit, mesh=self.mesh, mp_policy=policy)
        # By default the root keeps its whole weights for a backward pass, which moving averages do not have.
        root = MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(network, mesh=self.mesh, mp_policy=root, reshard_after_forward=True)


WHOLE = Sharding()
"""The state of a training of one process."""


def choose_sharding(asked: Parallel, state_bytes: int, processes: Processes, device: torch.device) -> Sharding:
    """What a recipe's ``training.parallel`` comes to for a state of so many bytes; all processes call it.

    ``auto`` keeps the whole state in each process while it fills no more than ``STATE_SHARE`` of what a process has.

    Raises
    ------
    RecipeError
        If it does not fit the number of processes, or how they lie in machines.
    """
    if processes.count == 1:
        return Sharding(device=device.type, memory=memory_of(device))
    found = processes.gather_json([machine_name(), memory_of(device)])
    names = [name for name, _ in found]
    machines = tuple(tuple(rank for rank, name in enumerate(names) if name == each) for each in dict.fromkeys(names))
    # The processes of a machine share its main memory.
    memory = min(size // (names.count(name) if device.type == "cpu" else 1) for name, size in found)
    kind = (
        asked
        if asked != "auto"
        else _automatic(state_bytes, machines, int(memory * STATE_SHARE), 2 if device.type == "cpu" else 1)
    )
    if kind == "none":
        raise RecipeError(
            f"training.parallel is none, and {processes.count} processes were started; start one, or say "
            "training.parallel=auto"
        )
    if kind == "hsdp" and not _can_replicate(machines):
        counts = " and ".join(str(len(ranks)) for ranks in machines)
        raise RecipeError(
            f"training.parallel is hsdp, and there are {counts} processes on {len(machines)} machine"
            f"{'s' if len(machines) > 1 else ''}, expected several machines with the same number, two or more; "
            "start as many on each, or say training.parallel=fsdp"
        )
    return Sharding(kind=kind, machines=machines, device=device.type, memory=memory)


def machine_name() -> str:
    """What tells the machine of this process from the others'."""
    return platform.node()


def load_weights(network: nn.Module, weights: Mapping[str, Tensor] | None) -> None:
    """Fill a network with weights; into shards the first process sends them, and the others may have None.

    Every process calls it where the network is sharded.
    """
    if not isinstance(network, FSDPModule):
        if weights is not None:
            network.load_state_dict(weights)
        return
    for name, parameter in network.named_parameters():
        assert isinstance(parameter, DTensor)
        shard = distributed(None if weights is None else weights[name], parameter)
        with torch.no_grad():
            parameter.to_local().copy_(shard.to_local())


def distributed(value: Tensor | None, like: DTensor) -> DTensor:
    """A whole tensor as shards that lie as those of ``like``; only the first process needs to have it.

    What is sharded already stays as it is.
    """
    if isinstance(value, DTensor):
        return value
    device = like.to_local().device
    whole = torch.empty(like.shape, dtype=like.dtype, device=device) if value is None else value.to(device, like.dtype)
    return distribute_tensor(whole, like.device_mesh, like.placements)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards; every process calls it for what is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor; memory is shared."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _automatic(
    state_bytes: int, machines: tuple[tuple[int, ...], ...], most: int, copies: int
) -> Literal["ddp", "fsdp", "hsdp"]:
    if state_bytes <= most:
        return "ddp"
    # A save copies what is sharded.
    if _can_replicate(machines) and copies * state_bytes <= most * len(machines[0]):
        return "hsdp"
    return "fsdp"


def _can_replicate(machines: tuple[tuple[int, ...], ...]) -> bool:
    """Whether there are several machines, with the same number of processes, and more than one."""
    return len(machines) > 1 and {len(ranks) for ranks in machines} == {len(machines[0])} and len(machines[0]) > 1
