"""``grn train-tokenizer`` from Python: its batches, its run directory, and that it learns."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from grncli import load_tokenizer
from grncli.checkpoint import list_checkpoints, read_tensors
from grncli.errors import CheckpointError, UsageError
from grncli.media.sources import list_sources
from grncli.models.tokenizer import TokenizerConfig
from grncli.stopping import Stop, Stopped
from grncli.training.recipes import ClipData, Data, ImageData, Optimization, TokenizerRecipe, Training
from grncli.training.tokenizer import CropSampler, train_tokenizer

NETWORK = TokenizerConfig(
    channels=4,
    encoder_width=8,
    decoder_width=8,
    multipliers=(1, 1),
    encoder_blocks=1,
    decoder_blocks=1,
    halve_space=(1,),
    halve_time=(1,),
)
CPU = torch.device("cpu")


def recipe(steps: int = 4, **options: object) -> TokenizerRecipe:
    data = Data(image=ImageData(size=16, batch=4), clip=ClipData(size=16, batch=2, frames=3, share=0.5), workers=0)
    return TokenizerRecipe(
        network=NETWORK,
        data=data,
        optimization=Optimization(learning_rate=3e-3, ema=0.9),
        training=Training(steps=steps, log_every=1, checkpoint_every=100, preview_every=100),
        **options,
    )


def test_runs_can_be_loaded_and_looked_at(media_dir: Path, tmp_path: Path) -> None:
    assert train_tokenizer(recipe(), str(media_dir), tmp_path / "run", device=CPU) == 4
    assert load_tokenizer(tmp_path / "run").rounds == 4
    names = {file.name for file in (tmp_path / "run/previews").iterdir()}
    assert names == {"images-00000004.png", "clips-00000004.png"}


def test_loss_falls(media_dir: Path, tmp_path: Path) -> None:
    train_tokenizer(recipe(80), str(media_dir), tmp_path / "run", device=CPU)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_resumed_training_repeats_the_uninterrupted_one(media_dir: Path, tmp_path: Path) -> None:
    class AfterFive(Stop):
        asked = 0

        @property
        def reason(self) -> str | None:
            self.asked += 1
            return "SIGTERM" if self.asked >= 5 else None

    train_tokenizer(recipe(8), str(media_dir), tmp_path / "whole", device=CPU)
    with pytest.raises(Stopped):
        train_tokenizer(recipe(8), str(media_dir), tmp_path / "cut", device=CPU, stop=AfterFive())
    assert train_tokenizer(recipe(8), str(media_dir), tmp_path / "cut", device=CPU) == 3
    for name in ("weights", "ema", "optimizer"):
        whole, cut = (
            read_tensors(list_checkpoints(tmp_path / run)[-1] / f"{name}.safetensors") for run in ("whole", "cut")
        )
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_finished_run_is_left_alone_and_can_be_extended(media_dir: Path, tmp_path: Path) -> None:
    train_tokenizer(recipe(2), str(media_dir), tmp_path / "run", device=CPU)
    assert train_tokenizer(recipe(2), str(media_dir), tmp_path / "run", device=CPU) == 0
    assert train_tokenizer(recipe(3), str(media_dir), tmp_path / "run", device=CPU) == 1


def test_run_of_another_recipe_is_refused_and_kept(media_dir: Path, tmp_path: Path) -> None:
    train_tokenizer(recipe(2), str(media_dir), tmp_path / "run", device=CPU)
    with pytest.raises(CheckpointError, match="rounds=4 there, 2 asked"):
        train_tokenizer(recipe(2, rounds=2), str(media_dir), tmp_path / "run", device=CPU)
    assert load_tokenizer(tmp_path / "run").rounds == 4
    train_tokenizer(recipe(2, rounds=2), str(media_dir), tmp_path / "run", device=CPU, overwrite=True)
    assert load_tokenizer(tmp_path / "run").rounds == 2


def test_continuous_baseline_trains(media_dir: Path, tmp_path: Path) -> None:
    train_tokenizer(recipe(2, rounds=None), str(media_dir), tmp_path / "run", device=CPU)
    assert load_tokenizer(tmp_path / "run").rounds is None


def test_missing_kind_of_media_is_refused(media_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no clips"):
        train_tokenizer(recipe(2), str(media_dir / "a"), tmp_path / "run", device=CPU)


def test_unreadable_source_is_named_once_and_replaced(media_dir: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(media_dir / "a", tmp_path / "in")
    (tmp_path / "in/bad.png").write_bytes(b"bad")
    said: list[str] = []
    images = replace(recipe(6), data=replace(recipe().data, clip=None))
    train_tokenizer(images, str(tmp_path / "in"), tmp_path / "run", device=CPU, warn=said.append)
    assert len([text for text in said if "bad.png" in text]) == 1


@pytest.fixture
def sampler(media_dir: Path) -> Callable[[int], CropSampler]:
    sources = list_sources(str(media_dir)).sources
    return lambda seed: CropSampler(recipe().data, sources, seed, "media")


def test_a_step_depends_on_seed_and_step_only(sampler: Callable[[int], CropSampler]) -> None:
    straight = [sampler(0).step(step) for step in range(20)]
    fresh = sampler(0)
    assert [fresh.step(step) for step in reversed(range(20))] == straight[::-1]
    assert [sampler(1).step(step) for step in range(20)] != straight


def test_an_epoch_shows_every_source_once(sampler: Callable[[int], CropSampler]) -> None:
    jobs = [job for step in range(14) for job in sampler(0).step(step) if job[0].kind == "image"]
    first = [source.name for source, _ in jobs[:14]]
    assert len(set(first)) == 14


def test_share_of_clip_steps_is_the_recipe_s(sampler: Callable[[int], CropSampler]) -> None:
    kinds = [sampler(0).step(step)[0][0].kind for step in range(10)]
    assert kinds.count("clip") == 5
