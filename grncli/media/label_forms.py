"""What ``--labels`` can name: directories, files beside media, a manifest, or a file of labels."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from grncli.media.classes import PARENT, ClassLevel, LabelForm, LabelOf, label_text
from grncli.media.formats import suffix_of
from grncli.media.listing.manifest_rows import KEYS
from grncli.media.listing.manifest_tables import name_columns, open_table
from grncli.media.path_matching import SourceMatcher
from grncli.media.sidecars import Sidecar
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.text import printable

JSON_FIELDS = ("label", "class", "cls")
_MAX_CLS_BYTES = 4 << 10
_MAX_JSON_BYTES = 16 << 20


def parse_labels(text: str) -> LabelForm | None:
    """``none`` (as None), ``dirs``, ``dirs:N``, ``cls``, ``json``, ``json:FIELD``, ``manifest`` or a file.

    UsageError for anything else.
    """
    if text == "none":
        return None
    if match := re.fullmatch(r"dirs(?::(-?[1-9]\d{0,2}))?", text):
        return ClassLevel(int(match[1] or PARENT))
    if match := re.fullmatch(r"cls|json(?::(.+))?", text):
        return SidecarLabels(text.partition(":")[0], match[1])
    if text == "manifest":
        return ManifestLabels()
    if os.path.isfile(text):
        return LabelFile(text)
    raise UsageError(
        f"--labels {printable(text)}: expected none, dirs (the directory a source lies in), dirs:1 (the first "
        "directory below SRC, dirs:2 the next), dirs:-2 (the one above that a source lies in), cls or json (a file of "
        "the same key), json:FIELD, manifest (its column), or a file of two columns, key or path and label"
    )


@dataclass(frozen=True)
class SidecarLabels:
    """The label in a file of the source's key: all of a ``.cls``, or a field of a ``.json``.

    Parameters
    ----------
    name : of the field; by default the first of `JSON_FIELDS` that there is
    """

    suffix: str
    name: str | None = None
    _known: dict[str, str | None] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return self.suffix if self.name is None else f"{self.suffix}:{self.name}"

    def reader(self, sources: Sequence[Source]) -> LabelOf:
        """Reads each file once."""
        return self._of

    def _of(self, source: Source) -> str | None:
        if source.relative not in self._known:
            file = None if source.problem else source.sidecar(self.suffix)
            self._known[source.relative] = None if file is None else self._read(file)
        return self._known[source.relative]

    def _read(self, file: Sidecar) -> str | None:
        try:
            return self._from_json(file) if self.suffix == "json" else _from_cls(file)
        except (MediaError, ValueError) as error:
            raise UsageError(f"{file.name}: {error}; correct it, or choose other --labels") from None

    def _from_json(self, file: Sidecar) -> str | None:
        record = read_json_sidecar(file)
        names = JSON_FIELDS if self.name is None else (self.name,)
        name = next((name for name in names if name in record), names[0])
        try:
            return label_text(record.get(name))
        except ValueError as error:
            raise ValueError(f"field {name} {error}") from None


@dataclass(frozen=True)
class ManifestLabels:
    """The label that a manifest gives."""

    def __str__(self) -> str:
        return "manifest"

    def reader(self, sources: Sequence[Source]) -> LabelOf:
        """UsageError where no source comes from a manifest."""
        if not any(source.row for source in sources):
            raise UsageError("--labels manifest: SRC is no manifest, expected a .jsonl, .csv, .tsv or .parquet file")
        return lambda source: source.row.label if source.row else None


@dataclass(frozen=True)
class LabelFile:
    """A file of two columns, the key or path of a source and its label."""

    path: str
    _lone: list[str] = field(default_factory=list, compare=False, repr=False)

    def __str__(self) -> str:
        return "file"

    def doubt(self) -> str | None:
        """A sentence where lines of it name no source that was listed."""
        if not self._lone:
            return None
        return f"--labels {printable(self.path)}: {len(self._lone)} lines name no source, the first is {self._lone[0]}"

    def reader(self, sources: Sequence[Source]) -> LabelOf:
        """Labels by key, by key without its suffix, or by an end of its path that no other source has.

        UsageError where a line is wrong, means several sources, or names one again with another label.
        """
        by_key = {source.relative: source for source in sources}
        by_stem: dict[str, list[Source]] = {}
        for source in sources:
            by_stem.setdefault(os.path.splitext(source.relative)[0], []).append(source)
        by_name = {source.name: source for source in sources}
        matcher: SourceMatcher | None = None  # takes long to make, and whole keys do not need it
        labels: dict[str, tuple[str, str]] = {}
        for place, key, label in self._lines():
            found = [by_key[key]] if key in by_key else by_stem.get(key, [])
            if not found:
                matcher = matcher or SourceMatcher(by_name)
                found = [by_name[name] for name in matcher.find(key)]
            if len(found) > 1:
                raise UsageError(
                    f"{place}: {printable(key)} may be {found[0].name} or {found[1].name}, expected a key, or a path "
                    "that only one source ends with"
                )
            if not found:
                self._lone.append(f"{place}, {printable(key)}")
            for source in found:
                known, where = labels.setdefault(source.relative, (label, place))
                if known != label:
                    raise UsageError(
                        f"{place}: gives {source.name} the label {label}, and {where} {known}; expected one"
                    )
        return lambda source: labels[source.relative][0] if source.relative in labels else None

    def _lines(self) -> Iterator[tuple[str, str, str]]:
        """Place, key and label of each line."""
        with open_table(self.path, suffix_of(self.path), unnamed=("path", "label")) as table:
            for place, entry in table.records:
                keys = [name for name in ("key", *KEYS) if name in entry]
                if len(keys) != 1 or "label" not in entry:
                    raise UsageError(f"{place}: has the columns {name_columns(entry)}, expected key or path, and label")
                try:
                    label = label_text(entry["label"])
                except ValueError as error:
                    raise UsageError(f"{place}: field label {error}") from None
                if not isinstance(entry[keys[0]], str) or label is None:
                    raise UsageError(f"{place}: expected a key or path, and a label, both as text")
                yield place, entry[keys[0]], label


def read_json_sidecar(file: Sidecar) -> dict[str, object]:
    """The object in a ``.json``; MediaError where there is none."""
    content = file.read(_MAX_JSON_BYTES)
    if len(content) > _MAX_JSON_BYTES:
        raise MediaError(f"has more than {_MAX_JSON_BYTES >> 20} MiB, expected a JSON object")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise MediaError("is no JSON, expected an object") from None
    if not isinstance(record, dict):
        raise MediaError("is no JSON object")
    return record


def _from_cls(file: Sidecar) -> str:
    content = file.read(_MAX_CLS_BYTES)
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise MediaError("is not UTF-8 text, expected the name or number of a class") from None
    label = label_text(text)
    if label is None or "\n" in text or len(content) > _MAX_CLS_BYTES:
        raise MediaError("is no label, expected the name or number of a class on one line")
    return label
