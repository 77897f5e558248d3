"""Files of statistics: what goes in comes out, and what is refused."""

import io
import json
import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from grncli.evaluation.picture_arrays import holds_pictures
from grncli.evaluation.reference_statistics import check_together
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.statistics_files import (
    Distribution,
    holds_statistics,
    read_statistics,
    same_network,
    write_statistics,
)
from grncli.runtime.errors import GrnError, MediaError, UsageError

NETWORK = {"name": "mine.pt", "sha256": "5" * 64, "input": "as decoded"}


def drawn(dimensions=4, count=9, *, src="photos", network=NETWORK, features=True):
    """A distribution of random features."""
    rows = np.random.default_rng(0).normal(size=(count, dimensions)).astype(np.float32)
    file = FeatureFile(dimensions)
    for place, vector in enumerate(rows):
        file.put(np.array([place]), vector[None])
    about = {"src": src, "size": "native", **({"network": network} if network else {})}
    return Distribution(
        mean=rows.mean(axis=0, dtype=np.float64),
        covariance=np.cov(rows.T.astype(np.float64)),
        count=count,
        features=file if features else None,
        about=about,
    )


# Files that are read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "photos.npz"


def test_a_file_gives_back_every_number(path):
    written = drawn()
    write_statistics(path, written, features=True)
    found = read_statistics(path)
    assert np.array_equal(found.mean, written.mean)
    assert np.array_equal(found.covariance, written.covariance)
    every = np.arange(len(written.features))
    assert np.array_equal(found.features.read(every), written.features.read(every))
    assert found.count == written.count


def test_a_file_says_what_it_was_made_of(path):
    write_statistics(path, drawn(src="photos/train"))
    found = read_statistics(path)
    assert found.about == {
        "src": str(path),
        "made_of": "photos/train",
        "size": "native",
        "count": found.count,
        "network": NETWORK,
    }
    assert found.name == str(path)


def test_features_are_written_if_asked(path):
    write_statistics(path, drawn())
    assert read_statistics(path).features is None


def test_other_codes_find_mu_and_sigma(path):
    written = drawn()
    write_statistics(path, written, features=True)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file)
        assert np.array_equal(file["mu"], written.mean)
        assert np.array_equal(file["sigma"], written.covariance)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_layout_of_torch_fidelity_is_read(path, kind):
    there = drawn()
    np.savez(path, mu=there.mean.astype(kind), sigma=there.covariance.astype(kind))
    found = read_statistics(path)
    assert found.mean.dtype == found.covariance.dtype == np.float64
    assert np.allclose(found.covariance, there.covariance, rtol=1e-6)
    assert (found.count, found.features, found.about) == (None, None, {"src": str(path)})


def test_the_layout_of_guided_diffusion_is_read(path):
    there, space = drawn(4), drawn(7)
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(path, mu=there.mean, sigma=there.covariance, mu_s=space.mean, sigma_s=space.covariance, arr_0=pictures)
    assert np.array_equal(read_statistics(path).covariance, there.covariance)
    assert holds_statistics(path)
    assert holds_pictures(path)


def test_pictures_and_statistics_are_told_apart(path):
    write_statistics(path, drawn())
    pictures = path.with_name("samples.npz")
    np.savez(pictures, arr_0=np.zeros((3, 4, 5, 3), np.uint8))
    assert (holds_statistics(path), holds_pictures(path)) == (True, False)
    assert (holds_statistics(pictures), holds_pictures(pictures)) == (False, True)


# Files that are refused


