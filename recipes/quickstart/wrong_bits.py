"""What comes back of pictures where some of their bits are wrong, as a generator gets some wrong: PSNR in dB.

    python wrong_bits.py TOKENIZER STORE FOLDER

STORE has pictures of FOLDER, all of one size and as they are: `grn tokenize FOLDER STORE --tokenizer TOKENIZER`
makes it. The answer is a JSON document: the mean PSNR by the share of bits that are flipped, drawn for each bit.
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


def main() -> None:
    """Measure every share."""
    tokenizer, store, folder = grncli.load_tokenizer(sys.argv[1]), grncli.open_store(sys.argv[2]), Path(sys.argv[3])
    generator = torch.Generator().manual_seed(0)
    found: dict[float, list[float]] = {share: [] for share in SHARES}
    for start in range(0, len(store), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(store)))
        index = unpack(torch.from_numpy(store.read(rows)), store.channels)
        files = [folder / line["key"] for line in store.records(rows.tolist())]
        before = torch.from_numpy(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
        for share, values in found.items():
            wrong = torch.rand(len(rows), store.rounds * index.shape[1], *index.shape[2:], generator=generator) < share
            with torch.inference_mode():
                feature = dequantize(index ^ bits_to_index(wrong, store.rounds), store.rounds)
                after = tokenizer.decode_frames(feature)[:, 0]
            values += psnr(after, before).tolist()
    print(json.dumps({str(share): round(float(np.mean(values)), 2) for share, values in found.items()}))


if __name__ == "__main__":
    main()
