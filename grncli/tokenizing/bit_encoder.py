"""Batches of frames to packed bits: the network's part of ``grn tokenize``."""

import torch
from torch import Tensor

from grncli.hbq import pack, quantize
from grncli.media.batches import ClipBatch
from grncli.runtime.errors import GrnError
from grncli.runtime.overlap import BackgroundWriter
from grncli.tokenizing.tokenizing_plan import TokenizeSettings, TokenizingPlan


class BitEncoder:
    """Encodes with the tokenizer of a plan, on the device of the settings."""

    def __init__(self, plan: TokenizingPlan, settings: TokenizeSettings) -> None:
        self._rounds = plan.rounds
        self._name = plan.fingerprint.tokenizer["name"]
        self._device = torch.device(settings.device)
        self._network = plan.loaded.network.to(self._device)
        self._bfloat16 = settings.dtype == "bfloat16"

    def encode(self, batch: ClipBatch, writer: BackgroundWriter) -> None:
        """Give each clip its bits ``[t, h, w, M, bytes]``, or the error that it does not fit into memory.

        ``writer`` takes the bits off the device, so that the network does not wait for them.
        """
        try:
            packed = self._encode(batch.frames)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            self._encode_singly(batch, writer)
            return

        def deliver() -> None:
            for clip, bits in zip(batch.clips, packed.cpu().numpy(), strict=True):
                clip.result = bits

        writer.submit(deliver)

    def _encode_singly(self, batch: ClipBatch, writer: BackgroundWriter) -> None:
        if len(batch.clips) > 1:
            for clip, frames in zip(batch.clips, torch.split(batch.frames, 1), strict=True):
                self.encode(ClipBatch(frames, [clip]), writer)
            return
        [clip] = batch.clips
        _, height, width = clip.shape
        clip.error = f"{width}x{height} pixels do not fit into memory; give a smaller --size or --budget"

    def _encode(self, frames: Tensor) -> Tensor:
        """uint8 ``[B, T, H, W, 3]`` to packed bits, on the device."""
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16)
        with torch.inference_mode(), autocast:
            feature = self._network.encode_frames(frames.to(self._device, non_blocking=True))
        try:
            return pack(quantize(feature, self._rounds), self._rounds)
        except ValueError as error:
            raise GrnError(f"{self._name}: {error}") from None


def _out_of_memory(error: Exception) -> bool:
    """Whether PyTorch or Python failed to get memory; on a CPU PyTorch says so in words only."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
