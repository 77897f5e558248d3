"""The captions of all samples as numbered prompts: counted once, by each process for some of the parts.

A part is read from end to end, its captions first, and of each prompt only numbers are kept: where it stands, and its
tokens. So the memory does not grow with the text, and the time shrinks with the number of processes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from grncli.runs.caption_prompts import caption_prompts
from grncli.runs.generator_recipe import Task, TextConditioning
from grncli.runtime.errors import GrnError, StoreError
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.store import BitStore, grid_name
from grncli.store.caption_index import CaptionFiles, source_hashes
from grncli.store.captions import CaptionLine, Captions, LinePlace, digest_of, located_captions
from grncli.training.bit_loader import GridSamples
from grncli.training.packing import NO_PROMPT, TokenCounts
from grncli.training.prompt_places import PLACE, PromptMaker, PromptTexts
from grncli.training.training_prompts import MeasuredPrompts, PromptSource, TrainingPrompts

TASKS = ("image", "clip", "first-frame")

Arrays = dict[str, NDArray[Any]]
Line = tuple[CaptionLine, LinePlace]


@dataclass(frozen=True)
class CollectedPrompts:
    """The prompts of all samples, and of each store the digest of its captions."""

    counts: TokenCounts
    prompts: TrainingPrompts
    digests: tuple[str, ...]


def collect_prompts(
    stores: Sequence[BitStore],
    parts: Sequence[GridSamples],
    text: TextConditioning,
    source: PromptSource,
    *,
    first_frame: bool,
    processes: Processes = SINGLE_PROCESS,
) -> CollectedPrompts:
    """Bring the captions of all samples to their final form, and count the tokens.

    Parameters
    ----------
    parts : all samples of the stores, grid by grid
    first_frame : whether clips may be trained with a clean first frame, with prompts of their own

    Raises
    ------
    StoreError
        If no sample has a caption, or a source has two lines.
    """
    tasks: Mapping[str, Task] = dict(zip(TASKS, (text.image, text.clip, text.first_frame), strict=True))
    files = [CaptionFiles(store.source) for store in stores]
    makers = [PromptMaker(*each, task, tasks[task]) for each in zip(stores, files, strict=True) for task in TASKS]
    work = [(number, part) for number, store in enumerate(stores) for part in store.stored_parts()]
    elsewhere: dict[int, list[Line]] = {}

    def collect_one(number: int, part: int) -> Arrays:
        first = number * len(TASKS)
        collector = _Collector(makers[first : first + len(TASKS)], first, source, first_frame)
        return collector.of(part, elsewhere.get(number, ()))

    def collect() -> list[Arrays]:
        mine, problem = list[Arrays](), None
        try:
            mine = [collect_one(*each) for each in work[processes.rank :: processes.count]]
        except GrnError as error:
            problem = error
        _require_no_problem(problem, processes)
        return _exchanged(mine, len(work), processes)

    found = collect()
    for number, store in enumerate(stores):
        own = [arrays for (owner, _), arrays in zip(work, found, strict=True) if owner == number]
        if wanted := _sources_elsewhere(own):
            elsewhere[number] = list(_lines_of(store, wanted))
    if elsewhere:
        found = collect()
    for cuts in processes.gather_json(source.cuts):
        source.cuts.update(cuts)
    return _joined(stores, parts, source, makers, work, found)


def _joined(
    stores: Sequence[BitStore],
    parts: Sequence[GridSamples],
    source: PromptSource,
    makers: Sequence[PromptMaker],
    work: Sequence[tuple[int, int]],
    found: Sequence[Arrays],
) -> CollectedPrompts:
    """What was found of each part, with the prompts numbered through all of them."""
    starts = np.cumsum([0, *(len(arrays["places"]) for arrays in found)])
    if not starts[-1]:
        paths = ", ".join(str(store.path) for store in stores)
        raise StoreError(f"{paths}: no sample has a caption; add them with: grn captions {stores[0].path} FILE")
    rows = list[NDArray[np.int32]]()
    for part in parts:
        for arrays, start in zip(found, starts.tolist(), strict=False):
            own = arrays.get(grid_name(part.grid), np.empty((0, 3), np.int32)).copy()
            own[:, :2][own[:, :2] != NO_PROMPT] += start
            rows.append(own)
    first, clean_first, prompts = np.concatenate(rows).T
    empty = source.measure([""], str(stores[0].path), "image")
    lengths = np.concatenate([*(arrays["lengths"] for arrays in found), empty.lengths])
    digests = np.concatenate([*(arrays["digests"] for arrays in found if len(arrays["digests"])), empty.digests])
    places = np.concatenate([arrays["places"] for arrays in found]).view(PLACE).reshape(-1)
    visual = np.repeat(np.array([np.prod(part.grid) for part in parts], np.int32), [len(part) for part in parts])
    hashes = [0] * len(stores)
    for (number, _), arrays in zip(work, found, strict=True):
        hashes[number] += int.from_bytes(arrays["hash"].tobytes())
    return CollectedPrompts(
        TokenCounts(
            visual=visual,
            first=first.copy(),
            clean_first=clean_first.copy(),
            prompts=prompts.copy(),
            lengths=lengths,
            empty=int(lengths[-1]),
        ),
        source.number(PromptTexts(makers, places), MeasuredPrompts(lengths, digests)),
        tuple(map(digest_of, hashes)),
    )


@dataclass
class _Collector:
    """Goes through one part of a store.

    Parameters
    ----------
    makers : of the store, one for each of `TASKS`
    first : number of the first of them
    """

    makers: Sequence[PromptMaker]
    first: int
    source: PromptSource
    first_frame: bool
    _places: list[tuple[int, ...]] = field(default_factory=list)
    _texts: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    _numbers: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _firsts: dict[tuple[object, ...], int] = field(default_factory=dict)

    def of(self, part: int, elsewhere: Sequence[Line]) -> Arrays:
        """Rows ``[n, 3]`` of each grid (first prompt, that with a clean first frame, how many), and the prompts.

        ``elsewhere`` has the lines of sources whose samples lie in other parts than their captions.
        """
        store = self.makers[0].store
        own = list(located_captions(store.source, part))
        lines = [*own, *((line, place) for line, place in elsewhere if place.part != part)]
        located = {id(line): (line, place) for line, place in lines}
        captions, rows = Captions(line for line, _ in lines), defaultdict[str, list[tuple[int, int, int]]](list)
        lacking = set[str]()
        for record in store.stored_parts()[part].lines.records():
            said = [located[id(line)] for line in captions.lines_of_sample(record)]
            if not said:
                lacking.add(record["source"])
            rows[record["grid"]].append(self._row(said, clip=not record["grid"].startswith("1x")))
        return {
            **{grid: np.array(numbers, np.int32) for grid, numbers in rows.items()},
            **self._measured(),
            "hash": np.frombuffer(bytes.fromhex(digest_of(sum(line.hash() for line, _ in own))), np.uint8),
            "captioned": source_hashes({line.source for line, _ in own}),
            "lacking": source_hashes(lacking),
        }

    def _row(self, said: Sequence[Line], *, clip: bool) -> tuple[int, int, int]:
        if not said:
            return NO_PROMPT, NO_PROMPT, 0
        clean = self._first(2, said) if clip and self.first_frame else NO_PROMPT
        return self._first(int(clip), said), clean, sum(len(line.captions) for line, _ in said)

    def _first(self, task: int, said: Sequence[Line]) -> int:
        """Number of the first prompt of a sample with these lines; samples of the same ones share theirs."""
        key = (task, *(place for _, place in said))
        if key not in self._firsts:
            self._firsts[key] = len(self._places)
            for line, place in said:
                for caption, prompt in enumerate(caption_prompts(line, self.makers[task].templates)):
                    self._numbers[task].append(len(self._places))
                    self._texts[task].append(prompt)
                    self._places.append((self.first + task, *place, caption))
        return self._firsts[key]

    def _measured(self) -> Arrays:
        lengths, digests = np.zeros(len(self._places), np.int32), np.zeros((len(self._places), 0), np.uint8)
        for task, texts in sorted(self._texts.items()):
            maker, numbers = self.makers[task], self._numbers[task]
            measured = self.source.measure(texts, str(maker.store.path), maker.task)
            lengths[numbers] = measured.lengths
            if digests.shape[1] != measured.digests.shape[1]:
                digests = np.zeros((len(lengths), measured.digests.shape[1]), np.uint8)
            digests[numbers] = measured.digests
        places = np.array(self._places, PLACE)
        return {"places": places.view(np.uint8).reshape(-1, PLACE.itemsize), "lengths": lengths, "digests": digests}


def _require_no_problem(own: GrnError | None, processes: Processes) -> None:
    """Raise the problem of this process, or else that of another: they go on together, or not at all."""
    every = processes.gather_json(None if own is None else str(own))
    if own is not None:
        raise own
    for problem in filter(None, every):
        raise StoreError(problem)


def _exchanged(mine: Sequence[Arrays], count: int, processes: Processes) -> list[Arrays]:
    """The arrays of all ``count`` parts, of which each process has every n-th one."""
    if processes.count == 1:
        return list(mine)
    named = {f"{place}/{name}": array for place, arrays in enumerate(mine) for name, array in arrays.items()}
    every = list[dict[int, Arrays]]()
    for data in processes.gather_bytes(save(named)):
        arrays = defaultdict[int, Arrays](dict)
        for name, array in load(data).items():
            place, _, short = name.partition("/")
            arrays[int(place)][short] = array
        every.append(arrays)
    return [every[place % processes.count][place // processes.count] for place in range(count)]


def _sources_elsewhere(parts: Sequence[Arrays]) -> frozenset[int]:
    """Hashes of sources whose captions lie in another part than samples of theirs, or in several."""
    captioned = np.concatenate([np.empty(0, np.int64), *(arrays["captioned"] for arrays in parts)])
    lacking = np.concatenate([np.empty(0, np.int64), *(arrays["lacking"] for arrays in parts)])
    ordered = np.sort(captioned)
    doubled = ordered[1:][ordered[1:] == ordered[:-1]]
    return frozenset([*np.intersect1d(lacking, captioned).tolist(), *doubled.tolist()])


def _lines_of(store: BitStore, wanted: frozenset[int]) -> Iterator[Line]:
    """All lines of these sources."""
    for part in store.stored_parts():
        for line, place in located_captions(store.source, part):
            if int(source_hashes([line.source])[0]) in wanted:
                yield line, place
