"""On a CUDA device every stage does what it does on a CPU: encode, decode, train, sample, and resume.

``GRN_TEST_DEVICE=cpu`` runs the same tests on the CPU, which shows that they run where there is no GPU.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from grncli import load_generator, load_tokenizer, open_store
from grncli.cli import app
from grncli.hbq import quantize
from grncli.media.writing import write_mp4, write_png
from grncli.models.class_transformer import ClassTransformer
from grncli.rng import Purpose, categories, uniform

DEVICE = os.environ.get("GRN_TEST_DEVICE", "cuda")
ON_CUDA = torch.device(DEVICE).type == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="there is no CUDA device"),
]

FAST = ("--steps", 8, "--temperature", 1, "--guidance", 2)
STEPS = 8
GENERATOR = f"""\
kind: generator
network: {{prediction: bit, depth: 2, width: 32, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}}
data: {{batch: 4, validation: 2}}
optimization: {{learning_rate: 1e-3, ema: 0.6}}
training: {{steps: {STEPS}, log_every: 1, checkpoint_every: 4, validate_every: 4}}
"""
TOKENIZER = f"""\
kind: tokenizer
network: {{channels: 4, encoder_width: 8, decoder_width: 8, multipliers: [1, 1], encoder_blocks: 1, decoder_blocks: 1,
  halve_space: [1], halve_time: [1]}}
data: {{image: {{size: 16, batch: 4}}, clip: {{size: 16, batch: 2, frames: 9, share: 0.5}}, workers: 0, validation: 2}}
losses: {{mse: 1, gan: 0.1}}
discriminator: {{width: 8, layers: 1}}
optimization: {{learning_rate: 1e-3, ema: 0.9}}
training: {{steps: {STEPS}, log_every: 1, checkpoint_every: 4, preview_every: 4, validate_every: 4}}
"""


@pytest.fixture(autouse=True, scope="module")
def full_precision() -> Iterator[None]:
    """TensorFloat-32 keeps 10 bits of a float32's fraction, and would hide what else differs."""
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # of processes that a test starts
        yield
    for kind, allowed in zip(kinds, before, strict=True):
        kind.allow_tf32 = allowed


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of 16x16 in three classes and four clips of 9 frames, of smooth colours."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 16)[:, None, None]

    def picture() -> np.ndarray:
        a, b, c = rng.integers(0, 256, (3, 3))
        return ((a * (1 - ramp) + b * ramp) * (1 - ramp.swapaxes(0, 1)) + c * ramp.swapaxes(0, 1)).astype(np.uint8)

    for name in ("ant", "bee", "cat", "clips"):
        (folder / name).mkdir()
    for i in range(12):
        write_png(folder / ("ant", "bee", "cat")[i % 3] / f"{i:02d}.png", picture())
    for i in range(4):
        frames = np.stack([picture()] * 9) // 2 + np.arange(0, 72, 8, dtype=np.uint8)[:, None, None, None]
        write_mp4(folder / "clips" / f"{i}.mp4", frames.astype(np.uint8), 8)
    return folder


@pytest.fixture(scope="module")
def tokenizer(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("tokenizers") / "run", rounds=2)


