# %% [markdown]
# Bits back to pictures, compared with what they were made of.

# %%
import grncli

summary = grncli.decode(
    "bits.zarr",
    "decoded",
    tokenizer="runs/tokenizer",
    select=slice(0, 48),
    compare="shapes/images",
    sheet="decoded.png",
)
print(f"{summary.written} files in {summary.out}, PSNR {summary.quality.means()['image_psnr']:.2f} dB")

# %% Or without files: a feature is one call away from the bits
import torch

from grncli.hbq import dequantize, unpack

store, tokenizer = grncli.open_store("bits.zarr"), grncli.load_tokenizer("runs/tokenizer")
index = unpack(torch.from_numpy(store.read([0, 1])), store.channels)
with torch.inference_mode():
    pixels = tokenizer.decode(dequantize(index, store.rounds))  # [2, 3, 1, 32, 32] in [-1, 1]
print(pixels.shape, float(pixels.min()), float(pixels.max()))
