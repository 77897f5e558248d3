"""Files of other authors: found under their names, fetched only if asked, kept only if they are what was published."""

import hashlib

import pytest
import torch

from grncli.runs.weight_files import (
    WeightFile,
    find_weights,
    present_weights,
    take_weights,
)
from grncli.runtime.cache_folder import default_cache
from grncli.runtime.errors import CheckpointError

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def published(tmp_path):
    """A file that stands for one on a server."""
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "net.pth").write_bytes(CONTENT)
    return WeightFile((tmp_path / "server" / "net.pth").as_uri(), SHA256)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def find(cache, file, *, download=False, say=lambda text: None):
    return find_weights(cache, [file], download=download, say=say, remedy="add --download")[0]


def message_of(call, *arguments, **named):
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_called_as_its_address_ends_or_as_is_said():
    assert WeightFile("https://a/b/net.pth", "12").name == "net.pth"
    assert WeightFile("https://a/b/net.pt?dl=1", "12", name="net.pt").name == "net.pt"


def test_a_file_that_lies_there_is_found_whatever_its_checksum(cache, published):
    cache.mkdir()
    (cache / "net.pth").write_bytes(b"other")
    assert find(cache, published) == cache / "net.pth"


def test_a_twin_is_found_first_where_it_may_stand_in(cache, published):
    cache.mkdir()
    (cache / "net.safetensors").write_bytes(b"twin")
    assert present_weights(cache, published) is None
    twinned = WeightFile(published.url, SHA256, twin=True)
    assert present_weights(cache, twinned) == cache / "net.safetensors"
    (cache / "net.pth").write_bytes(CONTENT)
    assert present_weights(cache, twinned) == cache / "net.safetensors"


def test_what_is_missing_is_told_with_address_checksum_place_and_remedy(cache, published):
    other = WeightFile("https://example.org/heads.pth", "0123abcd")
    message = message_of(
        find_weights, cache, [published, other], download=False, say=lambda text: None, remedy="add --download"
    )
    assert message == (
        f"{cache}: lacks net.pth ({published.url}, sha256 {SHA256}) and "
        "heads.pth (https://example.org/heads.pth, sha256 0123abcd...); "
        "put what is missing there, or add --download"
    )
    assert not cache.exists()


def test_a_missing_file_is_fetched_once_and_told_before(cache, published):
    told = []
    for _ in range(2):
        assert find(cache, published, download=True, say=told.append).read_bytes() == CONTENT
    assert told == [f"fetching net.pth from {published.url} into {cache}"]
    assert [path.name for path in cache.iterdir()] == ["net.pth"]


@pytest.mark.parametrize("sha256", [SHA256[:8], SHA256])
def test_the_beginning_of_a_checksum_is_enough(cache, published, sha256):
    assert find(cache, WeightFile(published.url, sha256), download=True).is_file()


def test_a_wrong_checksum_is_refused_and_nothing_kept(cache, published):
    message = message_of(find, cache, WeightFile(published.url, "0" * 64), download=True)
    assert message.startswith(f"{cache / 'net.pth'}: could not be fetched from {published.url} (invalid hash value")
    assert message.endswith(f"put the file with sha256 {'0' * 64} there by hand or try again")
    assert list(cache.iterdir()) == []


def test_an_address_that_does_not_answer_is_told(cache, tmp_path):
    message = message_of(find, cache, WeightFile((tmp_path / "gone.pth").as_uri(), SHA256), download=True)
    assert message.startswith(f"{cache / 'gone.pth'}: could not be fetched from file:///")
    assert list(cache.iterdir()) == []


def test_tensors_are_taken_by_name_in_float32_and_the_rest_left(tmp_path):
    contents = {"a": torch.ones(2, dtype=torch.float16), "more": 3}
    taken = take_weights(contents, {"a": torch.empty(2, device="meta")}, tmp_path / "net.pth", "Net")
    assert taken.keys() == {"a"}
    assert torch.equal(taken["a"], torch.ones(2))


@pytest.mark.parametrize("contents", [{}, {"a": 3}])
def test_a_tensor_that_is_not_there_is_named(tmp_path, contents):
    message = message_of(take_weights, contents, {"a": torch.zeros(2)}, tmp_path / "net.pth", "Net")
    assert message == f"{tmp_path / 'net.pth'}: holds no weights named a; expected those of Net, get another file"


def test_a_tensor_of_another_shape_is_named(tmp_path):
    message = message_of(take_weights, {"a": torch.zeros(3)}, {"a": torch.zeros(2)}, tmp_path / "net.pth", "Net")
    assert message == f"{tmp_path / 'net.pth'}: a has the shape [3], expected [2]; get another file"


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "grn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "grn"
