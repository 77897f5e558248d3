"""``grn train-tokenizer`` from Python: its batches, its run directory, and that it learns."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from grncli import load_tokenizer
from grncli.media.listing import list_sources
from grncli.models.lpips import LPIPS
from grncli.models.tokenizer import Tokenizer, TokenizerConfig
from grncli.runs.checkpoint import list_checkpoints
from grncli.runs.tokenizer_recipe import (
    ClipData,
    Data,
    DiscriminatorSettings,
    ImageData,
    Optimization,
    Term,
    TokenizerLosses,
    TokenizerRecipe,
    Training,
)
from grncli.runtime.errors import CheckpointError, RecipeError, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.runtime.tensor_files import read_tensors
from grncli.training.crops import CropSampler
from grncli.training.tokenizer_training import train_tokenizer

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
    assert names == {"images-00000004.png", "clips-00000004.png", "clips-00000004.mp4"}


def test_several_sources_are_trained_on_together_and_named(media_dir: Path, tmp_path: Path) -> None:
    folders = [str(path) for path in sorted(media_dir.iterdir()) if path.is_dir()]
    assert train_tokenizer(recipe(1), folders, tmp_path / "run", device=CPU) == 1
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert data["source"] == ", ".join(folders)
    assert data["items"] == len(list_sources(folders).sources) > len(list_sources(folders[0]).sources)


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

    asked = recipe(8, bit_errors=0.1)
    train_tokenizer(asked, str(media_dir), tmp_path / "whole", device=CPU)
    with pytest.raises(Stopped):
        train_tokenizer(asked, str(media_dir), tmp_path / "cut", device=CPU, monitor=Monitor(AfterFive()))
    assert train_tokenizer(asked, str(media_dir), tmp_path / "cut", device=CPU) == 3
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


def test_a_run_of_other_media_is_refused_and_of_moved_media_resumed(media_dir: Path, tmp_path: Path) -> None:
    images = replace(recipe(2), data=replace(recipe().data, clip=None))
    longer = replace(images, training=replace(images.training, steps=3))
    shutil.copytree(media_dir / "a", tmp_path / "moved")
    train_tokenizer(images, str(media_dir / "a"), tmp_path / "run", device=CPU)
    with pytest.raises(CheckpointError, match=r"was trained on other data \(6 sources of .*than these 6 sources"):
        train_tokenizer(longer, str(media_dir / "b"), tmp_path / "run", device=CPU)
    assert train_tokenizer(longer, str(tmp_path / "moved"), tmp_path / "run", device=CPU) == 1


def test_continuous_baseline_trains(media_dir: Path, tmp_path: Path) -> None:
    train_tokenizer(recipe(2, rounds=None), str(media_dir), tmp_path / "run", device=CPU)
    assert load_tokenizer(tmp_path / "run").rounds is None


def test_missing_kind_of_media_is_refused(media_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no clips"):
        train_tokenizer(recipe(2), str(media_dir / "a"), tmp_path / "run", device=CPU)


def test_unreadable_source_is_named_once_and_replaced(media_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(media_dir / "a", tmp_path / "in")
    (tmp_path / "in/bad.png").write_bytes(b"bad")
    said: list[str] = []
    images = replace(recipe(6), data=replace(recipe().data, clip=None))
    train_tokenizer(images, str(tmp_path / "in"), tmp_path / "run", device=CPU, monitor=Monitor(say=said.append))
    assert len([text for text in said if "bad.png" in text]) == 1


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses_of(run: Path, name: str) -> list[dict[str, torch.Tensor]]:
    return read_tensors(list_checkpoints(run)[-1] / f"{name}.safetensors")


GAN = TokenizerLosses(gan=Term(weight=0.1, start=2, warmup=2))
SMALL_GAN = {"losses": GAN, "discriminator": DiscriminatorSettings(width=4, layers=2)}


def test_a_gan_sets_in_at_its_step_and_trains_both(media_dir: Path, tmp_path: Path) -> None:
    train_tokenizer(recipe(6, **SMALL_GAN), str(media_dir), tmp_path / "gan", device=CPU)
    train_tokenizer(recipe(6), str(media_dir), tmp_path / "plain", device=CPU)
    gan, plain = lines(tmp_path / "gan"), lines(tmp_path / "plain")
    # The second of each pair of steps has clips.
    assert [("image_gan" in line or "clip_gan" in line) for line in gan[:6]] == [False, False, True, True, True, True]
    assert [line["loss"] for line in gan[:3]] != [line["loss"] for line in plain[:3]]
    assert [line["loss"] for line in gan[:2]] == [line["loss"] for line in plain[:2]]
    discriminator = losses_of(tmp_path / "gan", "discriminator_weights")
    assert {name.split(".")[0] for name in discriminator} == {"frames", "clips"}
    assert discriminator["frames.main.3.num_batches_tracked"] > 0


def test_a_gan_run_goes_on_bit_for_bit(media_dir: Path, tmp_path: Path) -> None:
    train_tokenizer(recipe(6, **SMALL_GAN), str(media_dir), tmp_path / "whole", device=CPU)
    train_tokenizer(recipe(4, **SMALL_GAN), str(media_dir), tmp_path / "cut", device=CPU)
    train_tokenizer(recipe(6, **SMALL_GAN), str(media_dir), tmp_path / "cut", device=CPU)
    for name in ("weights", "ema", "discriminator_weights", "discriminator_optimizer"):
        whole, cut = losses_of(tmp_path / "whole", name), losses_of(tmp_path / "cut", name)
        assert all(torch.equal(whole[key], cut[key]) for key in whole), name


def test_lpips_is_descended_with_weights_of_the_user(media_dir: Path, tmp_path: Path) -> None:
    save_file(LPIPS("alex").state_dict(), tmp_path / "lpips.safetensors")
    losses = TokenizerLosses(
        lpips=Term(weight=1.0), lpips_network="alex", lpips_weights=str(tmp_path / "lpips.safetensors")
    )
    data = Data(image=ImageData(size=32, batch=2), workers=0)
    train_tokenizer(replace(recipe(2, losses=losses), data=data), str(media_dir), tmp_path / "run", device=CPU)
    first = lines(tmp_path / "run")[0]
    assert first["loss"] == pytest.approx(first["image_reconstruction"] + first["image_lpips"])


def test_lpips_without_weights_says_what_is_missing(media_dir: Path, tmp_path: Path) -> None:
    losses = TokenizerLosses(lpips=Term(weight=1.0))
    with pytest.raises(CheckpointError, match=r"lacks vgg16-397923af\.pth"):
        train_tokenizer(recipe(2, losses=losses), str(media_dir), tmp_path / "run", device=CPU, cache=tmp_path / "no")


def test_a_list_of_rounds_draws_one_a_step(media_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = Tokenizer.forward

    def watched(
        self: Tokenizer, x: torch.Tensor, rounds: int | None = None, flips: torch.Tensor | None = None
    ) -> torch.Tensor:
        seen.append(rounds or 0)
        return forward(self, x, rounds, flips)

    monkeypatch.setattr(Tokenizer, "forward", watched)
    train_tokenizer(recipe(12, rounds=(1, 3, 6)), str(media_dir), tmp_path / "run", device=CPU)
    assert set(seen) == {0, 1, 3, 6}  # 0: previews, at all rounds
    assert load_tokenizer(tmp_path / "run").rounds == 6


def test_what_is_held_out_is_measured_and_not_trained_on(media_dir: Path, tmp_path: Path) -> None:
    data = replace(recipe().data, image=ImageData(size=16, batch=4), clip=None, validation=3)
    train_tokenizer(replace(recipe(2), data=data), str(media_dir), tmp_path / "run", device=CPU)
    last = lines(tmp_path / "run")[-1]
    assert 0 < last["validation_image_psnr"] < 60
    assert -1 <= last["validation_image_ssim"] <= 1
    sampler = CropSampler(data, list_sources(str(media_dir)).sources, 0, "media")
    assert len(sampler.held_out["image"]) == 3
    assert not {s.name for s in sampler.sources["image"]} & {s.name for s in sampler.held_out["image"]}


def test_recomputing_activations_changes_nothing(media_dir: Path, tmp_path: Path) -> None:
    for name in ("kept", "recomputed"):
        again = replace(recipe().training, activation_checkpointing=name == "recomputed")
        train_tokenizer(replace(recipe(), training=again), str(media_dir), tmp_path / name, device=CPU)
    kept, recomputed = losses_of(tmp_path / "kept", "weights"), losses_of(tmp_path / "recomputed", "weights")
    assert all(torch.allclose(kept[key], recomputed[key], atol=1e-6) for key in kept)


def test_a_batch_that_does_not_divide_is_refused(media_dir: Path, tmp_path: Path) -> None:
    thirds = replace(recipe(), optimization=replace(recipe().optimization, gradient_accumulation=3))
    with pytest.raises(RecipeError, match=r"data\.image\.batch is 4, expected a multiple of 3"):
        train_tokenizer(thirds, str(media_dir), tmp_path / "run", device=CPU)


def test_tensorboard_is_missed_before_anything_is_made(
    media_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    logged = replace(recipe(), training=replace(recipe().training, tensorboard=True))
    with pytest.raises(UsageError, match="needs the tensorboard package"):
        train_tokenizer(logged, str(media_dir), tmp_path / "run", device=CPU)
    assert not list(tmp_path.iterdir())


def test_too_few_samples_for_a_batch_are_refused(media_dir: Path, tmp_path: Path) -> None:
    large = replace(recipe(), data=replace(recipe().data, image=ImageData(size=16, batch=40)))
    with pytest.raises(UsageError, match=r"holds 14 images to train on, expected at least one batch"):
        train_tokenizer(large, str(media_dir), tmp_path / "run", device=CPU)


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


def test_clips_come_from_their_first_step_on(media_dir: Path) -> None:
    sources = list_sources(str(media_dir)).sources
    data = replace(recipe().data, clip=ClipData(size=16, batch=2, frames=3, share=0.5, start=6))
    kinds = [CropSampler(data, sources, 0, "media").step(step)[0][0].kind for step in range(16)]
    assert set(kinds[:6]) == {"image"}
    assert kinds[6:].count("clip") == 5


def test_clips_alone_cannot_come_later() -> None:
    data = Data(clip=ClipData(size=16, batch=2, frames=3, start=6))
    with pytest.raises(ValueError, match=r"data\.clip\.start is 6, expected 0 as there are no images before it"):
        TokenizerRecipe(network=NETWORK, data=data)
