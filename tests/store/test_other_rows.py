"""The row store knows no bits: rows of another kind, in a group of another name, are one more schema."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from small_stores import tree
from test_store_resume import killed_at

from grncli.runtime.errors import StoreError, StoreMismatch
from grncli.runtime.monitor import Monitor
from grncli.store import open_store
from grncli.store.rows.byte_source import LocalFiles
from grncli.store.rows.claiming import claim_part
from grncli.store.rows.row_reader import GroupView, RowStore
from grncli.store.rows.row_writer import RowWriter
from grncli.store.rows.schema import TEXT, Schema, array_layout, number_layout
from grncli.store.rows.verifying import verify_rows

TOKENS, WIDTH = 3, 5


@dataclass(frozen=True)
class Captions(Schema):
    """Features of a few tokens for each caption, and how many of them count."""

    encoder: str

    noun = "caption store"
    attribute = "captions"
    array_names = ("features", "length")
    group_field = "language"
    line_fields: ClassVar = {"language": TEXT, "caption": TEXT}
    required_fields = ("caption",)
    parts = 1

    def attributes(self):
        return {"captions": {"encoder": self.encoder}}

    def require_same(self, attributes, where, remedy):
        if attributes != self.attributes():
            raise StoreMismatch(f"{where} was made with another encoder. {remedy}")

    def group_order(self, name):
        return (len(name),) if name in ("en", "deu") else None

    def arrays(self, group):
        axes = {"token": TOKENS, "feature": WIDTH}
        return [array_layout("features", "float16", axes), number_layout("length", "int32")]

    def problems_in(self, layout, rows, path):
        if layout.name == "length" and rows.max() > TOKENS:
            yield f"{path} has lengths up to {rows.max()}, expected {TOKENS}."


SCHEMA = Captions("umt5")


def open_captions(path, schema=SCHEMA):
    columns = schema.declare([("score", "float32")])
    return RowWriter(path, schema, 0, columns, claim_part(path, schema, 0, None))


def values(number, n):
    features = np.random.default_rng(number).normal(size=(n, TOKENS, WIDTH)).astype(np.float16)
    return {"features": features, "length": np.arange(n) % (TOKENS + 1), "score": np.full(n, number)}


def write(path):
    with open_captions(path) as writer:
        for number in range(writer.position, 6):
            n = 1 + number % 3
            lines = [{"caption": f"{number}, {i}"} for i in range(n)]
            writer.append_rows("deu" if number % 2 else "en", values(number, n), lines)
            if number == 4:
                writer.fail("empty", number, "has no text")
            writer.commit(number + 1, "")
        writer.finish()


def read(path, schema=SCHEMA):
    return RowStore(LocalFiles(path), schema, GroupView)


def test_rows_of_another_kind_are_read_as_they_were_written(tmp_path, small_chunks):
    write(tmp_path / "captions")
    store = read(tmp_path / "captions")
    assert (store.complete, store.groups, len(store)) == (True, {"en": 6, "deu": 6}, 12)
    for name, numbers in (("en", (0, 2, 4)), ("deu", (1, 3, 5))):
        view = store.group(name)
        expected = [values(number, 1 + number % 3) for number in numbers]
        features = np.concatenate([block["features"] for block in expected])
        np.testing.assert_array_equal(view.read_rows("features", [5, 0, 3, 3]), features[[5, 0, 3, 3]])
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in view.chunks_of("features")]), features)
        for column in ("length", "score"):
            np.testing.assert_array_equal(view.column(column), np.concatenate([block[column] for block in expected]))
    assert store.record(7) == {"language": "deu", "row": 1, "caption": "1, 1"}
    assert [line["caption"] for line in store.records()][:3] == ["0, 0", "2, 0", "2, 1"]
    assert [line["source"] for line in store.failures()] == ["empty"]


def test_their_writer_stopped_anywhere_and_resumed_leaves_the_same_bytes(memory_disk, small_chunks):
    write(memory_disk / "expected")
    at, stopped = 0, True
    while stopped:
        at += 7
        path = memory_disk / f"killed-{at}"
        stopped = killed_at(path, at, write)
        write(path)
        assert tree(path) == tree(memory_disk / "expected"), f"stopped at change {at}"
    assert at > 100


def test_they_are_verified_by_checksum_and_by_what_their_schema_knows(tmp_path, small_chunks):
    write(tmp_path / "captions")
    source = LocalFiles(tmp_path / "captions")
    assert verify_rows(source, SCHEMA, Monitor()) == []
    chunk = tmp_path / "captions/part-00000/en/features/c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)
    (problem,) = verify_rows(source, SCHEMA, Monitor())
    assert problem.startswith(f"{chunk} has checksum ")
    with open_captions(tmp_path / "other") as writer:
        writer.append_rows("en", values(0, 1) | {"length": [9]}, [{"caption": "long"}])
        writer.commit(1, "")
    (problem,) = verify_rows(LocalFiles(tmp_path / "other"), SCHEMA, Monitor())
    assert "has lengths up to 9, expected 3" in problem


def test_what_does_not_fit_their_schema_is_refused(tmp_path):
    write(tmp_path / "captions")
    with pytest.raises(StoreMismatch, match="another encoder"):
        open_captions(tmp_path / "captions", Captions("clip"))
    with pytest.raises(StoreError, match="is a Zarr group but not a bit store"):
        open_store(tmp_path / "captions")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(StoreError, match="holds something else than a caption store"):
        open_captions(tmp_path / "photos")
    with open_captions(tmp_path / "new") as writer:
        with pytest.raises(ValueError, match=r"features is float32 \(1, 3, 5\), expected float16"):
            writer.append_rows("en", values(0, 1) | {"features": np.zeros((1, 3, 5), np.float32)}, [{"caption": ""}])
        with pytest.raises(ValueError, match="has no caption"):
            writer.append_rows("en", values(0, 1), [{"key": "a"}])


def test_any_zarr_reader_sees_them(tmp_path, small_chunks):
    zarr = pytest.importorskip("zarr")
    write(tmp_path / "captions")
    group = zarr.open_group(tmp_path / "captions", mode="r")["part-00000/deu"]
    np.testing.assert_array_equal(
        group["features"][:], read(tmp_path / "captions").group("deu").read_rows("features", range(6))
    )
    assert group["features"].metadata.dimension_names == ("sample", "token", "feature")
