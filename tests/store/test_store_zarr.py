"""Any Zarr v3 reader sees the same arrays."""

import warnings

import numpy as np
import pytest
from small_stores import fingerprint, random_bits, records, run

from grncli.store import grid_name, open_part, open_store

zarr = pytest.importorskip("zarr")

DIMENSIONS = ("sample", "time", "height", "width", "round", "byte")


@pytest.fixture
def store(tmp_path, small_chunks):
    for part in range(2):
        run(tmp_path / "store", part=part, parts=2)
    return open_store(tmp_path / "store")


def joined(store, read):
    """What a reader of single arrays sees of both parts, by grid."""
    return {
        grid: np.concatenate([read(f"part-{part:05d}", grid_name(grid)) for part in range(2)]) for grid in store.grids
    }


def test_one_filter_silences_what_zarr_says_of_our_other_files(store):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "Object at .* is not recognized as a component of a Zarr hierarchy")
        assert len(list(zarr.open_group(store.path, mode="r").members(max_depth=None))) > 2
    assert [str(warning.message) for warning in caught] == []


def test_zarr_sees_the_same_arrays(store):
    group = zarr.open_group(store.path, mode="r")
    assert group.attrs["grn"]["rounds"] == 3
    bits = joined(store, lambda part, grid: group[part][grid]["bits"][:])
    labels = joined(store, lambda part, grid: group[part][grid]["label"][:])
    seeds = joined(store, lambda part, grid: group[part][grid]["seed"][:])
    for grid in store.grids:
        view = store.grid(grid)
        np.testing.assert_array_equal(bits[grid], view.read(range(len(view))))
        np.testing.assert_array_equal(labels[grid], view.labels())
        np.testing.assert_array_equal(seeds[grid], view.column("seed"))
    assert group["part-00000"]["2x2x2"]["bits"].metadata.dimension_names == DIMENSIONS


def test_zarr_sees_the_committed_rows_of_an_incomplete_store(tmp_path, small_chunks):
    grid = (2, 2, 2)
    with open_part(tmp_path / "store", fingerprint()) as writer:
        for number in range(5):
            writer.append(grid, random_bits(3, grid, seed=number), None, records(3, str(number)))
            writer.commit(number + 1, "")
            array = zarr.open_array(tmp_path / "store" / "part-00000" / "2x2x2" / "bits", mode="r")
            view = open_store(tmp_path / "store").grid(grid)
            np.testing.assert_array_equal(array[:], view.read(range(len(view))))


def test_xarray_opens_a_grid_group_with_named_dimensions_and_without_warnings(store):
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = [
            xarray.open_zarr(store.path / "part-00000" / "2x2x2", consolidated=False),
            xarray.open_zarr(store.path / "part-00000", group="2x2x2", consolidated=False),
            xarray.open_zarr(store.path, group="part-00000/2x2x2", consolidated=False),
        ]
    for data in opened:
        assert data["bits"].dims == DIMENSIONS
        assert data["label"].dims == data["entropy"].dims == ("sample",)
        np.testing.assert_array_equal(data["bits"].values, store.grid((2, 2, 2)).read(range(6)))


@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")
def test_xarray_opens_a_whole_store_as_a_tree(store):
    xarray = pytest.importorskip("xarray")
    tree = xarray.open_datatree(store.path, engine="zarr", consolidated=False)
    bits = joined(store, lambda part, grid: tree[part][grid]["bits"].values)
    for grid in store.grids:
        np.testing.assert_array_equal(bits[grid], store.grid(grid).read(range(store.grids[grid])))
