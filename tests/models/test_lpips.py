"""LPIPS against the authors' package, what a distance promises, and its weight files, whole, missing or hostile."""

import hashlib
import json
import os
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from grncli.metrics import lpips_weights
from grncli.metrics.lpips_weights import WeightFile, default_cache, load_lpips
from grncli.models.lpips import LPIPS
from grncli.runtime.errors import CheckpointError

TRUNK = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
CONVOLUTIONS = {"vgg": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], "alex": [0, 3, 6, 8, 10]}

each_network = pytest.mark.parametrize("network", ["vgg", "alex"])


def draw_weights(network, seed=0):
    """Weights that keep features alive through the whole trunk; heads are positive, as the fitted ones are."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, tensor in sorted(LPIPS(network).state_dict().items()):
        noise = torch.from_numpy(generator.standard_normal(tuple(tensor.shape), dtype=np.float32))
        if name.startswith("heads."):
            weights[name] = noise.abs()
        else:
            weights[name] = noise * ((2 / noise[0].numel()) ** 0.5 if noise.dim() > 1 else 0.05)
    return weights


@pytest.fixture(scope="module")
def weights():
    return {network: draw_weights(network) for network in TRUNK}


@pytest.fixture(scope="module")
def networks(weights):
    networks = {}
    for network in TRUNK:
        networks[network] = LPIPS(network)
        networks[network].load_state_dict(weights[network])
    return networks


@pytest.fixture(scope="module")
def alex(networks):
    return networks["alex"]


@pytest.fixture
def folder(tmp_path, weights):
    """A directory with both files of AlexNet under their published names and in their layouts."""
    write_trunk(tmp_path, weights["alex"])
    write_heads(tmp_path, weights["alex"])
    return tmp_path


def write_trunk(folder, weights):
    trunk = {name: tensor for name, tensor in weights.items() if name.startswith("features.")}
    torch.save({**trunk, "classifier.1.weight": torch.zeros(2, 2)}, folder / TRUNK["alex"])


def write_heads(folder, weights):
    torch.save({f"lin{n}.model.1.weight": weights[f"heads.{n}.weight"] for n in range(5)}, folder / "alex.pth")


def message_of(*args, **options):
    with pytest.raises(CheckpointError) as caught:
        load_lpips(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The distance


@each_network
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)
def test_distances_equal_those_of_the_authors_package(networks, drawn, data_dir, network, dtype, tolerance):
    expected = json.loads((data_dir / "lpips_golden.json").read_text())["distances"][network]
    x, other = drawn((2, 3, 40, 48), 1), drawn((2, 3, 40, 48), 2)
    y = torch.stack([(x[0] + 0.2 * other[0]).clamp(-1, 1), other[1]])
    found = deepcopy(networks[network]).to(dtype)(x.to(dtype), y.to(dtype))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype), rtol=tolerance, atol=0)


@each_network
def test_parameters_have_the_names_of_torchvision(network):
    trunk = [f"features.{place}.{kind}" for place in CONVOLUTIONS[network] for kind in ("weight", "bias")]
    assert list(LPIPS(network).state_dict()) == [*trunk, *(f"heads.{n}.weight" for n in range(5))]


def test_equal_pictures_have_no_distance(alex, drawn):
    x = drawn((2, 3, 32, 32), 0)
    assert torch.equal(alex(x, x.clone()), torch.zeros(2))


def test_distance_is_symmetric(alex, drawn):
    x, y = drawn((2, 3, 32, 32), 0), drawn((2, 3, 32, 32), 1)
    assert torch.equal(alex(x, y), alex(y, x))


def test_distance_grows_with_the_change(alex, drawn):
    x, noise = 0.5 * drawn((1, 3, 32, 32), 0), drawn((1, 3, 32, 32), 1)
    distances = [float(alex(x, x + size * noise)) for size in (0.01, 0.1, 0.5)]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_frames_of_a_clip_are_averaged(alex, drawn):
    x, y = drawn((2, 3, 3, 32, 40), 0), drawn((2, 3, 3, 32, 40), 1)
    frames = torch.stack([alex(x[:, :, place], y[:, :, place]) for place in range(3)])
    torch.testing.assert_close(alex(x, y), frames.mean(dim=0))


def test_gradient_reaches_the_picture_and_not_the_weights(alex, drawn):
    x = drawn((1, 3, 32, 32), 0).requires_grad_()
    alex(x, drawn((1, 3, 32, 32), 1)).sum().backward()
    assert x.grad.abs().amax() > 0
    assert not any(parameter.requires_grad for parameter in alex.parameters())


@pytest.mark.parametrize("bias", [-100, 1e-25], ids=["dead", "squares underflow"])
def test_pixels_without_features_give_a_finite_gradient(drawn, weights, bias):
    faint = {name: torch.full_like(tensor, bias) for name, tensor in weights["alex"].items() if name.endswith("bias")}
    if bias > 0:
        faint |= {name: 0 * weights["alex"][name] for name in weights["alex"] if name.startswith("features.0.w")}
    network = LPIPS("alex")
    network.load_state_dict(weights["alex"] | faint)
    x = drawn((1, 3, 32, 32), 0).requires_grad_()
    network(x, drawn((1, 3, 32, 32), 1)).sum().backward()
    assert x.grad.isfinite().all()


def test_inputs_are_left_as_they_are(alex, drawn):
    x, y = drawn((1, 3, 32, 32), 0), drawn((1, 3, 32, 32), 1)
    alex(x, y)
    assert torch.equal(x, drawn((1, 3, 32, 32), 0))
    assert torch.equal(y, drawn((1, 3, 32, 32), 1))


def test_it_stays_in_evaluation_mode_inside_a_module_that_trains():
    outer = torch.nn.ModuleList([LPIPS("alex")]).train()
    assert not any(module.training for module in outer[0].modules())


@pytest.mark.parametrize("shapes", [[(1, 3, 32, 32), (2, 3, 32, 32)], [(1, 1, 32, 32)] * 2, [(3, 32, 32)] * 2], ids=str)
def test_shapes_that_do_not_fit_are_told(alex, shapes):
    with pytest.raises(ValueError, match=r"was given \[.*, expected two of one shape"):
        alex(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize(("network", "least"), [("vgg", 16), ("alex", 31)])
def test_the_least_picture_is_measured_and_a_smaller_one_told(networks, drawn, network, least):
    x, y = drawn((1, 3, least, least), 0), drawn((1, 3, least, least), 1)
    assert networks[network](x, y) > 0
    with pytest.raises(ValueError, match=f"was given {least}x{least - 1} pixels, it needs {least}x{least}"):
        networks[network](x[..., :-1], y[..., :-1])


# Its files


def equal_weights(module, expected):
    return all(torch.equal(tensor, expected[name]) for name, tensor in module.state_dict().items())


def test_published_files_are_read_from_a_directory(folder, weights):
    module = load_lpips("alex", folder, cache=folder / "unused")
    assert equal_weights(module, weights["alex"])
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_published_files_are_read_from_the_cache(folder, weights):
    assert equal_weights(load_lpips("alex", None, cache=folder), weights["alex"])


def test_published_files_may_be_safetensors(folder, weights):
    for file in list(folder.iterdir()):
        save_file(torch.load(file, weights_only=True), file.with_suffix(".safetensors"))
        file.unlink()
    assert equal_weights(load_lpips("alex", folder, cache=folder / "unused"), weights["alex"])


def test_one_file_may_hold_everything(tmp_path, weights):
    save_file(weights["alex"], tmp_path / "lpips.safetensors")
    module = load_lpips("alex", tmp_path / "lpips.safetensors", cache=tmp_path / "unused")
    assert equal_weights(module, weights["alex"])


def test_weights_of_half_precision_are_read_in_float32(tmp_path, weights):
    halved = {name: tensor.half() for name, tensor in weights["alex"].items()}
    save_file(halved, tmp_path / "lpips.safetensors")
    module = load_lpips("alex", tmp_path / "lpips.safetensors", cache=tmp_path / "unused")
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}


def test_files_of_the_published_vgg_are_known():
    assert [(file.name, file.sha256[:8]) for file in lpips_weights.FILES["vgg"]] == [
        ("vgg16-397923af.pth", "397923af"),
        ("vgg.pth", "a78928a0"),
    ]


def test_missing_files_are_told_with_their_address_checksum_and_place(tmp_path):
    message = message_of("vgg", None, cache=tmp_path / "cache")
    assert message.startswith(f"{tmp_path / 'cache'}: lacks vgg16-397923af.pth ")
    assert "https://download.pytorch.org/models/vgg16-397923af.pth, sha256 397923af..." in message
    assert f"/lpips/weights/v0.1/vgg.pth, sha256 {lpips_weights.FILES['vgg'][1].sha256})" in message
    assert "put what is missing there" in message
    assert not (tmp_path / "cache").exists()


def test_only_what_is_missing_is_told(folder):
    (folder / "alex.pth").unlink()
    message = message_of("alex", folder, cache=folder / "unused")
    assert "lacks alex.pth (" in message
    assert TRUNK["alex"] not in message


def test_a_missing_single_file_is_told_and_not_fetched(tmp_path):
    message = message_of("alex", tmp_path / "lpips.safetensors", cache=tmp_path, download=True)
    assert message.startswith(f"{tmp_path / 'lpips.safetensors'}: cannot be read")


def test_a_file_of_another_kind_is_told(folder):
    message = message_of("alex", folder / "alex.pth", cache=folder)
    assert message == (
        f"{folder / 'alex.pth'}: is no .safetensors file; expected one, or a directory with LPIPS weights"
    )


class Hostile:
    """Unpickled by Python, this makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_hostile_pickle_is_refused_and_does_not_run_its_code(folder):
    torch.save({"lin0.model.1.weight": Hostile(folder / "harmed")}, folder / "alex.pth")
    message = message_of("alex", folder, cache=folder)
    assert message.startswith(f"{folder / 'alex.pth'}: asks to build or call")
    assert not (folder / "harmed").exists()


