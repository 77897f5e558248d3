"""What one part of a store has left to do of the sources that SRC lists now.

As long as the sources done are still the first ones, those behind them are left, and each part has its share of the
list. Where others have come in between, those that no part has done are left: they are added at the end in the order of
the list, and where there are several parts a hash of its key says which one takes a source.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from grncli.media.sources import Source
from grncli.runtime.errors import StoreError, StoreMismatch, UsageError
from grncli.runtime.jsonfiles import brief
from grncli.runtime.text import counted
from grncli.store import is_interrupted, open_store, part_name
from grncli.store.done_sources import DoneSource, KeySet, OrderedKeys, StoredSources, is_of_a_set
from grncli.store.fingerprint import read_fingerprint
from grncli.store.rows.byte_source import LocalFiles
from grncli.store.rows.record import PartRecord
from grncli.store.rows.schema import EDITED
from grncli.tokenizing.tokenizing_plan import ChosenSources, TokenizeSettings, TokenizingPlan, begin_with

_NONE = -1


@dataclass(frozen=True)
class PartWork:
    """The sources of one part in the order in which they are encoded."""

    sources: Sequence[Source]  # those that are done and listed, then those that are left
    known: int  # the first so many are done
    done: int  # sources that the part has done, also those that are listed no longer
    failed: Sequence[int]  # places of known ones that could not be read
    digest: OrderedKeys | KeySet  # of those done
    kept: Sequence[str] = ()  # samples that --add keeps, in sentences

    @property
    def left(self) -> range:
        """Places of the sources that are left."""
        return range(self.known, len(self.sources))

    @property
    def total(self) -> int:
        """Sources that the part has when all are done."""
        return self.done + len(self.left)

    def lines(self) -> list[str]:
        """What differs from what SRC listed before, in sentences."""
        if not self.left or isinstance(self.digest, OrderedKeys):
            return list(self.kept)
        new = counted(len(self.left), "new source")
        return [f"{new} added at the end, such as {self.sources[self.known].name}", *self.kept]


def find_work(out: Path, plan: TokenizingPlan, settings: TokenizeSettings) -> PartWork:
    """Compare what the store ``out`` has with the sources of the plan; nothing is written.

    Raises
    ------
    UsageError
        If ``--limit`` leaves out sources that are done.
    StoreMismatch
        If sources that have samples are listed no longer or have changed, unless ``--add`` keeps these; or if new ones
        have come in between before every part was complete.
    StoreError
        If the store is damaged.
    """
    stored = StoredSources(out, plan.fingerprint)
    part, parts, listed = settings.part, settings.parts, plan.chosen.sources
    record = stored.records[part]
    if all(begin_with(listed[i::parts], each.position, each.digest) for i, each in enumerate(stored.records)):
        known, left = plan.sources[: record.position], plan.sources[record.position :]
        comparison = SourceComparison(known, part, plan.chosen)
        comparison.add(part, stored.of(part))
        digest: OrderedKeys | KeySet = OrderedKeys(source.relative for source in known)
    else:
        _require_done(out, stored)
        comparison = SourceComparison(listed, part, plan.chosen)
        for number in range(parts):
            comparison.add(number, stored.of(number))
        known, left = comparison.known(), comparison.left(parts)
        digest = KeySet(comparison.keys())
        if is_of_a_set(record.digest) and record.digest != digest.digest():
            raise StoreError(
                f"{out / part_name(part)} has lines of other sources than its commit record counts; restore it from a "
                "copy, or make the store again with --overwrite."
            )
    checks = (_missing, _changed, _relabelled)
    kept = [sentence for check in checks for sentence in check(out, comparison, settings)]
    sources = [*comparison.as_recorded(known), *left]
    return PartWork(sources, len(known), record.position, comparison.failed(known), digest, kept)


def require_one_list(out: Path, plan: TokenizingPlan, records: Sequence[PartRecord]) -> None:
    """StoreMismatch unless all parts, now that they are complete, were made of the list of this one.

    Jobs that began at the same time did not see of each other that SRC held other files when they listed it. Parts of
    a store that was merged or split are of no common list, nor are those that were added to.
    """
    is_edited = EDITED in read_fingerprint(LocalFiles(out)).versions
    if is_edited or any(is_of_a_set(record.digest) for record in records):
        return
    listed = plan.chosen.sources
    for part, record in enumerate(records):
        if not begin_with(listed[part :: len(records)], record.position, record.digest):
            raise StoreMismatch(
                f"{out / part_name(part)} was made of another list of sources than this part, so that some are doubled "
                f"or left out, and the store is not marked as complete; make that part of the same SRC with --part "
                f"{part}/{len(records)} --overwrite, then run this command again"
            )


class SourceComparison:
    """Which of the sources ``listed`` a store has, and in which part; and what it has besides.

    Parameters
    ----------
    part : the part of which more is asked for
    chosen : knows their classes
    """

    def __init__(self, listed: Sequence[Source], part: int, chosen: ChosenSources) -> None:
        self._listed = listed
        self._part = part
        self._class_of = None if chosen.classes is None else chosen.class_of
        self._places = {source.relative: place for place, source in enumerate(listed)}
        # Apart: in merged stores two parts may have done a source, where one has dropped or could not read it.
        self._ours, self._others, self._theirs = np.zeros((3, len(listed)), np.bool_)
        self._nbytes = np.full(len(listed), _NONE, np.int64)
        self._failed: set[str] = set()
        self._names: dict[str, str] = {}
        self._lost: set[str] = set()
        self.missing: dict[str, str] = {}
        """Names of sources that have samples and are not listed, of all parts, by their keys."""
        self.relabelled: dict[str, tuple[Source, str | None, str | None]] = {}
        """Sources of the part with the class that they had and have, where these differ, by their keys."""

    def add(self, part: int, done: Iterable[DoneSource]) -> None:
        """Take the sources that a part has done, each as often as it has samples."""
        for source in done:
            place = self._places.get(source.key)
            if place is None:
                if not (source.failed or source.dropped):
                    self.missing[source.key] = source.name
                if part == self._part:
                    self._lost.add(source.key)
                continue
            if part != self._part:
                self._others[place] = True
                self._theirs[place] |= not source.failed or part < self._part
                continue
            self._ours[place] = True
            if source.failed:
                self._failed.add(source.key)
            if source.dropped:
                continue
            if source.nbytes is not None and not source.failed:
                self._nbytes[place] = source.nbytes
            if self._class_of is not None and not source.failed:
                listed = self._listed[place]
                if (now := self._class_of(listed)) != source.label:
                    self.relabelled[source.key] = listed, source.label, now
            if source.name != self._listed[place].name:
                self._names[source.key] = source.name

    def known(self) -> list[Source]:
        """Listed sources that the part has done."""
        return [self._listed[place] for place in np.flatnonzero(self._ours).tolist()]

    def left(self, parts: int) -> list[Source]:
        """Listed sources that no part has done, and this part of ``parts`` takes."""
        left = (self._listed[place] for place in np.flatnonzero(~(self._ours | self._others)).tolist())
        return [source for source in left if parts == 1 or _part_of(source, parts) == self._part]

    def keys(self) -> list[str]:
        """Keys of all sources that the part has done, listed or not."""
        return [*(source.relative for source in self.known()), *self._lost]

    def failed(self, sources: Sequence[Source]) -> list[int]:
        """Places of those that the part could not read, and no other one has read or is to try again."""
        failed = {key for key in self._failed if not self._theirs[self._places[key]]}
        return [place for place, source in enumerate(sources) if source.relative in failed]

    def as_recorded(self, sources: Sequence[Source]) -> list[Source]:
        """The sources under the names that the part has for them: SRC may be written in another way."""
        names = self._names
        return [
            replace(source, name=names[source.relative]) if source.relative in names else source for source in sources
        ]

    def changed(self) -> list[tuple[Source, int, int | None]]:
        """Sources of the part with the bytes they had and have; None where that cannot be seen."""
        pairs = zip(self._listed, self._nbytes.tolist(), strict=True)
        return [(source, then, now) for source, then in pairs if then != _NONE and (now := nbytes_of(source)) != then]


def describe_target(out: Path, plan: TokenizingPlan, settings: TokenizeSettings) -> str:
    """What a run would do with ``out``, in words; StoreError or StoreMismatch where it would refuse."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return "would be created"
    store = open_store(out)
    if settings.overwrite and not is_interrupted(out, plan.fingerprint, settings.part, plan.begins_with):
        return f"would be replaced, its {counted(len(store), 'sample')} discarded"
    remedy = "Use the same settings, another OUT, or --overwrite."
    store.fingerprint.require(plan.stored_fingerprint, out, remedy, parts=True)
    work = find_work(out, plan, settings)
    kept = "".join(f"; {note}" for note in work.kept)
    if not work.left:
        return f"has all sources, nothing would be done{kept}"
    record = store.parts[settings.part]
    if record.position == record.sources:
        return f"{counted(len(work.left), 'source')} would be added to its {work.done}{kept}"
    return f"would resume at source {work.done} of {work.total}{kept}"


