"""The text-image score by two encoders of the user's: what they may be, what it is worth, and what is refused."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from grncli.metrics.text_image import load_text_image_network
from grncli.runtime.errors import CheckpointError, GrnError, UsageError

WORDS = {"[UNK]": 0, "red": 1, "green": 2, "blue": 3, "[END]": 4}
COLOURS = {"red": (255, 0, 0), "yellow": (255, 255, 0), "dark blue": (0, 0, 51), "black": (0, 0, 0)}


class CountedColours(nn.Module):
    """A text encoder of ids: how often each of three words stands in a text."""

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.one_hot(ids, 5).float().sum(1)[:, 1:4]


class Deranged(nn.Module):
    """Output that is no feature vector for each picture, according to ``how``."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, pictures: Tensor) -> Tensor:
        means = pictures.float().mean(dim=(2, 3))
        if self.how == "nan":
            return means * float("nan")
        if self.how == "wide":
            return torch.cat([means, means], dim=1)
        if self.how == "fails" and pictures.shape[2] > 0:
            raise ValueError("too small")
        return means[:1]


class Pair(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Numbers(nn.Module):
    def forward(self, x: list[int]) -> Tensor:
        return torch.tensor(x)


def pictures(*names):
    return torch.tensor([COLOURS[name] for name in names], dtype=torch.uint8)[:, None, None, :].expand(-1, 4, 6, 3)


@pytest.fixture
def vocabulary(tmp_path):
    """A tokenizer.json of whole words, which puts an end behind each text."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A [END]", special_tokens=[("[END]", 4)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize(
    ("picture", "text", "score"),
    [
        ("red", "a red star", 100),
        ("yellow", "a red star", 100 / math.sqrt(2)),
        ("yellow", "red and blue", 50),
        ("dark blue", "blue", 100),
        ("red", "blue", 0),
        ("red", "no red", 0),
        ("black", "red", 0),
        ("red", "something", 0),
    ],
)
def test_the_score_is_a_hundred_times_the_cosine_where_that_is_positive(colour_networks, picture, text, score):
    network = load_text_image_network(*colour_networks)
    found = network.score(network.images(pictures(picture)), network.texts([text]))
    assert found.tolist() == pytest.approx([score], abs=1e-5)


def test_more_pictures_and_texts_than_a_pass_takes_give_what_each_gives_alone(colour_networks):
    network = load_text_image_network(*colour_networks)
    names = [*COLOURS] * 20
    texts = [f"{name} {number}" for number, name in enumerate(["red", "blue", "no green"] * 25)]
    assert torch.equal(network.images(pictures(*names)), torch.cat([network.images(pictures(n)) for n in names]))
    assert torch.equal(network.texts(texts), torch.cat([network.texts([text]) for text in texts]))


def test_a_text_encoder_of_ids_reads_them_by_its_tokenizer_without_padding(colour_networks, save_script, vocabulary):
    network = load_text_image_network(colour_networks[0], save_script(CountedColours()), vocabulary)
    texts = ["red red blue", "green", "red blue red", "blue green"]
    found = network.texts(texts)
    expected = torch.tensor([[2, 0, 1], [0, 1, 0], [2, 0, 1], [0, 1, 1]]).double()
    assert torch.allclose(found, nn.functional.normalize(expected, dim=1))


def test_padding_and_truncation_are_those_of_the_tokenizers_file(colour_networks, save_script, vocabulary):
    settings = json.loads(vocabulary.read_text())
    settings["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    vocabulary.write_text(json.dumps(settings))
    network = load_text_image_network(colour_networks[0], save_script(CountedColours()), vocabulary)
    assert network.texts(["red blue green"]).tolist() == [[1, 0, 0]]


def test_exported_programs_give_what_torchscript_gives(colour_networks, save_script, vocabulary, tmp_path):
    batch, height, width, length = map(torch.export.Dim, ("batch", "height", "width", "length"))

    class Image(nn.Module):
        def forward(self, x):
            return x.float().flatten(2).mean(2) / 255

    for module, example, sizes, name in (
        (Image(), torch.zeros(2, 3, 4, 6, dtype=torch.uint8), {0: batch, 2: height, 3: width}, "image.pt2"),
        (CountedColours(), torch.ones(2, 3, dtype=torch.int64), {0: batch, 1: length}, "text.pt2"),
    ):
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=(sizes,)), tmp_path / name)
    exported = load_text_image_network(tmp_path / "image.pt2", tmp_path / "text.pt2", vocabulary)
    scripted = load_text_image_network(colour_networks[0], save_script(CountedColours()), vocabulary)
    assert torch.equal(exported.images(pictures("yellow", "red")), scripted.images(pictures("yellow", "red")))
    assert torch.equal(exported.texts(["red", "red blue"]), scripted.texts(["red", "red blue"]))


def test_networks_may_lie_in_a_folder_of_any_name(colour_networks, vocabulary, tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    program = torch.export.export(CountedColours(), (torch.ones(2, 3, dtype=torch.int64),))
    torch.export.save(program, tmp_path / "text.pt2")
    named = [shutil.copy(file, folder) for file in (colour_networks[0], tmp_path / "text.pt2", vocabulary)]
    found = load_text_image_network(*map(Path, named)).texts(["red blue", "green green"])
    assert found[1].tolist() == [0, 1, 0]


def test_an_exported_program_that_takes_one_size_only_is_named(colour_networks, tmp_path):
    class Image(nn.Module):
        def forward(self, x):
            return x.float().flatten(2).mean(2)

    program = torch.export.export(Image(), (torch.zeros(2, 3, 8, 8, dtype=torch.uint8),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    network = load_text_image_network(tmp_path / "fixed.pt2", colour_networks[1])
    with pytest.raises(GrnError, match=r"fixed\.pt2: fails on torch\.uint8 input of the shape \[2, 3, 4, 6\]"):
        network.images(pictures("red", "black"))


def test_reports_name_each_file_by_its_hash(colour_networks, save_script, vocabulary):
    about = load_text_image_network(colour_networks[0], save_script(CountedColours()), vocabulary).about()
    assert [about[part]["name"] for part in ("image", "text", "tokenizer")] == [
        "image.pt",
        "network.pt",
        "tokenizer.json",
    ]
    assert {len(about[part]["sha256"]) for part in ("image", "text", "tokenizer")} == {64}


def test_a_text_encoder_and_its_tokenizer_belong_together(colour_networks, save_script, vocabulary, tmp_path):
    image, text = colour_networks
    with pytest.raises(UsageError, match=r"network\.pt takes token ids, which need --text-image-tokenizer FILE"):
        load_text_image_network(image, save_script(CountedColours()))
    with pytest.raises(UsageError, match=r"text\.pt takes texts as they are; leave the option out"):
        load_text_image_network(image, text, vocabulary)
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "missing.json"):
        with pytest.raises(CheckpointError, match=rf"{name}: cannot be read as a tokenizer"):
            load_text_image_network(image, save_script(CountedColours()), tmp_path / name)


def test_files_that_are_no_such_network_are_refused(colour_networks, save_script, tmp_path):
    image, text = colour_networks
    with pytest.raises(CheckpointError, match=r"text\.pt: takes List\[str\], expected an image encoder"):
        load_text_image_network(text, text)
    with pytest.raises(CheckpointError, match=r"takes Tensor, Tensor, expected a network of one input"):
        load_text_image_network(save_script(Pair()), text)
    with pytest.raises(CheckpointError, match=r"takes List\[int\], expected a text encoder"):
        load_text_image_network(image, save_script(Numbers()))
    with pytest.raises(CheckpointError, match=r"missing\.pt: cannot be opened"):
        load_text_image_network(tmp_path / "missing.pt", text)
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt: is no exported network"):
        load_text_image_network(tmp_path / "weights.pt", text)
    content = image.read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.pt: is no exported network"):
        load_text_image_network(tmp_path / "cut.pt", text)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "gives features that are not finite numbers"),
        ("first", "gives 1 vectors of features for 2 inputs"),
        ("fails", r"fails on torch\.uint8 input of the shape \[2, 3, 4, 6\] \(.*too small\)"),
    ],
)
def test_a_network_that_gives_no_vectors_is_named(colour_networks, save_script, how, words):
    network = load_text_image_network(save_script(Deranged(how)), colour_networks[1])
    with pytest.raises(GrnError, match=rf"network\.pt: {words}"):
        network.images(pictures("red", "black"))


def test_encoders_of_different_widths_are_refused(colour_networks, save_script):
    network = load_text_image_network(save_script(Deranged("wide")), colour_networks[1])
    with pytest.raises(UsageError, match=r"gives 6 numbers for a picture and text\.pt 3 for a text"):
        network.score(network.images(pictures("red")), network.texts(["red"]))