def refusal(path, error=GrnError):
    """The one sentence that says why; it names the file."""
    with pytest.raises(error) as caught:
        read_statistics(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


SOUND = {"mu": np.zeros(3), "sigma": np.eye(3)}

ASYMMETRIC = np.array([[1, 0.5, 0], [0.4, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"mu": np.array([0, np.nan, 0])}, "not finite"),
        ({"sigma": np.diag([1, 1, np.inf])}, "not finite"),
        ({"sigma": ASYMMETRIC}, "sigma is not symmetric"),
        ({"mu": np.zeros((1, 3))}, r"mu \[1, 3\] and sigma \[3, 3\], expected \[D\] and \[D, D\]"),
        ({"mu": np.zeros(4)}, r"mu \[4\] and sigma \[3, 3\]"),
        ({"sigma": np.eye(3)[None]}, r"mu \[3\] and sigma \[1, 3, 3\]"),
        ({"mu": np.float64(0), "sigma": np.float64(1)}, r"mu \[\] and sigma \[\]"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"mu \[0\] and sigma \[0, 0\]"),
        ({"mu": np.array(["a", "b", "c"])}, "cannot be read as statistics"),
        ({"count": np.array([3, 4])}, "cannot be read as statistics"),
        ({"grn": np.array("{")}, "cannot be read as statistics"),
        ({"grn": np.array("[1]")}, "make it again"),
        pytest.param(
            {"count": np.array(np.inf)},
            "",
        ),
        pytest.param(
            {"grn": np.array("[" * 100_000)},
            "",
        ),
        pytest.param(
            {"features": np.full((5, 3), np.nan)},
            "not finite",
        ),
        pytest.param(
            {"features": np.zeros((5, 2))},
            "features",
        ),
    ],
)
def test_numbers_that_are_no_statistics_are_refused(path, arrays, expected):
    np.savez(path, **{**SOUND, **arrays})
    assert re.search(expected, refusal(path))


def test_an_asymmetric_covariance_is_a_media_error_as_other_damage_is(path):
    np.savez(path, mu=np.zeros(3), sigma=ASYMMETRIC)
    refusal(path, MediaError)


def test_rounding_does_not_make_a_covariance_asymmetric(path):
    """One of another code, whose sums went in another order."""
    covariance = np.cov(np.random.default_rng(0).normal(size=(3, 50)) * 30)
    covariance[0, 1] *= 1 + 1e-6
    np.savez(path, mu=np.zeros(3), sigma=covariance)
    assert read_statistics(path).covariance.shape == (3, 3)


@pytest.mark.parametrize("lacking", ["mu", "sigma"])
def test_files_without_mu_or_sigma_are_refused(path, lacking):
    np.savez(path, **{name: array for name, array in SOUND.items() if name != lacking})
    assert lacking in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(path, share):
    write_statistics(path, drawn())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(path, MediaError)


def test_an_empty_file_is_refused(path):
    path.write_bytes(b"")
    refusal(path, MediaError)


@pytest.mark.parametrize("content", [b"not statistics at all", b"PK\x03\x04 and no more", bytes(100)])
def test_files_of_something_else_are_refused(path, content):
    path.write_bytes(content)
    refusal(path, MediaError)


def test_a_single_array_is_refused(path):
    with path.open("wb") as file:
        np.save(file, np.eye(3))
    refusal(path, MediaError)


def test_what_is_not_there_is_refused(path):
    refusal(path, MediaError)


class Hostile:
    """Unpickled by Python, this makes a folder."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("name", ["mu", "sigma", "grn", "count", "features"])
def test_pickled_objects_are_refused_and_do_not_run_their_code(path, tmp_path, name):
    np.savez(path, **{**SOUND, name: np.array([Hostile(tmp_path / "harmed")], object)})
    refusal(path, MediaError)
    assert not (tmp_path / "harmed").exists()


def test_a_pickle_is_refused_and_does_not_run_its_code(path, tmp_path):
    path.write_bytes(pickle.dumps({"mu": Hostile(tmp_path / "harmed")}))
    refusal(path, MediaError)
    assert not (tmp_path / "harmed").exists()


def flipped(content, step):
    """The file with one byte or another turned over."""
    for i in range(0, len(content), step):
        yield content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_never_gives_other_numbers(path, save):
    save(path, **SOUND)
    read = 0
    for damaged in flipped(path.read_bytes(), 3):
        path.write_bytes(damaged)
        try:
            found = read_statistics(path)
        except Exception:
            continue
        read += 1
        assert np.array_equal(found.mean, SOUND["mu"])
        assert np.array_equal(found.covariance, SOUND["sigma"])
    assert read < len(damaged) / 6  # dates and the like may be damaged without harm


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_is_refused_in_a_sentence_if_at_all(path, save):
    save(path, mu=np.arange(20.0), sigma=np.diag(np.arange(20.0)))
    for damaged in flipped(path.read_bytes(), 2):
        path.write_bytes(damaged)
        try:
            read_statistics(path)
        except GrnError:
            refusal(path)


def archive(path, header):
    """An .npz whose ``mu`` starts so, and goes on no further."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mu.npy", header)
        stream = io.BytesIO()
        np.save(stream, SOUND["sigma"])
        file.writestr("sigma.npy", stream.getvalue())


