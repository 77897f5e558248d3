"""The card of an exported network: what it is, what it learned from, what was measured, and how to load it.

Nothing is in it that the run does not say; no paths, hosts and command lines, as a card is for others to read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from grncli import __version__
from grncli.models.text_transformer import TextTransformerConfig
from grncli.runs.rundir import RunRecord
from grncli.runtime.text import counted, printable

SHOWN = 12  # classes, grids and stores that are named one by one
UNSHOWN = ("step", "seconds", "waiting_share")  # of the log: about the machine
TITLE = "Generative Refinement Networks for Visual Synthesis"
AUTHORS = "Jian Han, Jinlai Liu, Jiahuan Wang, Bingyue Peng, Zehuan Yuan"
PAPER = "https://arxiv.org/abs/2604.13030"
FRONT = "---\nlibrary_name: grncli\ntags:\n- generative-refinement-networks\n---"


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card is made of.

    Parameters
    ----------
    name : of the folder that the card lies in
    run : what ``grn info`` says of the run
    recipe : of the run, and its text
    file, bytes, sha256, dtype : of the weights
    weights : which of the run's they are
    released : what the network is called in the release; None in our own layout
    record : of the training, None where there is none
    log : lines of the training's log up to the step of the weights
    """

    name: str
    run: Mapping[str, Any]
    recipe: Any
    recipe_text: str
    file: str
    bytes: int
    sha256: str
    dtype: str
    weights: str
    released: str | None
    record: RunRecord | None
    log: Sequence[Mapping[str, Any]]


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with a YAML front matter, as model hubs read it."""
    sections = [
        FRONT,
        f"# {_plain(facts.name)}",
        _summary(facts),
        _table(("", ""), _properties(facts)),
        *_section("Data", [_list(_data(facts))]),
        *_section("Figures", list(_figures(facts.log, facts.recipe))),
        *_section("Use", [_fenced("sh", _commands(facts)), _fenced("python", _python(facts))]),
        *_section("Recipe", [_fenced("yaml", facts.recipe_text)]),
        *_section("Paper", [f"{AUTHORS}: *{TITLE}*, 2026, [{PAPER.removeprefix('https://')}]({PAPER})"]),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(facts: CardFacts) -> str:
    run, network = facts.run, facts.recipe.network
    if run["kind"] == "tokenizer":
        depth = "continuous features" if run["rounds"] is None else "near-lossless bits"
        return f"A tokenizer of Generative Refinement Networks: images and clips to {depth}, and back."
    if isinstance(network, TextTransformerConfig):
        what, sees = "text-conditional", "prompts"
    elif run["classes"]:
        what, sees = "class-conditional", counted(run["classes"], "class")
    else:
        what, sees = "unconditional", ""
    learned = "indices" if run["prediction"] == "ind" else "bits"
    of = f" of {sees}" if sees else ""
    return (
        f"A {what} generator of Generative Refinement Networks (GRN_{run['prediction']}, which predicts {learned}): it "
        f"refines random bits into those of samples{of}, which a tokenizer decodes."
    )


def _properties(facts: CardFacts) -> Iterator[tuple[str, str]]:
    run, recipe, record = facts.run, facts.recipe, facts.record
    time, height, width = run["stride"]
    rounds = "continuous" if run["rounds"] is None else counted(run["rounds"], "round")
    yield "network", f"{recipe.network.type}, {run['parameters'] / 1e6:.2f} M parameters"
    yield "bits", f"{rounds} x {run['channels']} channels a token of {time}x{height}x{width} pixels"
    if "attention" in run:
        yield "attention", f"{run['attention']}: what tokens of the text attend to"
    yield "weights", _origin(facts)
    if not recipe.imported:
        state = "" if run["complete"] else ", not finished"
        yield "step", f"{run['step']} of {recipe.training.steps}{state}"
    if facts.released is not None:
        yield "layout", f"that of the released {facts.released}"
    yield "file", f"{_code(facts.file)}, {facts.bytes / 1e6:.1f} MB in {facts.dtype}"
    yield "sha256", _code(facts.sha256)
    if record is not None:
        yield "begun" if not recipe.imported else "imported", record.began
        if record.resumed is not None:
            yield "last resumed", record.resumed
        yield "versions", ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in record.versions.items())
    yield "exported", f"{datetime.now(UTC):%Y-%m-%d} by grn {__version__}"


def _origin(facts: CardFacts) -> str:
    imported, name = facts.recipe.imported, facts.weights
    if imported:
        details = {key: imported[key] for key in ("file", "weights", "sha256") if key in imported}
        return f"imported: {', '.join(f'{key} {_code(value)}' for key, value in details.items())}"
    if name == "weights":
        return "as trained, not averaged"
    decay = facts.recipe.optimization.decays[int(name.removeprefix("ema") or 1) - 1]
    return f"moving average with a decay of {decay:g} a step ({name})"


def _data(facts: CardFacts) -> Iterator[str]:
    record = None if facts.record is None else facts.record.data
    if record is not None:
        of = "names and sizes of the sources" if record.unit == "sources" else "hashes of the stores' bits and captions"
        yield f"trained on {record.items} {_plain(record.unit)}; digest of the {of}: {_code(record.digest)}"
    if facts.run["kind"] == "tokenizer":
        if record is None:
            yield "what it was trained on is not recorded"
        return
    bits, text = facts.recipe.bits, facts.recipe.text
    if bits.stores:
        yield f"hashes of the stores: {_some([_code(store) for store in bits.stores])}"
    grids = [f"{grid} ({samples})" if samples else grid for grid, samples in bits.grids.items()]
    yield f"samples of each latent grid TxHxW: {_some(grids)}"
    yield f"tokenizer of the bits: {_identity(bits.tokenizer)}"
    if bits.labels:
        yield f"{counted(len(bits.labels), 'class')}: {_some([_code(label) for label in bits.labels])}"
    if text is not None:
        yield f"text encoder: {_identity(text.encoder)}, at most {text.max_tokens} tokens"


def _identity(known: Mapping[str, Any]) -> str:
    parts = [_code(known[key]) for key in ("name", "sha256") if key in known]
    return ", sha256 ".join(parts) if parts else "not recorded"


def _figures(log: Sequence[Mapping[str, Any]], recipe: Any) -> Iterator[str]:
    """The last validation and the last line of the training, with the steps they are of."""
    if not log:
        yield "None were recorded."
        return
    validated = [line for line in log if any(name.startswith("validation_") for name in line)]
    if validated:
        held_out = "sources of each kind" if recipe.kind == "tokenizer" else "samples"
        yield f"Of {recipe.data.validation} {held_out} that were held out, after step {validated[-1]['step']}:"
        yield _numbers(validated[-1], validation=True)
    trained = [line for line in log if "loss" in line]
    if trained:
        yield f"Of the training, means up to step {trained[-1]['step']}:"
        yield _numbers(trained[-1], validation=False)


def _numbers(line: Mapping[str, Any], *, validation: bool) -> str:
    rows = [
        (_code(name), f"{value:.6g}")
        for name, value in line.items()
        if name.startswith("validation_") == validation and name not in UNSHOWN
        if isinstance(value, int | float) and isfinite(value)
    ]
    return _table(("number", "value"), rows)


def _commands(facts: CardFacts) -> str:
    if facts.released is not None:
        return f"grn import {facts.file} run"
    if facts.run["kind"] == "tokenizer":
        return "grn tokenize PICTURES bits.zarr --tokenizer DIR\ngrn decode bits.zarr pictures --tokenizer DIR"
    prompts = " --prompts FILE --text-encoder ENCODER" if "attention" in facts.run else ""
    return f"grn sample DIR samples --tokenizer TOKENIZER{prompts}"


def _python(facts: CardFacts) -> str:
    if facts.released is not None:
        return f'from safetensors.torch import load_file\n\nweights = load_file("{facts.file}")'
    return f'import grncli\n\nnetwork = grncli.load_{facts.run["kind"]}("DIR")'


# Markdown


def _section(title: str, parts: Sequence[str]) -> list[str]:
    return [f"## {title}", *parts]


def _table(head: tuple[str, str], rows: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    lines = [head, ("---", "---"), *((name, value.replace("|", "\\|")) for name, value in rows)]
    return "\n".join(f"| {name} | {value} |" for name, value in lines)


def _list(items: Iterator[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _some(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - SHOWN} more, which the recipe lists"] if len(texts) > SHOWN else []
    return ", ".join([*texts[:SHOWN], *more])


def _plain(text: object) -> str:
    """Text of others on one line, without what Markdown would read in it."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", printable(str(text)))


def _code(text: object) -> str:
    shown = printable(str(text)) or " "
    ticks = "`" * (1 + _longest_run(shown))
    pad = " " if shown[0] in " `" or shown[-1] in " `" else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def _fenced(language: str, text: str) -> str:
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
