# %% [markdown]
# Turn a folder of pictures into bits, and look at them as arrays.

# %% Progress by a callback: sources done, sources in all, a note
import grncli


def show(done, total, note):
    print(f"\r{done} of {total} sources {note}", end="")


summary = grncli.tokenize(
    "shapes/images", "bits.zarr", tokenizer="runs/tokenizer", size=32, labels="dirs", workers=1, progress=show
)
print(f"\n{summary.samples} samples, {summary.made} of them new, {summary.failed} sources could not be read")

# %% Numbers, slices and rows of a grid
store = grncli.open_store(summary.out)
for sample in store[:3]:
    print(sample.index, store.labels[sample.label], sample.bits.shape, sample.bits.dtype)
rows = store.grid((1, 4, 4)).read([7, 2, 9], rounds=2)
print(f"the first two rounds of three samples: {rows.shape}")

# %% The same call again does nothing
again = grncli.tokenize("shapes/images", "bits.zarr", tokenizer="runs/tokenizer", size=32, labels="dirs", workers=1)
print(f"{again.made} samples made")
