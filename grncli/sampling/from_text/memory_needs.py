"""How much memory samples of a generator of texts take, to be told before it is taken."""

from dataclasses import dataclass

import torch
from torch import nn

from grncli.models.text_transformer import TextTransformerConfig
from grncli.models.tokenizer import Tokenizer
from grncli.models.transformer import Grid
from grncli.models.unfilled import made_on_meta
from grncli.runs.generators import build_generator
from grncli.runtime.devices import DTYPES
from grncli.runtime.monitor import Say
from grncli.sampling.settings import SampleOptions
from grncli.sampling.steady_network import CPU_TOKENS, GPU_TOKENS
from grncli.text.encoder_files import find_encoder

TOLD_FROM = 2e9  # bytes; less is on any machine
TEXT_TOKENS = 128  # of a prompt, about
LOGIT_COPIES = 4  # float32: conditional, unconditional, guided, and divided by the temperature


@dataclass(frozen=True, kw_only=True)
class MemoryNeeds:
    """Bytes that a run takes.

    Parameters
    ----------
    encoder : of texts, 0 where features come from a store
    tokenizer : 0 where no pictures are made
    activations : of one step, about
    encoder_stays : whether the encoder is there all the time; else it leaves before the generator comes
    takes_turns : whether of generator and tokenizer one is there at a time
    """

    encoder: int
    generator: int
    tokenizer: int
    activations: int
    encoder_stays: bool = False
    takes_turns: bool = False

    @property
    def peak(self) -> int:
        """The most at any time, without what the tokenizer computes with."""
        steps = self.generator + self.activations
        beside = 0 if self.takes_turns else self.tokenizer
        if self.encoder_stays:
            return self.encoder + max(steps + beside, self.tokenizer)
        return max(self.encoder + beside, steps + beside, self.tokenizer)

    def tell(self, say: Say) -> None:
        """Say the peak and its parts, unless it is small."""
        if self.peak < TOLD_FROM:
            return
        parts = {"text encoder": self.encoder, "tokenizer": self.tokenizer}
        others = "".join(f", {name} {_in_gb(size)}" for name, size in parts.items() if size)
        say(
            f"memory: at most about {_in_gb(self.peak)} at a time: generator {_in_gb(self.generator)} and "
            f"{_in_gb(self.activations)} for its steps{others}"
        )


def memory_needs(
    options: SampleOptions,
    config: TextTransformerConfig,
    grid: Grid,
    tokenizer: Tokenizer | None,
    *,
    encoder_stays: bool = False,
) -> MemoryNeeds:
    """What a run with these options takes, by sizes of networks and files; no weights are read."""
    dtype = DTYPES[options.dtype]
    encoder = 0 if options.text_encoder is None else find_encoder(options.text_encoder).parameters * dtype.itemsize
    on_cpu = torch.device(options.device).type == "cpu"
    return MemoryNeeds(
        encoder=encoder,
        generator=_size_of(made_on_meta(lambda: build_generator(config)), dtype),
        tokenizer=0 if tokenizer is None else _size_of(tokenizer, torch.float32),
        activations=size_of_step(config, grid, dtype, on_cpu=on_cpu, batch=options.batch),
        encoder_stays=encoder_stays,
        takes_turns=options.offload,
    )


def size_of_step(
    config: TextTransformerConfig, grid: Grid, dtype: torch.dtype, *, on_cpu: bool, batch: int | None
) -> int:
    """Bytes that one step takes beside the weights, about: a block's activations, logits, and texts that are kept."""
    tokens = torch.Size(grid).numel()
    at_once = CPU_TOKENS if on_cpu else GPU_TOKENS
    samples = batch or max(1, at_once // (tokens + TEXT_TOKENS))
    # Two passes, in calls of at most so many tokens, or of one sample.
    call = min(2 * samples * tokens, max(at_once, tokens))
    block = (8 * config.width + 3 * config.hidden) * dtype.itemsize * call
    logits = config.codec.token_channels * config.codec.categories * 4 * LOGIT_COPIES * samples * tokens
    kept = 2 * config.depth * config.key_value_heads * config.head_width if config.attention == "text-only" else 0
    return block + logits + kept * dtype.itemsize * TEXT_TOKENS * 2 * samples


def _size_of(network: nn.Module, dtype: torch.dtype) -> int:
    return dtype.itemsize * sum(parameter.numel() for parameter in network.parameters())


def _in_gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
