"""The prompts of all samples are the same however many processes count them, and wherever their captions lie."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from grncli.runs.generator_recipe import Task, TextConditioning
from grncli.runtime.errors import GrnError, StoreError
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.store import Fingerprint, open_part, open_store
from grncli.store.captions import Caption, CaptionLine, read_captions, replace_captions
from grncli.text.text_encoder import TextEncoder, TokenizedPrompt
from grncli.training.bit_loader import combine_stores
from grncli.training.collecting_prompts import collect_prompts
from grncli.training.packing import NO_PROMPT
from grncli.training.training_prompts import OnlineSource

SQUARE, CLIP = (1, 2, 2), (3, 2, 2)
TEXT = TextConditioning(image=Task(prefix="I "), clip=Task(prefix="V "), first_frame=Task(prefix="F "))
WIDTH = 4


class Words(TextEncoder):
    """A token for each word: its characters added up, as a number that bfloat16 holds."""

    identity = {"name": "words", "sha256": "0" * 64}  # noqa: RUF012
    width, max_tokens = WIDTH, 99

    def tokenize(self, prompts):
        return [
            TokenizedPrompt(tuple(sum(map(ord, word)) % 251 for word in f"{prompt} .".split())) for prompt in prompts
        ]

    def encode(self, prompts):
        return [torch.tensor(prompt.ids)[:, None].expand(-1, WIDTH).float() for prompt in prompts]


@dataclass(frozen=True)
class Threads(Processes):
    """Processes that are threads, as far as they exchange bytes."""

    boxes: dict[int, bytes] = field(default_factory=dict)
    barrier: threading.Barrier | None = None

    def gather_bytes(self, data):
        self.boxes[self.rank] = data
        self.barrier.wait(120)
        every = [self.boxes[rank] for rank in range(self.count)]
        self.barrier.wait(120)
        return every


def make_store(path, parts=3, samples=4):
    """Pictures and clips; the source of the last picture of each part has no caption."""
    fingerprint = Fingerprint(2, 3, (1, 16, 16), {"name": "toy", "sha256": "a" * 64}, {})
    for part in range(parts):
        lines = []
        with open_part(path, fingerprint, part, parts) as writer:
            for grid in (SQUARE, CLIP):
                sources = [f"{part}-{grid[0]}-{row}.png" for row in range(samples)]
                bits = np.zeros((samples, *grid, 2, 1), np.uint8)
                writer.append(grid, bits, None, [{"key": source, "source": source} for source in sources])
                captioned = sources[:-1] if grid == SQUARE else sources
                texts = [[f"of {source}", f"also {'very ' * part}of {source}"] for source in captioned]
                lines += [
                    CaptionLine(source, tuple(Caption(None, each) for each in some))
                    for source, some in zip(captioned, texts, strict=True)
                ]
            writer.commit(1, "", 1)
            writer.finish()
        replace_captions({path / f"part-{part:05d}": lines})
    return path


@pytest.fixture
def stores(tmp_path):
    return [make_store(tmp_path / "a.zarr"), make_store(tmp_path / "b.zarr", parts=1)]


def collect(paths, processes=SINGLE_PROCESS):
    opened = [open_store(path) for path in paths]
    _, parts = combine_stores(opened)
    return collect_prompts(opened, parts, TEXT, OnlineSource(Words()), first_frame=True, processes=processes), parts


def collect_together(paths, count):
    """What each of several processes gets, or the error that it ends with."""
    barrier, boxes, found = threading.Barrier(count), {}, {}

    def run(rank):
        try:
            found[rank] = collect(paths, Threads(rank, count, boxes, barrier))[0]
        except GrnError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


def prompts_of(found, number):
    """Token sums of every prompt that a sample may have."""
    firsts = (found.counts.first[number], found.counts.clean_first[number])
    numbers = [first + i for first in firsts if first != NO_PROMPT for i in range(found.counts.prompts[number])]
    return [each[:, 0].tolist() for each in found.prompts.read(numbers)]


def expected(source, task):
    """The same of a source by its name."""
    part = int(source.split("-")[0])
    texts = [f"{task} of {source}", f"{task} also {'very ' * part}of {source}"]
    return [list(map(float, each.ids)) for each in Words().tokenize(texts)]


def test_each_sample_has_the_prompts_of_its_own_source(stores):
    found, parts = collect(stores)
    number = 0
    for part in parts:
        for view, path in zip(part.views, stores, strict=True):
            for line in open_store(path).records(view.indices):
                source = line["source"]
                if part.grid == CLIP:
                    assert prompts_of(found, number) == expected(source, "V") + expected(source, "F")
                elif source.endswith("-3.png"):
                    assert found.counts.first[number] == NO_PROMPT
                    assert found.counts.prompts[number] == 0
                else:
                    assert prompts_of(found, number) == expected(source, "I")
                number += 1
    assert number == len(found.counts) == 32


@pytest.mark.parametrize("count", [2, 3, 5])
def test_processes_that_share_the_parts_find_what_one_finds(stores, count):
    alone, _ = collect(stores)
    found = collect_together(stores, count)
    for each in found.values():
        for name in ("visual", "first", "prompts", "clean_first", "lengths"):
            assert np.array_equal(getattr(each.counts, name), getattr(alone.counts, name))
        assert each.digests == alone.digests
        assert prompts_of(each, 20) == prompts_of(alone, 20)
    assert sorted(found) == list(range(count))


def test_what_one_process_cannot_read_ends_all_with_its_sentence(stores):
    (stores[0] / "part-00001" / "captions.jsonl").write_text("{}\n")
    found = collect_together(stores, 3)
    assert sorted(found) == [0, 1, 2]
    assert len(set(found.values())) == 1
    assert "part-00001/captions.jsonl:1: field source is None" in found[0]


def test_the_digest_is_that_of_all_captions_in_whatever_part(stores):
    found, _ = collect(stores)
    assert found.digests == tuple(read_captions(open_store(path)).digest() for path in stores)


def test_captions_in_another_part_than_the_samples_are_found(stores):
    lines = list(read_captions(open_store(stores[0])).lines("1-3-0.png"))
    folder = stores[0] / "part-00001"
    kept = [line for line in (folder / "captions.jsonl").read_text().splitlines(keepends=True) if "1-3-0." not in line]
    (folder / "captions.jsonl").write_text("".join(kept))
    others = [read_captions(open_store(stores[0])).lines(source)[0] for source in ("2-1-0.png", "2-3-1.png")]
    replace_captions({stores[0] / "part-00002": [*others, *lines]})
    after, parts = collect(stores)
    number = len(parts[0]) + 4  # the first clip of the second part
    assert prompts_of(after, number) == expected("1-3-0.png", "V") + expected("1-3-0.png", "F")


def test_a_source_that_two_parts_have_captions_of_is_an_error(stores):
    line = read_captions(open_store(stores[0])).lines("0-1-0.png")[0]
    first = list(read_captions(open_store(stores[0])).lines("1-1-0.png"))
    replace_captions({stores[0] / "part-00001": [line, *first]})
    with pytest.raises(StoreError, match=r"0-1-0\.png' has two lines"):
        collect(stores)


def test_captions_that_change_during_a_training_are_an_error(stores):
    found, _ = collect(stores)
    file = stores[0] / "part-00001" / "captions.jsonl"
    text = file.read_text()
    for changed in (text.replace("1-1-0", "1-1-1"), text[:400]):
        file.write_text(changed)
        with pytest.raises(StoreError, match=r"part-00001/captions\.jsonl was changed since its captions were counted"):
            found.prompts.read(list(range(len(found.counts.lengths) - 1)))
