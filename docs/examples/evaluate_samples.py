# %% [markdown]
# What samples and reconstructions are worth, in numbers with their protocol.

# %% Reconstructions: PSNR and SSIM of each number of rounds
import grncli

report = grncli.evaluate_reconstruction(
    "shapes/images", tokenizer="runs/tokenizer", rounds="1:4", metrics=["psnr", "ssim"], size=32, limit=48, workers=1
)
for row in report.rows:
    print(f"{row.label}: PSNR {row.spreads['psnr'].mean:.2f} dB, SSIM {row.spreads['ssim'].mean:.3f}")

# %% A reference is measured once; the Frechet distance is here in the features of the tokenizer itself
reference = grncli.save_statistics("shapes/images", "shapes.npz", features="runs/tokenizer", size=32, workers=1)
print(f"{reference.out}: {reference.text}")

# %% Samples against it, also as a page to look at
measured = grncli.evaluate(
    "samples", "shapes.npz", features="runs/tokenizer", metrics=["fd"], size=32, workers=1, html="samples.html"
)
print(f"Frechet distance {measured.value('fd'):.3f}, {measured.cost.nfe:.1f} NFE a sample")
for warning in measured.warnings:
    print(f"warning: {warning}")
print(measured.samples)  # how they were read and seen; measured.to_json() has everything

# %% Which decoding settings are best (more of them, and more samples, when it counts)
found = grncli.search_settings(
    "runs/generator",
    {"temperature": [0.8, 1.3]},
    tokenizer="runs/tokenizer",
    reference="shapes.npz",
    features="runs/tokenizer",
    per_class=2,
    halvings=0,
    steps=4,
)
print(f"best of {len(found.trials)}: {found.best.point}")
