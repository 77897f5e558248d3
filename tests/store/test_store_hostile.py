"""Whatever the small files of a store say, reading it gives samples or one sentence, and never asks for much memory."""

import json
import random
import resource
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from small_stores import fingerprint, process, run, tree

from grncli.runs.describing import describe_store
from grncli.runtime.errors import GrnError, StoreError
from grncli.store import open_part, open_store, verify_store

COLUMNS = [("seed", "int64"), ("entropy", "float32")]
DEEP = '{"a":' * 900 + "1" + "}" * 900
VALUES = [None, True, -1, 0, 4.0, 1e400, float("nan"), 10**12, 2**70, "", "99999x99999x99999", "\x1b[31mred", [], {}]


@pytest.fixture(autouse=True)
def memory_for_small_stores_only():
    """More would be taken by the sizes that hostile files claim."""
    if not Path("/proc/self/status").exists():
        pytest.skip("how much memory this process has is not known here")
    before = resource.getrlimit(resource.RLIMIT_AS)
    lines = Path("/proc/self/status").read_text().splitlines()
    used = int(next(line for line in lines if line.startswith("VmSize")).split()[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def path(memory_disk, small_chunks):
    run(memory_disk / "store", sources=5)
    return memory_disk / "store"


def small_files(path):
    """Every file but the chunks."""
    return sorted(file for file in path.rglob("*") if file.suffix in (".json", ".jsonl"))


def use(path):
    """All that commands do with a store: only our own errors come out of it."""
    with suppress(GrnError):
        store = open_store(path)
        describe_store(store)
        for index in range(len(store)):
            assert store[index].bits.shape[:3] == store.grid_of(index)
            store.record(index)
        list(store.records())
        for grid in store.grids:
            list(store.grid(grid).chunks())
            for column in store.columns:
                store.grid(grid).column(column)
    with suppress(GrnError):
        assert all(problem and "\n" not in problem for problem in verify_store(path))
    with suppress(GrnError), open_part(path, fingerprint(), columns=COLUMNS) as writer:
        process(writer, 5)
        writer.commit(6, "")
        writer.finish()


@contextmanager
def kept(path):
    """The store as it was, after the block."""
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    yield
    for file in path.rglob("*"):
        if file.is_file() and file not in before:
            file.unlink()
    for file, content in before.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def test_a_changed_byte_is_an_error_of_ours_or_none(path):
    generator = random.Random(0)
    for file in small_files(path):
        for _ in range(4):
            with kept(path):
                data = bytearray(file.read_bytes())
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
                file.write_bytes(data)
                use(path)


def places(value, place=()):
    """Where a document has values, however deep."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*place, key))


def replaced(document, place, value):
    if not place:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[place[0]] = replaced(copy[place[0]], place[1:], value)
    return copy


@pytest.mark.parametrize("name", ["zarr.json", "part-00000/commit.json"])
def test_a_value_of_another_kind_or_size_is_an_error_of_ours_or_none(path, name):
    file = path / name
    document = json.loads(file.read_bytes())
    for number, place in enumerate(places(document)):
        for value in VALUES[number % 2 :: 2]:
            with kept(path):
                file.write_text(json.dumps(replaced(document, place, value)))
                use(path)


@pytest.mark.parametrize("name", ["samples.jsonl", "failures.jsonl"])
def test_a_line_with_another_value_is_an_error_of_ours_or_none(path, name):
    file = path / "part-00000" / name
    first, *others = file.read_text().splitlines(keepends=True)
    document = {**json.loads(first), "clip": 1, "flip": True, "fps": 8.0}
    for place in places(document):
        for value in VALUES:
            with kept(path):
                file.write_text(json.dumps(replaced(document, place, value)) + "\n" + "".join(others))
                use(path)


@pytest.mark.parametrize("name", ["zarr.json", "part-00000/commit.json", "part-00000/samples.jsonl"])
@pytest.mark.parametrize("content", [DEEP, "[" * 100_000, "1" * 5000, "\x00" * 100, "", "[]", "null"])
def test_a_document_of_another_kind_is_an_error_of_ours(path, name, content):
    (path / name).write_text(content)
    use(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 4.0}, r"field rounds is 4\.0, expected a whole number from 1 to 8"),
        ({"channels": 10**9}, "field channels is 1000000000, expected a whole number from 1 to 65536"),
        ({"parts": 10**9}, "field parts is 1000000000, expected a whole number from 1 to 100000"),
        ({"stride": [0, 16, 16]}, r"field stride is \[0, 16, 16\], expected three whole numbers from 1"),
        ({"labels": "ant"}, "field labels is 'ant', expected a list of names"),
        ({"tokenizer": {"name": 3}}, "field tokenizer.name is 3, expected text"),
        ({"preprocessing": json.loads(DEEP)}, "field preprocessing is .*expected an object of texts"),
        ({"preprocessing": {"fps": float("nan")}}, "field preprocessing is {'fps': nan}, expected an object of texts"),
    ],
)
def test_settings_no_writer_has_made_are_told_with_their_field(path, change, message):
    document = json.loads((path / "zarr.json").read_bytes())
    document["attributes"]["grn"] |= change
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=rf"zarr.json: the 'grn' attributes are damaged \({message}"):
        open_store(path)


def test_a_grid_of_petabytes_is_refused_by_the_size_of_its_file(path):
    part = path / "part-00000"
    document = json.loads((part / "commit.json").read_bytes())
    document["grids"]["99999x99999x99999"] = {
        "rows": 1,
        "crc32c": {name: [0] for name in ("bits", "label", "seed", "entropy")},
    }
    (part / "commit.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"99999x99999x99999/bits/c.0.* is missing, expected \d{16} bytes"):
        open_store(path)


def test_escape_sequences_of_a_store_do_not_reach_the_message(path):
    document = json.loads((path / "zarr.json").read_bytes())
    document["attributes"]["grn"]["tokenizer"] = {"name": "\x1b]0;owned\x07", "sha256": "\x9b31m"}
    document["attributes"]["grn"]["labels"] = ["\x1b[2J", "bee"]
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError) as caught:
        open_part(path, fingerprint())
    assert str(caught.value).isprintable()


def test_reading_leaves_a_store_as_it_is(path):
    before = tree(path)
    store = open_store(path)
    list(store.records())
    verify_store(path)
    assert tree(path) == before


def test_a_document_that_is_a_dangling_link_is_no_store(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    (path / "zarr.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a bit store"):
        open_store(path)
    with pytest.raises(StoreError, match="holds something else than a bit store"):
        open_part(path, fingerprint())