def nbytes_of(source: Source) -> int | None:
    """Bytes of a source's file, or of a member of an archive; None where the file cannot be reached."""
    if source.member is not None:
        return source.size
    try:
        return os.stat(source.path).st_size
    except OSError:
        return None


def _part_of(source: Source, parts: int) -> int:
    """Never changed, as processes that write parts of one store must agree."""
    key = source.relative.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) % parts


def _require_done(out: Path, stored: StoredSources) -> None:
    """Only then is every source that no part has done a new one, and no other process takes it."""
    if len(stored.records) == 1:
        return
    for part, record in enumerate(stored.records):
        if record.position != record.sources and not is_of_a_set(record.digest):
            raise StoreMismatch(
                f"{out / part_name(part)} is not complete, and SRC lists other sources than when {out} was begun; move "
                "new files away until every part is complete, then add them"
            )


def _missing(out: Path, comparison: SourceComparison, settings: TokenizeSettings) -> list[str]:
    """A sentence on samples whose sources are listed no longer, where there are any."""
    count = len(comparison.missing)
    if not count:
        return []
    first = next(iter(comparison.missing.values()))
    sources = counted(count, "source")
    if settings.add:
        return [f"{out}: keeps the samples of {sources} that SRC does not list now (such as {first})"]
    if settings.limit is not None:
        raise UsageError(
            f"--limit {settings.limit}: {out} holds {sources} that are not among the first so many of SRC (such as "
            f"{first}); give a larger one, or add --add to keep them"
        )
    now = "SRC does not list now" if settings.sample is None else f"--sample {settings.sample} does not draw now"
    raise StoreMismatch(
        f"{out} holds samples of {sources} that {now} (such as {first}); give the same SRC, another OUT, or add --add "
        "to keep them and add what is new"
    )


