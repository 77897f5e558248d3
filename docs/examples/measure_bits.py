# %% [markdown]
# How good are the bits, and how many rounds are needed?

# %% Of a store: balance and entropy of each bit, and what a compressor would still save
import grncli

bits = grncli.quantize_stats("bits.zarr")
print(f"{bits.samples} samples, {bits.distinct.count} distinct tokens, mean entropy {bits.entropy.mean():.3f} of 1 bit")
print({name: f"{share:.1%} saved" for name, share in bits.saved.items()})

# %% Of media: quality after each number of rounds
rounds = grncli.quantize_stats(
    media="shapes/images", tokenizer="runs/tokenizer", rounds=(1, 4), size=32, limit=48, workers=1
)
for row in rounds.rows:
    name = "continuous" if row.rounds is None else f"{row.rounds} rounds"
    print(f"{name}: {row.compression:.1f}x smaller, PSNR {row.metrics['psnr']:.2f} dB")
