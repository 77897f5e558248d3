"""What comes back of pictures where some of their bits are wrong, as a generator gets some wrong.

    python wrong_bits.py TOKENIZER STORE FOLDER

STORE has pictures of FOLDER, all of one size and as they are: `grn tokenize FOLDER STORE --tokenizer TOKENIZER`
makes it. The answer is a JSON document: by the share of bits that are flipped, drawn for each bit, the mean PSNR in dB,
and how much more neighbours differ across the edges of patches than inside them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import grncli
from grncli.hbq import bits_to_index, dequantize, unpack
from grncli.metrics.quality import psnr

SHARES = (0.0, 0.01, 0.05, 0.1)
AT_ONCE = 256


def edges(pictures: torch.Tensor, patch: int) -> float:
    """Mean difference of neighbours across the edges of patches, uint8 ``[N, H, W, 3]``, over that inside them."""
    difference = pictures.int().diff(dim=2).abs().double().mean(dim=(0, 1, 3))
    across = torch.arange(len(difference)) % patch == patch - 1
    return float(difference[across].mean() / difference[~across].mean())


def main() -> None:
    """Measure every share."""
    tokenizer, store, folder = grncli.load_tokenizer(sys.argv[1]), grncli.open_store(sys.argv[2]), Path(sys.argv[3])
    generator = torch.Generator().manual_seed(0)
    sources: list[torch.Tensor] = []
    decoded: dict[float, list[torch.Tensor]] = {share: [] for share in SHARES}
    for start in range(0, len(store), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(store)))
        index = unpack(torch.from_numpy(store.read(rows)), store.channels)
        files = [folder / line["key"] for line in store.records(rows.tolist())]
        sources.append(torch.from_numpy(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])))
        for share, pictures in decoded.items():
            wrong = torch.rand(len(rows), store.rounds * index.shape[1], *index.shape[2:], generator=generator) < share
            with torch.inference_mode():
                feature = dequantize(index ^ bits_to_index(wrong, store.rounds), store.rounds)
                pictures.append(tokenizer.decode_frames(feature)[:, 0])
    originals, patch = torch.cat(sources), tokenizer.config.patch
    answer: dict[str, object] = {"sources": {"edges": round(edges(originals, patch), 2)}}
    for share, parts in decoded.items():
        after = torch.cat(parts)
        answer[str(share)] = {
            "psnr": round(float(psnr(after, originals).mean()), 2),
            "edges": round(edges(after, patch), 2),
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
