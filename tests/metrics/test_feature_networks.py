"""Feature networks by name, file and run: how each is called, what it promises, and what is refused."""

import hashlib
import os
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from grncli.metrics import feature_networks
from grncli.metrics.feature_networks import PUBLISHED, load_feature_network
from grncli.models.inception import InceptionV3
from grncli.models.tokenizer import to_input
from grncli.models.unfilled import made_on_meta
from grncli.runs.importing import import_released
from grncli.runs.tokenizers import open_tokenizer
from grncli.runs.weight_files import WeightFile
from grncli.runtime.errors import CheckpointError, GrnError

FIDELITY, STYLEGAN = PUBLISHED["inception"]
(I3D,) = PUBLISHED["i3d"]


class Classifier(nn.Module):
    """Called as StyleGAN's Inception is: features are a picture's mean colours, logits twice these."""

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        assert img.dtype == torch.uint8
        features = img.float().mean(dim=(2, 3))
        if return_features:
            return features
        return (2 * features if no_output_bias else 2 * features + 1).softmax(dim=1)


class Perceptual(nn.Module):
    """Features of pictures alone."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        return img.float().mean(dim=(2, 3)) * (1 if return_features else 0)


class Video(nn.Module):
    """Called as StyleGAN-V's I3D is."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert rescale
        assert resize
        assert return_features
        if x.shape[2] < 3:
            raise ValueError("three frames or more")
        return x.mean(dim=(3, 4)).flatten(1)


