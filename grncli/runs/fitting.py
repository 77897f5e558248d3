"""Whether bits and a network belong together: the comparison for stores, tokenizers and generators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grncli.models.generator import GeneratorConfig
from grncli.runs.tokenizers import LoadedTokenizer
from grncli.runtime.errors import StoreMismatch
from grncli.store import BitStore


@dataclass(frozen=True, kw_only=True)
class BitFormat:
    """The bits that a store holds, a tokenizer makes or a generator learned.

    Parameters
    ----------
    owner : what holds, makes or learned them, for messages
    origin : what stands before the tokenizer's name in a sentence about them, such as ``bits.zarr was made by``
    tokenizer : name and sha256 of the tokenizer that makes them; empty where it is unknown
    rounds, channels, stride : M, C and pixels per token; None where any number fits
    """

    owner: str
    origin: str
    tokenizer: Mapping[str, Any]
    rounds: int | None = None
    channels: int | None = None
    stride: tuple[int, ...] | None = None

    @classmethod
    def of_store(cls, store: BitStore) -> "BitFormat":
        """The bits in a store."""
        return cls(
            owner=str(store.path),
            origin=f"{store.path} was made by tokenizer",
            tokenizer=store.fingerprint.tokenizer,
            rounds=store.rounds,
            channels=store.channels,
            stride=tuple(store.stride),
        )

    @classmethod
    def of_tokenizer(cls, loaded: LoadedTokenizer) -> "BitFormat":
        """The bits that a tokenizer encodes and decodes, in any number of rounds."""
        return cls(
            owner=str(loaded.run),
            origin=f"{loaded.run} is tokenizer",
            tokenizer=loaded.identity,
            channels=loaded.network.channels,
            stride=tuple(loaded.network.stride),
        )

    @classmethod
    def of_generator(cls, config: GeneratorConfig, tokenizer: Mapping[str, Any], stride: Sequence[int]) -> "BitFormat":
        """The bits that a generator predicts, of a tokenizer that it may not know."""
        return cls(
            owner="the generator",
            origin="the generator learned the bits of",
            tokenizer=tokenizer,
            rounds=config.rounds,
            channels=config.channels,
            stride=tuple(stride),
        )


def require_fit(bits: BitFormat, wanted: BitFormat, remedy: str, *, alike: bool = False) -> None:
    """Refuse bits that are not those wanted.

    They fit if they come from the same tokenizer, where the wanted one is known, with as many channels, the same
    stride, and at least as many rounds: the first m planes are the m-round quantization.

    Parameters
    ----------
    remedy : what the user can do, as the end of the message
    alike : ask for the same number of rounds, and for tokenizers that are both known or both unknown

    Raises
    ------
    StoreMismatch
        With both tokenizers, or every size that differs.
    """
    ours, theirs = (_network(each.tokenizer) for each in (bits, wanted))
    if ours != theirs and (alike or "sha256" in wanted.tokenizer):
        raise StoreMismatch(
            f"{bits.origin} {_named(bits.tokenizer)}, and {wanted.origin} {_named(wanted.tokenizer)}; {remedy}"
        )
    differing = [name for name in ("rounds", "channels", "stride") if _differs(name, bits, wanted, alike=alike)]
    if differing:
        same = ours == theirs and "sha256" in wanted.tokenizer and differing != ["rounds"]
        damaged = "both name the same tokenizer, so one of them is damaged; " if same else ""
        raise StoreMismatch(
            f"{bits.owner} has {_sizes(bits, differing)}, and {wanted.owner} {_sizes(wanted, differing)}; "
            f"{damaged}{remedy}"
        )


def _differs(name: str, bits: BitFormat, wanted: BitFormat, *, alike: bool) -> bool:
    ours, theirs = getattr(bits, name), getattr(wanted, name)
    if ours is None or theirs is None:
        return False
    return bool(ours < theirs if name == "rounds" and not alike else ours != theirs)


def _network(tokenizer: Mapping[str, Any]) -> Any:
    """What identifies a network: its hash, as a run directory may be renamed."""
    return tokenizer.get("sha256", dict(tokenizer))


def _named(tokenizer: Mapping[str, Any]) -> str:
    """``tok (3f9c1a2b…)``."""
    return f"{tokenizer.get('name')} ({str(tokenizer.get('sha256'))[:8]}…)"


def _sizes(bits: BitFormat, names: Sequence[str]) -> str:
    """``channels=16 and stride=[1, 8, 8]``."""
    values = {name: getattr(bits, name) for name in names}
    return " and ".join(
        f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in values.items()
    )
