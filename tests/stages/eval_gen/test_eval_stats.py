"""Statistics files, by ``grn eval stats``."""

import numpy as np
import pytest
from compared_samples import one_sentence, place

from grncli.metrics.statistics_files import read_statistics

# Statistics


def test_statistics_are_what_numpy_reads_as_mean_and_covariance(forms):
    with np.load(place(forms, "statistics"), allow_pickle=False) as file:
        assert {name: file[name].shape for name in ("mu", "sigma", "count")} == {
            "mu": (3,),
            "sigma": (3, 3),
            "count": (),
        }


def test_statistics_remember_what_they_were_made_of(forms):
    about = read_statistics(place(forms, "statistics")).about
    assert (about["made_of"], about["picture"]) == (str(forms / "folder"), [16, 16])
    assert about["network"]["name"] == "colours.pt"


def test_stats_refuse_to_overwrite(grn_inside, real, options, tmp_path):
    out = tmp_path / "s.npz"
    out.write_bytes(b"mine")
    assert "add --overwrite" in one_sentence(grn_inside("eval", "stats", real, out, *options), 2)
    assert out.read_bytes() == b"mine"


def test_stats_overwrite_where_asked_to(grn_inside, real, options, tmp_path):
    out = tmp_path / "s.npz"
    out.write_bytes(b"mine")
    assert grn_inside("eval", "stats", real, out, *options, "--overwrite").returncode == 0
    assert read_statistics(out).count == 15


@pytest.mark.parametrize(("keep", "shape"), [((), None), (("--keep-features",), (15, 3))])
def test_features_are_kept_where_asked_for(grn_inside, real, options, tmp_path, keep, shape):
    assert grn_inside("eval", "stats", real, tmp_path / "s.npz", *options, *keep).returncode == 0
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        assert (file["features"].shape if "features" in file else None) == shape


def test_stats_of_pictures_that_differ_in_size_are_refused(grn_inside, options, mixed):
    done = grn_inside("eval", "stats", mixed, mixed / "s.npz", *options)
    assert "expected one size" in one_sentence(done, 2)
    assert not (mixed / "s.npz").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("s.npy", "ends in .npz"), ("none/s.npz", "no such folder"), ("d.npz", "is a folder")]
)
def test_stats_go_to_a_file_that_can_be(grn_inside, real, options, tmp_path, name, words):
    (tmp_path / "d.npz").mkdir()
    assert words in one_sentence(grn_inside("eval", "stats", real, tmp_path / name, *options), 2)
