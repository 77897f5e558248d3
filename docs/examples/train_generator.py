# %% [markdown]
# Train a generator of classes on bits, in seconds; a good one of these drawings takes a few minutes.

# %%
import grncli

losses = []
summary = grncli.train_generator(
    "recipes/c2i-small-ind.yaml",
    "bits.zarr",
    "runs/generator",
    overrides={
        "network.depth": 2,
        "network.in_context_start": 1,
        "data.batch": 8,
        "training.steps": 10,
        "training.log_every": 5,
    },
    dtype="float32",
    report=lambda line: losses.append((line.step, line.numbers["loss"])),
)
print(f"{summary.out} is trained to step {summary.step}; loss by step: {losses}")

# %% What a run may take: `max_time` ends it with everything saved, and the same call resumes
try:
    grncli.train_generator(
        "recipes/c2i-small-ind.yaml", "bits.zarr", "runs/longer", overrides={"data.batch": 8}, max_time=0.5
    )
except grncli.Stopped as stopped:
    print(f"{stopped}. {stopped.advice}.")