@pytest.fixture(scope="module")
def generator(
    make_generator_run: Callable[..., Path], tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_generator_run(tmp_path_factory.mktemp("generators") / "run", tokenizer)


@pytest.fixture(scope="module")
def store(media: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the CPU makes of the media."""
    out = tmp_path_factory.mktemp("stores") / "cpu.zarr"
    grn("tokenize", media, out, "--tokenizer", tokenizer, "--labels", "dirs", "--device", "cpu")
    return out


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "generator.yaml").write_text(GENERATOR)
    (folder / "tokenizer.yaml").write_text(TOKENIZER)
    return folder


@pytest.fixture(scope="module", params=["generator", "tokenizer"])
def training(request: pytest.FixtureRequest, recipes: Path, store: Path, media: Path) -> list[object]:
    """The arguments of a training, but for its device, number format and run."""
    if request.param == "generator":
        return ["train-gen", recipes / "generator.yaml", store]
    return ["train-tokenizer", recipes / "tokenizer.yaml", "--data", media]


def grn(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; returns what it said on standard error."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.stderr
    return result.stderr


def log(run: Path) -> list[dict[str, float]]:
    """The lines of a training's log, without what was timed."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("seconds", "waiting_share")} for line in lines]


def bits_of(store: Path) -> dict[str, np.ndarray]:
    opened = open_store(store)
    return {opened.record(i)["key"]: np.unpackbits(opened[i].bits, axis=-1) for i in range(len(opened))}


def differing(one: Path, other: Path) -> float:
    """The share of bits in which two stores of the same samples differ."""
    ones, others = bits_of(one), bits_of(other)
    assert ones.keys() == others.keys()
    wrong = sum(int((ones[key] != others[key]).sum()) for key in ones)
    return wrong / sum(bits.size for bits in ones.values())


def random_numbers(device: str) -> list[torch.Tensor]:
    numbers = torch.tensor([0, 3, 1 << 40], device=device)
    drawn = [uniform(7, numbers, 5, purpose, (3, 50)) for purpose in Purpose]
    return [tensor.cpu() for tensor in [*drawn, categories(7, numbers, 16, (3, 50))]]


def test_random_numbers_are_those_of_the_cpu() -> None:
    pairs = zip(random_numbers(DEVICE), random_numbers("cpu"), strict=True)
    assert all(torch.equal(there, here) for there, here in pairs)


# Encoding and decoding


@pytest.mark.parametrize("shape", [(2, 3, 1, 32, 48), (1, 3, 9, 32, 32)], ids=["images", "clip"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_features_are_those_of_the_cpu(
    make_tokenizer: Callable[..., Any],
    drawn: Callable[..., torch.Tensor],
    shape: tuple[int, ...],
    dtype: str,
    tolerance: float,
) -> None:
    network, pixels = make_tokenizer(), drawn(shape, seed=1)
    with torch.inference_mode():
        expected = network.encode(pixels)
        with torch.autocast(torch.device(DEVICE).type, torch.bfloat16, enabled=dtype == "bfloat16"):
            feature = network.to(DEVICE).encode(pixels.to(DEVICE))
    torch.testing.assert_close(feature.float().cpu(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["image", "video"])
def test_features_and_bits_are_those_of_the_release(release_fixtures: Path, tmp_path: Path, name: str) -> None:
    grn("import", release_fixtures / "tokenizer.ckpt", tmp_path / "run")
    outputs = load_file(release_fixtures / "tokenizer_io.safetensors")
    with torch.inference_mode():
        feature = load_tokenizer(tmp_path / "run").to(DEVICE).encode(outputs[name].to(DEVICE))
    expected = outputs[f"{name}_feature"]
    torch.testing.assert_close(feature.cpu(), expected, atol=1e-4, rtol=0)
    edge = (expected * 8 - (expected * 8).round()).abs() < 1e-3  # of one of the 16 buckets
    assert torch.equal(quantize(expected.to(DEVICE), 4).cpu(), quantize(expected, 4))
    assert torch.equal(quantize(feature, 4).cpu()[~edge], quantize(expected, 4)[~edge])


@pytest.mark.parametrize(("dtype", "share"), [("float32", 1e-3), ("bfloat16", 0.03)])
def test_a_store_has_the_bits_that_the_cpu_makes(
    media: Path, tokenizer: Path, store: Path, tmp_path: Path, dtype: str, share: float
) -> None:
    options = ("--labels", "dirs", "--device", DEVICE, "--dtype", dtype)
    grn("tokenize", media, tmp_path / "bits.zarr", "--tokenizer", tokenizer, *options)
    assert differing(tmp_path / "bits.zarr", store) <= share


def test_pictures_are_those_that_the_cpu_decodes(store: Path, tokenizer: Path, tmp_path: Path) -> None:
    for device in (DEVICE, "cpu"):
        grn("decode", store, tmp_path / device, "--tokenizer", tokenizer, "--device", device)
    files = sorted(path.relative_to(tmp_path / "cpu") for path in (tmp_path / "cpu").rglob("*.png"))
    assert len(files) == 12
    for file in files:
        there, here = (np.asarray(Image.open(tmp_path / device / file)).astype(int) for device in (DEVICE, "cpu"))
        assert np.abs(there - here).max() <= 1, file


@pytest.mark.skipif(not ON_CUDA, reason="PyTorch limits the memory of CUDA devices only")
def test_a_picture_too_large_for_the_memory_is_skipped_in_a_sentence(
    media: Path, tokenizer: Path, tmp_path: Path
) -> None:
    write_png(tmp_path / "src" / "large.png", np.zeros((1024, 1024, 3), np.uint8))
    write_png(tmp_path / "src" / "small.png", np.zeros((16, 16, 3), np.uint8))
    device = torch.device(DEVICE)
    torch.cuda.empty_cache()
    room = 24e6 / torch.cuda.get_device_properties(device).total_memory  # 12 MB of pixels, 16 MB for a first layer
    torch.cuda.set_per_process_memory_fraction(room, device)
    try:
        said = grn("tokenize", tmp_path / "src", tmp_path / "s.zarr", "--tokenizer", tokenizer, "--device", DEVICE)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert "large.png: 1024x1024 pixels do not fit into memory; give a smaller --size" in said
    assert [record["key"] for record in open_store(tmp_path / "s.zarr").records()] == ["small.png"]


# Training


@pytest.fixture(scope="module")
def trained(training: list[object], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A finished run for a device and a number format, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("trained")

    def train(device: str, dtype: str) -> Path:
        run = folder / f"{device.replace(':', '-')}-{dtype}"
        if not run.exists():
            grn(*training, "--out", run, "--device", device, f"training.dtype={dtype}")
        return run

    return train


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_a_first_step_has_the_losses_of_the_cpu(
    trained: Callable[[str, str], Path], dtype: str, tolerance: float
) -> None:
    there, here = log(trained(DEVICE, dtype))[0], log(trained("cpu", "float32"))[0]
    names = [name for name in here if name.endswith("loss")]
    assert [there[name] for name in names] == pytest.approx([here[name] for name in names], rel=tolerance)


def test_a_first_step_has_the_gradient_of_the_cpu(trained: Callable[[str, str], Path]) -> None:
    there, here = log(trained(DEVICE, "float32"))[0], log(trained("cpu", "float32"))[0]
    assert there["gradient_norm"] == pytest.approx(here["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.01), ("bfloat16", 0.1)])
def test_a_training_goes_the_way_it_goes_on_the_cpu(
    trained: Callable[[str, str], Path], dtype: str, tolerance: float
) -> None:
    there, here = log(trained(DEVICE, dtype)), log(trained("cpu", "float32"))
    for name in ("loss", "validation_loss", "validation_image_psnr", "validation_clip_psnr"):
        values = [[(line["step"], line[name]) for line in lines if name in line] for lines in (there, here)]
        assert np.array(values[0]) == pytest.approx(np.array(values[1]), rel=tolerance), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_that_is_stopped_after_every_step_goes_the_same_way(
    training: list[object], trained: Callable[[str, str], Path], tmp_path: Path, dtype: str
) -> None:
    whole = log(trained(DEVICE, dtype))
    arguments = (*training, "--out", tmp_path / "run", "--device", DEVICE, f"training.dtype={dtype}")
    for step in range(1, STEPS):
        assert f"after step {step} of {STEPS}" in grn(*arguments, "--max-time", "0.001s", code=75)
    grn(*arguments)
    resumed = log(tmp_path / "run")
    assert [line["step"] for line in resumed] == [line["step"] for line in whole]
    for there, here in zip(resumed, whole, strict=True):
        assert there == pytest.approx(here, rel=1e-3, abs=1e-6)


@pytest.mark.skipif(not ON_CUDA, reason="compiling takes minutes on a CPU")
def test_a_compiled_training_goes_the_same_way(
    training: list[object], trained: Callable[[str, str], Path], tmp_path: Path
) -> None:
    options = ("--device", DEVICE, "training.dtype=float32", "training.compile=true")
    grn(*training, "--out", tmp_path / "run", *options)
    compiled, plain = ([line["loss"] for line in log(run)] for run in (tmp_path / "run", trained(DEVICE, "float32")))
    assert compiled == pytest.approx(plain, rel=0.01)


def test_a_trained_network_can_be_used(trained: Callable[[str, str], Path], training: list[object]) -> None:
    load = load_generator if training[0] == "train-gen" else load_tokenizer
    network = load(trained(DEVICE, "bfloat16"))
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in network.parameters())


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_of_torchrun_do_what_one_alone_does(
    trained: Callable[[str, str], Path], training: list[object], tmp_path: Path, processes: int
) -> None:
    if ON_CUDA and torch.cuda.device_count() < processes:
        pytest.skip(f"there are fewer than {processes} CUDA devices")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = ["--out", tmp_path / "run", "--device", DEVICE, "training.dtype=float32"]
    done = subprocess.run(
        [*command, "-m", "grncli", *map(str, [*training, *options])],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    together, alone = ([line["loss"] for line in log(run)] for run in (tmp_path / "run", trained(DEVICE, "float32")))
    assert together == pytest.approx(alone, rel=1e-3)


# Sampling


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_logits_are_those_of_the_cpu(make_generator: Callable[..., ClassTransformer], prediction: str) -> None:
    network = make_generator(prediction)
    codec = network.config.codec
    state = categories(0, torch.arange(4), codec.categories, (codec.token_channels, 1, 4, 4))
    ratio, label = torch.tensor([0.0, 0.3, 0.7, 1.0]), torch.tensor([0, 1, 2, 3])
    with torch.inference_mode():
        expected = network(state, ratio, label)
        logits = network.to(DEVICE)(state.to(DEVICE), ratio.to(DEVICE), label.to(DEVICE)).cpu()
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["ind", "bit"])
def test_logits_are_those_of_the_release(release_fixtures: Path, tmp_path: Path, kind: str) -> None:
    grn("import", release_fixtures / f"c2i_{kind}.pth", tmp_path / "run", "--set", "in_context_start=1")
    outputs = load_file(release_fixtures / f"c2i_{kind}_io.safetensors", device=DEVICE)
    with torch.inference_mode():
        logits = load_generator(tmp_path / "run").to(DEVICE)(
            outputs["state"].unsqueeze(2), outputs["t"], outputs["label"]
        )
    torch.testing.assert_close(logits.squeeze(3), outputs["logits"], atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def sampled(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A store of samples, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("samples")

    def sample(device: str, *options: object) -> Path:
        out = folder / ("_".join(map(str, (device, *options))).replace(":", "-") + ".zarr")
        if not out.exists():
            grn("sample", generator, out, *FAST, "--per-class", 4, "--device", device, *options)
        return out

    return sample


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 5])
def test_samples_do_not_depend_on_those_beside_them(sampled: Callable[..., Path], batch: int, dtype: str) -> None:
    whole = sampled(DEVICE, "--dtype", dtype)
    assert differing(sampled(DEVICE, "--dtype", dtype, "--batch", batch), whole) == 0


@pytest.mark.parametrize("batch", [1, 5])
def test_steps_that_entropy_decides_do_not_depend_on_the_batch(sampled: Callable[..., Path], batch: int) -> None:
    complexity = ("--schedule", "complexity", "--k", 96.9, "--b", -27.1, "--warmup-steps", 2)
    spread = (*complexity, "--min-steps", 5, "--max-steps", 14)
    stores = [sampled(DEVICE, *spread, "--batch", size) for size in (batch, 12)]
    assert differing(*stores) == 0
    steps = []
    for store in stores:
        grid = open_store(store).grid((1, 4, 4))
        steps.append(dict(zip(grid.column("number").tolist(), grid.column("steps").tolist(), strict=True)))
    assert steps[0] == steps[1]
    assert len(set(steps[0].values())) > 1


def test_samples_are_those_of_the_cpu(sampled: Callable[..., Path]) -> None:
    """But where a rounding turns a pick, and all that follows from it."""
    assert differing(*(sampled(device, "--dtype", "float32") for device in (DEVICE, "cpu"))) <= 0.1


def test_a_stopped_sampling_resumes_to_the_same_samples(
    generator: Path, sampled: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, forward = 0, ClassTransformer.forward

    def stopping(network: ClassTransformer, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 20:  # with five samples under way and five done
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(network, *arguments)

    options = (*FAST, "--per-class", 4, "--device", DEVICE, "--dtype", "float32", "--batch", 5)
    with monkeypatch.context() as patch:
        patch.setattr(ClassTransformer, "forward", stopping)
        said = grn("sample", generator, tmp_path / "s.zarr", *options, code=75)
    assert "SIGTERM: stopped after" in said
    assert 0 < len(open_store(tmp_path / "s.zarr")) < 12
    grn("sample", generator, tmp_path / "s.zarr", *options)
    assert differing(tmp_path / "s.zarr", sampled(DEVICE, "--dtype", "float32")) == 0