def test_an_array_too_large_for_any_memory_is_refused(path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (2**45,)})
    archive(path, stream.getvalue())
    refusal(path, MediaError)


def test_a_header_too_long_is_refused_in_one_line(path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }" + b" " * 20_000 + b"\n"
    archive(path, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24))
    refusal(path, MediaError)


@pytest.mark.parametrize("ask", [holds_statistics, holds_pictures])
def test_what_a_damaged_archive_holds_is_refused_in_a_sentence(path, ask):
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(MediaError, match=rf"^{re.escape(str(path))}: is no \.npz file"):
        ask(path)


# Writing


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_file_that_was_there(path, monkeypatch, interruption):
    write_statistics(path, drawn(3))
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(b"PK half of it")
        raise interruption

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(interruption):
        write_statistics(path, drawn(5))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_by_the_next(path):
    for dimensions in (3, 5):
        write_statistics(path, drawn(dimensions))
    assert len(read_statistics(path).mean) == 5


# One network


def test_what_one_network_saw_can_be_compared():
    assert same_network(drawn(src="a"), drawn(src="b")) is None


def test_what_networks_of_other_weights_saw_is_refused():
    other = drawn(src="b", network={**NETWORK, "name": "other.pt", "sha256": "7" * 64})
    with pytest.raises(UsageError, match=r"^a was seen by mine\.pt \(5{12}\) and b by other\.pt \(7{12}\); make both"):
        same_network(drawn(src="a"), other)


@pytest.mark.parametrize("network", [NETWORK, None])
def test_features_of_other_lengths_are_refused(network):
    with pytest.raises(UsageError, match=r"^4 features of a and 5 of b are of two networks"):
        same_network(drawn(4, src="a"), drawn(5, src="b", network=network))


@pytest.mark.parametrize(
    ("ours", "theirs", "doubtful"), [(NETWORK, None, ["b"]), (None, NETWORK, ["a"]), (None, None, ["a", "b"])]
)
def test_a_network_that_is_not_said_is_a_doubt(ours, theirs, doubtful):
    doubts = check_together(drawn(src="a", network=ours), drawn(src="b", network=theirs), None)
    wanted = [f"{name} does not say which network made it" for name in doubtful]
    assert [doubt for doubt in doubts if "network" in doubt] == wanted


@pytest.mark.parametrize(
    "network", ["inception", None, {}, {"sha256": "5" * 64}, {**NETWORK, "sha256": ["5"]}, {**NETWORK, "input": 299}]
)
def test_a_file_that_names_its_network_otherwise_is_refused(path, network):
    np.savez(path, **SOUND, grn=np.array(json.dumps({"network": network})))
    with pytest.raises(MediaError, match="what it says of itself"):
        read_statistics(path)


@pytest.mark.parametrize("claimed", [(200_000, 200_000), (2,), (10**12,)])
def test_an_array_that_claims_another_size_is_refused_before_memory_is_taken(tmp_path, claimed):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": claimed})
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        for name in ("mu", "sigma"):
            archive.writestr(f"{name}.npy", buffer.getvalue() + bytes(8))
    with pytest.raises(
        MediaError, match=r"s\.npz: cannot be read as statistics \(mu\.npy is .*, which is not its size"
    ):
        read_statistics(tmp_path / "s.npz")