def _changed(out: Path, comparison: SourceComparison, settings: TokenizeSettings) -> list[str]:
    """A sentence on samples of sources whose files have other sizes now, where there are any."""
    changed = comparison.changed()
    if not changed:
        return []
    source, then, now = changed[0]
    has = "cannot be reached now" if now is None else f"has {now:,} bytes now"
    others = f", and {len(changed) - 1} more have changed" if len(changed) > 1 else ""
    sentence = f"{source.name}: {has}, it had {then:,} when its samples in {out} were made{others}"
    if settings.add:
        return [f"{sentence}; the samples stay as they are"]
    raise StoreMismatch(f"{sentence}; restore it, make the store again with --overwrite, or add --add to keep them")


def _relabelled(out: Path, comparison: SourceComparison, settings: TokenizeSettings) -> list[str]:
    """A sentence on samples of sources that have another class now, where there are any."""
    changed = list(comparison.relabelled.values())
    if not changed:
        return []
    source, then, now = changed[0]
    others = f", and {len(changed) - 1} more have changed" if len(changed) > 1 else ""
    sentence = f"{source.name}: has the label {brief(now)} now, its samples in {out} have {brief(then)}{others}"
    if settings.add:
        return [f"{sentence}; these stay as they are"]
    raise StoreMismatch(
        f"{sentence}; give the labels of then, make the store again with --overwrite, or add --add to keep them"
    )