def test_weights_of_another_shape_are_named(folder, weights):
    write_heads(folder, {**weights["alex"], "heads.3.weight": torch.zeros(1, 512, 1, 1)})
    message = message_of("alex", folder, cache=folder)
    expected = "heads.3.weight has the shape [1, 512, 1, 1], expected [1, 256, 1, 1]"
    assert message == f"{folder / 'alex.pth'}: {expected}; get another file"


@pytest.mark.parametrize("value", [None, 3])
def test_weights_that_are_not_there_are_named(folder, weights, value):
    trunk = {name: tensor for name, tensor in weights["alex"].items() if name.startswith("features.")}
    torch.save(trunk | {"features.6.bias": value}, folder / TRUNK["alex"])
    message = message_of("alex", folder, cache=folder)
    assert message.startswith(f"{folder / TRUNK['alex']}: holds no weights named features.6.bias")


def test_the_files_of_another_network_are_refused(tmp_path, weights):
    save_file(weights["alex"], tmp_path / "alex.safetensors")
    assert "features.0.weight has the shape" in message_of("vgg", tmp_path / "alex.safetensors", cache=tmp_path)


# Fetching them, from files that stand for the published ones


@pytest.fixture
def published(folder, monkeypatch):
    def publish(checksum=lambda file: hashlib.sha256(file.read_bytes()).hexdigest()):
        files = [folder / TRUNK["alex"], folder / "alex.pth"]
        stand_ins = tuple(WeightFile(file.as_uri(), checksum(file)) for file in files)
        monkeypatch.setitem(lpips_weights.FILES, "alex", stand_ins)

    return publish


