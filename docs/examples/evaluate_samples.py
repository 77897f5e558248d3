# %% [markdown]
# What samples and reconstructions are worth, in numbers with their protocol.

# %% Reconstructions: PSNR and SSIM of each number of rounds
import grncli

report = grncli.evaluate_reconstruction(
    "shapes/images", tokenizer="runs/tokenizer", rounds="1:4", metrics=["psnr", "ssim"], size=32, limit=48, workers=1
)
for row in report.rows:
    print(f"{row.label}: PSNR {row.spreads['psnr'].mean:.2f} dB, SSIM {row.spreads['ssim'].mean:.3f}")

# %% Samples against drawings: the Frechet distance, here in the features of the tokenizer itself
measured = grncli.evaluate("samples", "shapes/images", features="runs/tokenizer", metrics=["fd"], size=32, workers=1)
print(f"Frechet distance {measured.value('fd'):.3f}, {measured.cost.nfe:.1f} NFE a sample")
for warning in measured.warnings:
    print(f"warning: {warning}")
print(measured.samples)  # how they were read and seen; measured.to_json() has everything