class Plain(nn.Module):
    """One argument, and weights."""

    def __init__(self):
        super().__init__()
        self.project = nn.Conv2d(3, 5, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.project(pictures / 255).amax(dim=(2, 3))


class Deranged(nn.Module):
    """Output that is no feature vector for each picture, according to ``how``."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        means = x.float().mean(dim=(2, 3))
        if self.how == "nan":
            return means / 0 * 0
        if self.how == "infinite":
            return means + float("inf")
        if self.how == "integer":
            return means.long()
        if self.how == "map":
            return x.float()
        return means[:1]


class Pair(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Flagged(nn.Module):
    def forward(self, x: Tensor, return_features: bool, mode: int) -> Tensor:
        return x


class Headless(nn.Module):
    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def script(tmp_path):
    def save(module, name="network.pt"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(module).save(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def load(tmp_path):
    return lambda which, **options: load_feature_network(which, cache=tmp_path / "cache", **options)


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """Let a file pass for the published one of a name, on a server and in the cache."""

    def stand_in(name, file, *, cached=True):
        known = WeightFile(file.as_uri(), hashlib.sha256(file.read_bytes()).hexdigest())
        monkeypatch.setattr(feature_networks, "PUBLISHED", {**PUBLISHED, name: (known,)})
        if cached:
            (tmp_path / "cache").mkdir()
            (tmp_path / "cache" / file.name).write_bytes(file.read_bytes())

    return stand_in


@pytest.fixture(scope="session")
def inception_weights():
    """Random ones; batch norm passes what it is given, and older files lack its counters."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, tensor in made_on_meta(InceptionV3).state_dict().items():
        if tensor.dim() > 1:
            weights[name] = torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        elif not name.endswith("num_batches_tracked"):
            weights[name] = torch.full(tensor.shape, float(name.endswith(("running_var", "bn.weight"))))
    return weights


@pytest.fixture(scope="session")
def inception_file(inception_weights, tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(inception_weights, file)
    return file


@pytest.fixture(scope="session")
def tokenizer_run(make_tokenizer, in_released_layout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    torch.save({"ema": in_released_layout(make_tokenizer())}, folder / "released.ckpt")
    import_released(folder / "released.ckpt", folder / "run")
    return folder / "run"


def draw_frames(*shape, seed=0):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def message_of(call, *arguments, error=CheckpointError, **named):
    with pytest.raises(error) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Networks of pictures


def test_stylegans_call_gives_features_of_every_frame(script, load, tmp_path):
    network = load(script(Classifier(), "mine.pt"))
    frames = draw_frames(2, 3, 8, 6)
    features = network(frames)
    assert features.values.dtype == torch.float32
    assert torch.allclose(features.values, frames.float().mean(dim=(2, 3)).flatten(0, 1))
    assert features.probabilities is None
    assert (network.name, network.takes, network.classifies) == ("mine.pt", "images", True)
    assert (network.frechet, network.known) == ("fd", False)
    assert network.sha256 == hashlib.sha256((tmp_path / "mine.pt").read_bytes()).hexdigest()


def test_stylegans_call_gives_probabilities_without_the_bias(script, load):
    frames = draw_frames(2, 1, 4, 4)
    found = load(script(Classifier()))(frames, probabilities=True)
    assert torch.allclose(found.probabilities, (2 * found.values).softmax(dim=1))


@pytest.mark.parametrize("module", [Perceptual(), Plain()])
def test_networks_without_classes_give_no_probabilities(script, load, module):
    network = load(script(module))
    found = network(draw_frames(2, 1, 4, 4), probabilities=True)
    assert found.values.abs().sum() > 0
    assert not network.classifies
    assert found.probabilities is None


def test_a_network_of_one_argument_is_given_pictures(script, load):
    module = Plain()
    frames = draw_frames(2, 2, 5, 7)
    expected = module(frames.flatten(0, 1).permute(0, 3, 1, 2))
    assert torch.allclose(load(script(module))(frames).values, expected, atol=1e-6)


def test_many_frames_pass_in_batches_and_come_back_in_order(script, load):
    frames = draw_frames(1, 2 * feature_networks.BATCH + 1, 2, 2)
    found = load(script(Classifier()))(frames, probabilities=True)
    assert torch.allclose(found.values, frames[0].float().mean(dim=(1, 2)))
    assert len(found.probabilities) == len(found.values)


@pytest.mark.parametrize("module", [Classifier(), Plain()])
def test_the_same_batch_gives_the_same_features_again(script, load, module):
    network, frames = load(script(module)), draw_frames(3, 1, 32, 32)
    first = network(frames).values
    for _ in range(4):
        assert torch.equal(network(frames).values, first)


# Networks of clips


def test_i3ds_call_gives_one_feature_for_each_clip(script, load):
    network = load(script(Video()))
    frames = draw_frames(2, 4, 8, 6)
    found = network(frames, probabilities=True)
    assert torch.allclose(found.values, frames.float().mean(dim=(2, 3)).transpose(1, 2).flatten(1))
    assert found.probabilities is None
    assert (network.takes, network.classifies, network.frechet) == ("clips", False, "fd")
    assert network.size_note.startswith("224x224")


def test_a_network_of_clips_refuses_single_pictures(script, load):
    message = message_of(load(script(Video(), "video.pt")), draw_frames(2, 1, 8, 6), error=ValueError)
    assert message == "video.pt takes clips, it was given single pictures; choose a network of images"


def test_a_failing_network_is_told_in_one_sentence(script, load):
    message = message_of(load(script(Video(), "video.pt")), draw_frames(2, 2, 8, 6), error=GrnError)
    assert message.startswith("video.pt: fails on torch.float32 input of the shape [2, 3, 2, 8, 6] (")
    assert "three frames or more" in message


# Our Inception


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_weights_of_inception_are_told_by_what_the_file_holds(
    inception_file, inception_weights, load, tmp_path, suffix
):
    file = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        file.symlink_to(inception_file)
    else:
        save_file(inception_weights, file)
    network = load(file)
    assert (network.name, network.takes, network.classifies, network.frechet) == (file.name, "images", True, "fd")
    weights = network.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in inception_weights.items())


def test_inception_gives_features_and_probabilities(inception_file, load):
    network = load(inception_file)
    frames = draw_frames(1, 2, 16, 16)
    found = network(frames, probabilities=True)
    features, logits = network.network(frames[0].permute(0, 3, 1, 2))
    assert torch.equal(found.values, features)
    assert torch.allclose(found.probabilities, logits.softmax(dim=1))
    assert found.probabilities.shape == (2, 1008)
    assert network.size_note == "299x299, bilinear as in TensorFlow 1 (inside the network)"


def test_weights_of_something_else_are_refused(load, tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    message = message_of(load, tmp_path / "other.pth")
    assert message.startswith(f"{tmp_path / 'other.pth'}: holds no weights named Conv2d_1a_3x3.conv.weight; expected")


def test_weights_of_another_inception_are_refused(load, tmp_path, inception_weights):
    torch.save({**inception_weights, "fc.weight": torch.zeros(1000, 2048)}, tmp_path / "other.pth")
    assert "fc.weight has the shape [1000, 2048], expected [1008, 2048]" in message_of(load, tmp_path / "other.pth")


# Tokenizers


@pytest.mark.parametrize("frames", [1, 5])
def test_a_tokenizer_gives_mean_and_deviation_over_tokens(tokenizer_run, make_tokenizer, load, frames):
    network = load(tokenizer_run)
    clips = draw_frames(2, frames, 32, 16)
    found = network(clips, probabilities=True)
    tokens = make_tokenizer().encode(to_input(clips)).flatten(2)
    assert found.values.shape == (2, 8)
    assert torch.allclose(found.values[:, :4], tokens.mean(dim=2), atol=1e-5)
    assert torch.allclose(found.values[:, 4:], tokens.std(dim=2, correction=0), atol=1e-5)
    assert found.probabilities is None


def test_a_tokenizer_is_known_by_its_run(tokenizer_run, load):
    network = load(str(tokenizer_run))
    assert {"name": network.name, "sha256": network.sha256} == open_tokenizer(tokenizer_run).identity
    assert (network.takes, network.frechet, network.known) == ("samples", "fd", False)


def test_a_network_replaced_while_it_is_read_is_refused(script, load, tmp_path, monkeypatch):
    file, other = script(Perceptual()), script(Perceptual(), "other.pt")
    read = feature_networks.load_torchscript

    def replaced(path):
        os.replace(other, path)
        return read(path)

    monkeypatch.setattr(feature_networks, "load_torchscript", replaced)
    assert message_of(load, file) == f"{file}: was replaced while it was read; run the command again"


def test_sizes_off_the_stride_are_refused(tokenizer_run, load):
    message = message_of(load(tokenizer_run), draw_frames(1, 1, 30, 16), error=ValueError)
    assert message == "frames are 30x16, expected multiples of the stride 16x16"


def test_a_directory_that_is_no_run_is_refused(load, tmp_path):
    assert "holds no recipe.yaml, expected a run directory" in message_of(load, tmp_path)


# What goes in and comes out


@pytest.mark.parametrize("frames", [torch.zeros(1, 1, 4, 4, 3), draw_frames(1, 4, 4), draw_frames(1, 1, 4, 4)[..., :1]])
def test_other_input_is_refused(script, load, frames):
    message = message_of(load(script(Plain())), frames, error=ValueError)
    assert message.startswith("network.pt was given [1, ")
    assert message.endswith("expected uint8 [B, T, H, W, 3]")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("nan", "gives features that are not finite numbers; its weights may be damaged"),
        ("infinite", "gives features that are not finite numbers; its weights may be damaged"),
        ("integer", "gives features of the form torch.int64 [2, 3], expected float [2, D]"),
        ("map", "gives features of the form torch.float32 [2, 3, 4, 4], expected float [2, D]"),
        ("few", "gives 1 vectors of features for 2 inputs; choose another one"),
    ],
)
def test_output_that_is_no_vector_of_finite_numbers_for_each_picture_is_refused(script, load, how, expected):
    network = load(script(Deranged(how)))
    assert message_of(network, draw_frames(2, 1, 4, 4), error=GrnError) == f"network.pt: {expected}"


# Files that are refused


@pytest.mark.parametrize(
    ("module", "arguments"), [(Pair(), "x, y"), (Flagged(), "x, return_features, mode"), (Headless(), "")]
)
def test_a_network_with_another_call_is_refused(script, load, module, arguments):
    file = script(module)
    assert message_of(load, file).startswith(f"{file}: takes the arguments ({arguments}), expected a network of one")


class Hostile:
    """Unpickled by Python, this makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_does_not_run_its_code(load, tmp_path, zipped):
    file = tmp_path / "hostile.pth"
    torch.save({"fc.bias": Hostile(tmp_path / "harmed")}, file, _use_new_zipfile_serialization=zipped)
    assert message_of(load, file).startswith(f"{file}: asks to build or call")
    assert not (tmp_path / "harmed").exists()


def test_a_hostile_pickle_that_passes_for_torchscript_is_refused(load, tmp_path):
    file = tmp_path / "hostile.pt"
    torch.save({"fc.bias": Hostile(tmp_path / "harmed")}, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("hostile/code/__torch__.py", "")
        archive.writestr("hostile/constants.pkl", archive.read("hostile/data.pkl"))
    assert message_of(load, file).startswith(f"{file}: cannot be read as TorchScript (")
    assert not (tmp_path / "harmed").exists()


def test_a_file_that_is_no_network_is_refused(load, tmp_path):
    (tmp_path / "notes.txt").write_text("not a network")
    assert "is no PyTorch checkpoint, or a damaged one" in message_of(load, tmp_path / "notes.txt")


@pytest.mark.parametrize("kind", ["script", "weights", "safetensors"])
def test_a_truncated_file_is_refused(load, script, tmp_path, kind):
    file = tmp_path / "cut"
    if kind == "script":
        whole = script(Plain())
    elif kind == "weights":
        whole = tmp_path / "weights.pth"
        torch.save({"fc.bias": torch.zeros(1008)}, whole)
    else:
        whole = tmp_path / "weights.safetensors"
        save_file({"fc.bias": torch.zeros(1008)}, whole)
    content = whole.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    assert message_of(load, file).startswith(f"{file}: ")


def test_what_is_not_there_is_told(load, tmp_path):
    message = message_of(load, tmp_path / "gone.pt")
    assert message == (
        f"{tmp_path / 'gone.pt'}: is not there, expected inception, i3d, a file or the run directory of a tokenizer"
    )


# Published files


@pytest.mark.parametrize(("name", "file"), [("inception", FIDELITY), ("i3d", I3D)])
def test_an_empty_cache_is_told_with_what_it_lacks(load, tmp_path, name, file):
    message = message_of(load, name)
    assert message == (
        f"{tmp_path / 'cache'}: lacks {file.name} ({file.url}, sha256 {file.sha256}); "
        "put what is missing there, or add --download"
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("name", "file"), [("inception", FIDELITY), ("inception", STYLEGAN), ("i3d", I3D)])
def test_another_file_under_a_published_name_is_an_error(script, load, tmp_path, name, file):
    (tmp_path / "cache").mkdir()
    script(Classifier(), f"cache/{file.name}")
    message = message_of(load, name)
    assert message.startswith(f"{tmp_path / 'cache' / file.name}: has the sha256 ")
    assert message.endswith(f"expected {file.sha256} of {file.url}; remove it and get that one")


@pytest.mark.parametrize(("name", "module", "frechet"), [("inception", Classifier(), "fid"), ("i3d", Video(), "fvd")])
def test_published_weights_are_known_in_the_cache_and_elsewhere(script, load, publish, name, module, frechet):
    file = script(module, "anything.pt")
    publish(name, file)
    for which in (name, file):
        network = load(which)
        assert (network.name, network.frechet, network.known) == (name, frechet, True)


def test_published_weights_of_inception_are_known_as_well(load, publish, inception_file):
    publish("inception", inception_file)
    network = load("inception")
    assert (network.name, network.frechet, network.known) == ("inception", "fid", True)


def test_a_file_called_like_a_published_network_is_not_it(script, load):
    network = load(script(Classifier(), "inception"))
    assert (network.name, network.frechet, network.known) == ("inception", "fd", False)


def test_a_published_file_is_fetched_if_asked_and_told_before(script, load, publish, tmp_path):
    file = script(Video(), "video.pt")
    publish("i3d", file, cached=False)
    told = []
    for _ in range(2):
        assert load("i3d", download=True, say=told.append).known
    assert told == [f"fetching video.pt from {file.as_uri()} into {tmp_path / 'cache'}"]


def test_published_files_have_the_names_people_know():
    assert [file.name for files in PUBLISHED.values() for file in files] == [
        "weights-inception-2015-12-05-6726825d.pth",
        "inception-2015-12-05.pt",
        "i3d_torchscript.pt",
    ]