def test_missing_files_are_fetched_once_and_told_before(folder, weights, published):
    published()
    told = []
    cache = folder / "cache"
    for _ in range(2):
        module = load_lpips("alex", None, cache=cache, download=True, say=told.append)
        assert equal_weights(module, weights["alex"])
    assert sorted(path.name for path in cache.iterdir()) == ["alex.pth", TRUNK["alex"]]
    assert told == [
        f"fetching {name} from {(folder / name).as_uri()} into {cache}" for name in (TRUNK["alex"], "alex.pth")
    ]


def test_nothing_is_fetched_unasked(folder, published):
    published()
    told = []
    assert "lacks" in message_of("alex", None, cache=folder / "cache", say=told.append)
    assert told == []
    assert not (folder / "cache").exists()


def test_a_wrong_checksum_is_refused_and_the_file_not_kept(folder, published):
    published(lambda file: "0" * 64)
    message = message_of("alex", None, cache=folder / "cache", download=True)
    found = hashlib.sha256((folder / TRUNK["alex"]).read_bytes()).hexdigest()
    assert f'invalid hash value (expected "{"0" * 64}", got "{found}")' in message
    assert list((folder / "cache").iterdir()) == []


def test_an_address_that_does_not_answer_is_told(folder, published):
    published()
    (folder / TRUNK["alex"]).unlink()
    message = message_of("alex", None, cache=folder / "cache", download=True)
    assert message.startswith(f"{folder / 'cache' / TRUNK['alex']}: could not be fetched from file:///")
    assert list((folder / "cache").iterdir()) == []


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "grn" / "lpips"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "grn" / "lpips"
