# %% [markdown]
# Bits in a training loop of your own: datasets of PyTorch that read a store.

# %% By number: shuffled, split and batched as any other dataset
import torch
from torch.utils.data import DataLoader

import grncli

dataset = grncli.BitDataset("bits.zarr", fields=("bits", "label", "key"), rounds=2)
print(dataset[-1]["key"], dataset.labels[dataset[-1]["label"]], len(dataset[10:20]))
for batch in DataLoader(dataset, batch_size=32, shuffle=True):
    print(batch["bits"].shape, batch["bits"].dtype, batch["label"].shape)  # 0 or 1 [B, m, C, t, h, w]
    break

# %% As a stream: each sample once an epoch over all ranks and workers, in an order of (seed, epoch)
network = torch.nn.Linear(dataset[0]["bits"].numel(), len(dataset.labels))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
stream = grncli.BitIterableDataset("bits.zarr", rounds=2, batch=32, seed=0, drop_last=True)
loader = DataLoader(stream, batch_size=stream.batch)
for epoch in range(2):
    stream.set_epoch(epoch)
    for batch in loader:
        loss = torch.nn.functional.cross_entropy(network(batch["bits"].flatten(1).float()), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.2f} after {len(stream) // stream.batch} batches in each epoch")

# %% Resumed after 4 batches of epoch 1: the batches that an uninterrupted run has
stream.set_epoch(1, start=4 * stream.batch)
print(sum(1 for batch in loader), "batches are left")
