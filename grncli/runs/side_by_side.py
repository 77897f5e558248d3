"""``grn info A B``: which settings of two stores, runs or recipes differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grncli.runs.checkpoint import RECIPE
from grncli.runs.describing import describe
from grncli.runs.recipe import kind_of, load_fields, parse_own_recipe, parse_recipe
from grncli.runs.recipe_schema import RECIPES
from grncli.runs.registry import KINDS
from grncli.runs.rundir import is_run
from grncli.runs.shipped_recipes import find_recipe
from grncli.runtime.differences import Difference, differences
from grncli.runtime.errors import GrnError, RecipeError
from grncli.runtime.urls import UrlPath, located
from grncli.store import METADATA, open_store
from grncli.store.text_features import is_features_store, open_features

STORE, FEATURES = "store", "features"
FORMAT = ("rounds", "channels", "stride")  # what the bits of stores and of runs have alike


def compare_settings(one: Path, other: Path) -> list[Difference]:
    """The settings that differ, by dotted name, those of ``one`` first.

    Of two of a kind all settings are compared, and of a store and a run, or of a tokenizer and a generator, the bits
    that they make or learned: rounds, channels, stride, tokenizer and labels.

    Raises
    ------
    GrnError
        If either is no store, run or recipe, or they have nothing in common.
    """
    (kind, settings), (other_kind, others) = _settings(one), _settings(other)
    if kind != other_kind:
        settings, others = _format(one, kind), _format(other, other_kind)
        settings = {name: value for name, value in settings.items() if name in others}
        others = {name: others[name] for name in settings}
    return list(_itemised(differences(settings, others)))


def _settings(path: Path) -> tuple[str, dict[str, Any]]:
    """Of which kind a path is, and what it was or is to be made with."""
    path = located(path)
    if is_features_store(path):
        store = open_features(path).settings
        return FEATURES, {"encoder": dict(store.encoder), "width": store.width, "dtype": store.dtype} | {
            "max_tokens": store.max_tokens,
            "versions": dict(store.versions),
        }
    if isinstance(path, UrlPath) or (path / METADATA).is_file():
        (attributes,) = open_store(path).fingerprint.to_attributes().values()
        return STORE, attributes
    if is_run(path):
        fields = load_fields(path / RECIPE)
        for kind in KINDS:
            if kind.name == kind_of(fields):
                return kind.name, asdict(parse_own_recipe(fields, kind.schema, path / RECIPE))
    return _recipe(path)


def _recipe(path: Path) -> tuple[str, dict[str, Any]]:
    """A recipe to train by, with the values of what it leaves out."""
    if path.is_dir() or path.suffix == ".zarr":
        describe(path)  # for what it says of a place that is nothing of ours
    file = find_recipe(path)
    fields = load_fields(file)
    kind = fields.get("kind", "generator")
    if kind not in RECIPES:
        raise RecipeError(f"{file}: field kind is {kind!r}, expected {' or '.join(RECIPES)}")
    return kind, asdict(parse_recipe(fields, RECIPES[kind], str(file)))


def _format(path: Path, kind: str) -> dict[str, Any]:
    """What the bits are like that a store holds, a tokenizer makes, or a generator learned."""
    if kind == FEATURES or not (path.is_dir() or isinstance(located(path), UrlPath)):
        raise GrnError(
            f"{path}: is a {'features store' if kind == FEATURES else 'recipe'}, which is compared with another of its "
            "kind only; give two stores, two runs, two recipes, or a store and a run"
        )
    facts = describe(path)
    if kind == "tokenizer":
        return {name: facts[name] for name in FORMAT} | {
            "tokenizer": {name: facts[name] for name in ("name", "sha256")}
        }
    labels = list(facts["labels"]) if kind == STORE else list(facts["recipe"]["bits"]["labels"])
    return {name: facts[name] for name in FORMAT} | {"tokenizer": facts["tokenizer"], "labels": labels}


def _itemised(found: Iterator[Difference]) -> Iterator[Difference]:
    """Lists of one length item by item, so that of a thousand class names only those stand that differ."""
    for name, there, asked in found:
        if _is_list(there) and _is_list(asked) and len(there) == len(asked):
            pairs = enumerate(zip(there, asked, strict=True))
            yield from (Difference(f"{name}[{i}]", a, b) for i, (a, b) in pairs if a != b)
        else:
            yield Difference(name, there, asked)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | Mapping)
