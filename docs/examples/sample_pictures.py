# %% [markdown]
# Sample from a generator: files as the command makes them, or token maps to work with.

# %% Two pictures of each of two classes
import grncli

summary = grncli.sample(
    "runs/generator",
    out="samples",
    tokenizer="runs/tokenizer",
    classes=["red-circle", "blue-star"],
    per_class=2,
    steps=6,
    temperature=0.8,
    guidance_interval=(0.2, 1),
    sheet="samples.png",
)
print(f"{summary.samples} samples in {summary.out}, their bits in {summary.store}; {summary.nfe} NFE")

# %% Token maps of a network that stays loaded
generator = grncli.load_generator("runs/generator")
tokens = grncli.sample(generator, grid=(1, 4, 4), labels=[3, 7], seed=1, steps=6)  # uint8 [2, 16, 1, 4, 4]
print(tokens.shape, tokens.dtype)
