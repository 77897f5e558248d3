"""A bit store of millions of clips in a thousand parts without their bytes, and what its uses take.

    python tests/bench/many_parts.py make FOLDER --parts 1000 --clips 40000
    python tests/bench/many_parts.py use FOLDER open

Records, labels, folders and file names are those of the real store. All chunk files are links to one sparse file, and
the lines of every part are those of the first one with the part's number in them, made when they are read.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import resource
import time
from pathlib import Path

import google_crc32c
import numpy as np
import torch

from grncli.datasets.bit_dataset import BitDataset
from grncli.datasets.bit_iterable_dataset import BitIterableDataset
from grncli.media.sources import Source
from grncli.runs.describing import describe
from grncli.runs.generator_recipe import AskedGeneratorRecipe, AskedTextGenerator, PackedData
from grncli.store import Fingerprint, open_store
from grncli.store.bits import BitSchema, grid_name
from grncli.store.captions import CAPTIONS
from grncli.store.done_sources import OrderedKeys
from grncli.store.fingerprint import read_fingerprint
from grncli.store.rows.byte_source import LocalFiles
from grncli.store.rows.record import GroupRecord, PartRecord
from grncli.store.rows.schema import COMPLETE, METADATA, SAMPLES, group_document, part_name
from grncli.text.text_encoder import TokenizedPrompt
from grncli.tokenizing import part_work
from grncli.tokenizing.part_work import find_work
from grncli.tokenizing.tokenizing_plan import ChosenSources, TokenizeSettings, TokenizingPlan
from grncli.training.bit_loader import BitLoader, combine_stores
from grncli.training.captioned_plan import make_captioned_plan
from grncli.training.packed_loader import PackedLoader

GRIDS = {"clips": (21, 30, 52), "images": (1, 16, 16)}
ROUNDS, CHANNELS, CLASSES = 4, {"clips": 64, "images": 16}, 1000
CAPTION = "A long caption of clip %05d of part-00000, in which much is said of what is seen, of how it moves, of " * 2
TEMPLATES = "templates"  # the lines of the first part
LINKS = 60_000  # of one file, fewer than ext4 has


def key_of(part: int, number: int) -> str:
    return f"{part_name(part)}/{number:06d}.mp4"


def make(root: Path, kind: str, parts: int, clips: int) -> None:
    grid = GRIDS[kind]
    classes = tuple(f"class {number:03d}" for number in range(CLASSES))
    fingerprint = Fingerprint(
        ROUNDS, CHANNELS[kind], (4, 16, 16), {"name": "toy", "sha256": "0" * 64}, {"size": 256}, classes, parts
    )
    schema = BitSchema(fingerprint)
    root.mkdir(parents=True)
    (root / METADATA).write_bytes(group_document(schema.attributes()))
    write_templates(root / TEMPLATES, grid, clips)
    samples = (root / TEMPLATES / SAMPLES).read_bytes()
    labels = (np.arange(clips) % CLASSES).astype(np.int32)
    bits, numbers = schema.arrays(grid_name(grid))
    linked = 0
    for part in range(parts):
        folder = root / part_name(part)
        record = PartRecord(
            position=clips,
            sources=clips,
            digest=OrderedKeys(key_of(part, number) for number in range(clips)).digest(),
            groups={grid_name(grid): GroupRecord(clips, checksums(bits, numbers, labels))},
            samples_bytes=len(samples),
            samples_crc32c=google_crc32c.value(of_part(samples, part)),
            complete=True,
        )
        for layout in (bits, numbers):
            (folder / grid_name(grid) / layout.name).mkdir(parents=True)
            (folder / grid_name(grid) / layout.name / METADATA).write_bytes(layout.document(clips, complete=True))
        (folder / METADATA).write_bytes(group_document())
        (folder / grid_name(grid) / METADATA).write_bytes(group_document())
        record.write(folder)
        padded = np.zeros(numbers.chunk_count(clips) * numbers.stored_chunk_rows(clips, True), np.int32)
        padded[:clips] = labels
        for chunk, rows in enumerate(np.array_split(padded, numbers.chunk_count(clips))):
            (folder / grid_name(grid) / numbers.name / numbers.chunk_name(chunk)).write_bytes(rows.tobytes())
        for chunk in range(bits.chunk_count(clips)):
            path = folder / grid_name(grid) / bits.name / bits.chunk_name(chunk)
            sparse = root / TEMPLATES / f"chunk-{linked // LINKS}"
            if linked % LINKS == 0:
                sparse.touch()
                os.truncate(sparse, bits.stored_chunk_rows(clips, True) * bits.row_bytes)
            os.link(sparse, path)
            linked += 1
    (root / COMPLETE).touch()


def checksums(bits, numbers, labels):
    """Of zeros, and of the labels."""
    crcs = {}
    for layout, rows in ((bits, None), (numbers, labels)):
        crcs[layout.name] = []
        full = google_crc32c.value(bytes(layout.chunk_bytes)) if rows is None else None
        count = len(labels)
        for chunk in range(layout.chunk_count(count)):
            inside = min(layout.chunk_rows, count - chunk * layout.chunk_rows)
            if rows is not None:
                start = chunk * layout.chunk_rows
                crcs[layout.name].append(google_crc32c.value(rows[start : start + inside].tobytes()))
            elif inside == layout.chunk_rows:
                crcs[layout.name].append(full)
            else:
                crcs[layout.name].append(google_crc32c.value(bytes(inside * layout.row_bytes)))
    return crcs


def write_templates(folder: Path, grid, clips: int) -> None:
    folder.mkdir()
    with (folder / SAMPLES).open("w") as lines, (folder / CAPTIONS).open("w") as captions:
        for number in range(clips):
            key = key_of(0, number)
            line = {"grid": grid_name(grid), "row": number, "key": key, "source": f"/data/{key}", "bytes": 1000000}
            line |= {"start": 0.0, "frames": 81, "fps": 16.0, "label": f"class {number % CLASSES:03d}"}
            lines.write(json.dumps(line) + "\n")
            caption = {"type": "long", "content": CAPTION % (number, number)}
            captions.write(json.dumps({"source": f"/data/{key}", "captions": [caption]}) + "\n")


def of_part(lines: bytes, part: int) -> bytes:
    return lines.replace(b"part-00000", part_name(part).encode())


class TemplateFile:
    """Whole lines of a part, by their place."""

    def __init__(self, path: Path, part: int) -> None:
        self._data, self._part = np.memmap(path, np.uint8, "r"), part
        self.size = self._data.size

    def read_into(self, target: memoryview, offset: int) -> None:
        target[:] = of_part(self._data[offset : offset + target.nbytes].tobytes(), self._part)


def serve_lines(captioned: bool) -> None:
    """Let every reader of local stores in this process find the lines of all parts."""
    stream, size, listed, opener = LocalFiles.stream, LocalFiles.size, LocalFiles.list, LocalFiles.open

    def template(source: LocalFiles, name: str) -> Path | None:
        folder, _, file = name.partition("/")
        path = Path(source.where(TEMPLATES)) / file
        return path if folder.startswith("part-") and file in (SAMPLES, CAPTIONS) and path.exists() else None

    def streamed(source, name, committed=None):
        path = template(source, name)
        if path is None:
            return stream(source, name, committed)
        return io.BytesIO(of_part(path.read_bytes(), int(name[5:10])))

    def opened(source, name, committed=None):
        path = template(source, name)
        return opener(source, name, committed) if path is None else TemplateFile(path, int(name[5:10]))

    def sized(source, name):
        path = template(source, name)
        return size(source, name) if path is None else path.stat().st_size

    def named(source, folder):
        lines = [name for name in (SAMPLES, *([CAPTIONS] if captioned else [])) if template(source, f"{folder}/{name}")]
        return sorted({*listed(source, folder), *lines})

    LocalFiles.stream, LocalFiles.size, LocalFiles.list, LocalFiles.open = streamed, sized, named, opened


def opened(root: Path) -> None:
    store = open_store(root)
    print(f"    {len(store):,} samples", end="")


def pickled(root: Path) -> None:
    store = open_store(root)
    began = time.perf_counter()
    data = pickle.dumps(store)
    made = time.perf_counter()
    pickle.loads(data)
    print(
        f"    {len(data) >> 20} MiB, {made - began:.1f} s to make, {time.perf_counter() - made:.1f} s to read", end=""
    )


def first_batch(root: Path) -> None:
    _, samples = combine_stores([open_store(root)])
    loader = BitLoader(samples, batch=64, buffer=1 << 28, validation=256)
    with contextlib.closing(loader.batches(0)) as batches:
        next(batches)


def first_item(root: Path) -> None:
    next(iter(BitIterableDataset(root, fields=["bits", "label", "key"], form="packed", buffer=1 << 28)))


def hundred_items(root: Path) -> None:
    dataset = BitDataset(root, fields=["bits", "label", "key", "caption"], form="packed")
    rows = np.random.default_rng(0).integers(0, len(dataset), 100).tolist()
    dataset.__getitems__(rows)


class Words:
    """An encoder whose tokens are the words of a prompt."""

    name, identity, width, max_tokens, dtype = "words", {"name": "words", "sha256": "0" * 64}, 8, 512, "float32"

    def tokenize(self, prompts):
        return [TokenizedPrompt(tuple(range(1 + prompt.count(" ")))) for prompt in prompts]

    def encode(self, prompts):
        return [torch.zeros(len(prompt.ids), self.width) for prompt in prompts]


def first_packed_batch(root: Path) -> None:
    asked = AskedGeneratorRecipe(
        network=AskedTextGenerator(depth=1, width=24, heads=2, key_value_heads=1, hidden=32),
        data=PackedData(sequences=2, tokens=60000, window=4096),
    )
    plan = make_captioned_plan(asked, [open_store(root)], None, Words)
    loader = PackedLoader(plan.samples, plan.rows, plan.recipe)
    with contextlib.closing(loader.batches(0)) as batches:
        next(batches)


def described(root: Path) -> None:
    describe(root)


def resumed_part(root: Path) -> None:
    """What grn tokenize with the last --part again would do of the listing that the store was made of."""
    store = open_store(root)
    parts, clips = len(store.parts), store.parts[0].sources
    del store
    began = time.perf_counter()
    listed = [
        Source(f"/data/{key}", "clip", f"/data/{key}", relative=key)
        for number in range(clips)
        for key in (key_of(part, number) for part in range(parts))
    ]
    print(f"    listing of {len(listed):,}: {time.perf_counter() - began:.1f} s, {peak():,} MiB", end="")
    part = parts - 1
    settings = TokenizeSettings(part=part, parts=parts)
    chosen = ChosenSources(listed, 0, "", None, ())
    fingerprint = read_fingerprint(LocalFiles(root))
    plan = TokenizingPlan(str(root), chosen, listed[part::parts], None, ROUNDS, None, fingerprint)
    part_work.nbytes_of = lambda source: 1000000
    began = time.perf_counter()
    work = find_work(root, plan, settings)
    assert not work.left
    assert len(work.sources) == clips
    print(f", work found in {time.perf_counter() - began:.1f} s", end="")


USES = {
    "open": opened,
    "pickle": pickled,
    "classes": first_batch,
    "stream": first_item,
    "items": hundred_items,
    "packed": first_packed_batch,
    "info": described,
    "resume": resumed_part,
}


def peak() -> int:
    """MiB that the process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="make a store that is complete")
    making.add_argument("folder", type=Path)
    making.add_argument("--kind", choices=list(GRIDS), default="clips")
    making.add_argument("--parts", type=int, default=1000)
    making.add_argument("--clips", type=int, default=40000, help="of each part")
    using = verbs.add_parser("use", help="use it in one way, and say how long that took and what memory")
    using.add_argument("folder", type=Path)
    using.add_argument("use", choices=list(USES))
    using.add_argument("--captions", action="store_true")
    options = parser.parse_args()
    began, begun = time.perf_counter(), time.process_time()
    if options.verb == "make":
        make(options.folder, options.kind, options.parts, options.clips)
    else:
        serve_lines(options.captions)
        USES[options.use](options.folder)
    seconds, used = time.perf_counter() - began, time.process_time() - begun
    print(f"\n{options.verb:5} {getattr(options, 'use', ''):8} {seconds:8.1f} s {used:8.1f} s of CPU {peak():8,} MiB")


if __name__ == "__main__":
    main()
