"""Options that several commands take, each declared once; an option of one command stands in its signature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from typer import Option

from grncli.calls.option_forms import worker_count

if TYPE_CHECKING:
    from grncli.evaluation.feature_collection import NetworkOptions
    from grncli.evaluation.measuring import PictureReading
    from grncli.evaluation.text_image_scores import TextImageOptions

MAX_SEED = 2**63 - 1


def one_of(*words: str, others: Sequence[str] = ()) -> dict[str, Any]:
    """For `Option`: the help shows ``words`` and ``others`` as alternatives, and the shell completes ``words``."""

    def starting(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return {"metavar": "|".join([*words, *others]), "autocompletion": starting}


def recipe_names(kind: str = "") -> Callable[[str], list[str]]:
    """For `Argument`: the shell completes the names of shipped recipes, else files as it always does."""

    def starting(incomplete: str) -> list[str]:
        from grncli.runs.shipped_recipes import shipped_names  # only here: no other command asks

        return [name for name in shipped_names(kind) if name.startswith(incomplete)]

    return starting


# How a command runs
Device = Annotated[str, Option(**one_of("auto", "cpu", "cuda", "mps"), help="Where to compute.")]
Dtype = Annotated[str, Option(**one_of("auto", "float32", "bfloat16"), help="Number format of the network.")]
TrainingDtype = Annotated[
    str | None, Option(**one_of("auto", "float32", "bfloat16"), help="Number format: short for training.dtype=...")
]
Batch = Annotated[
    int | None,
    Option(metavar="B", min=1, help="Samples that go through the network at once; default: by their size."),
]
Workers = Annotated[
    int | None, Option(metavar="W", min=0, help="Decoding processes; default: half the cores, at most 8.")
]
Part = Annotated[
    str,
    Option(
        **one_of("auto", others=["i/n"]),
        help="Make part i of n, counted from 0; auto: by the task of a Slurm array or the process of srun or torchrun.",
    ),
]
MaxTime = Annotated[str | None, Option(metavar="3h50m", help="Stop and exit with 75 after this time.")]
Strict = Annotated[bool, Option("--strict", help="Stop at the first source that cannot be read.")]
Json = Annotated[bool, Option("--json", help="Print a JSON document.")]
DryRun = Annotated[bool, Option("--dry-run", help="Print what the work takes, by a few seconds of it; write nothing.")]
LogJson = Annotated[bool, Option("--json", help="Print the last line of the log as JSON.")]

# Which media, and how they are read
Columns = Annotated[
    str | None,
    Option(
        metavar="path=NAME,...",
        help="Columns of a manifest for path, label, caption, begin and end (seconds of a clip), where they are called "
        "otherwise.",
    ),
]
Size = Annotated[
    str | None,
    Option(metavar="256|HxW|native", help="Square (ADM centre crop), cover and crop to HxW, or as it is (default)."),
]
Budget = Annotated[
    str | None,
    Option(
        **one_of("0.06M", "0.25M", "0.41M", "0.92M", "1M", "2M", others=["WxH"]),
        help="Instead of --size: cover and crop to about so many pixels, at the nearest of 15 aspect ratios.",
    ),
]
EvalSize = Annotated[
    str | None,
    Option(metavar="256|HxW|native", help="Bring pictures to a size; native takes them as they are, of any size."),
]
Frames = Annotated[int | None, Option(metavar="N", help="Frames a clip, 1 + 4n; default: whole clips.")]
EvalFrames = Annotated[
    int | None, Option(metavar="N", min=1, help="Frames of a window of a clip; default: whole clips.")
]
Fps = Annotated[
    float | None, Option(metavar="F", help="Resample clips in time to F frames a second (images ignore this).")
]
Limit = Annotated[int | None, Option(metavar="N", min=1, help="Only the first N sources.")]
Sample = Annotated[
    int | None,
    Option(metavar="N", min=1, help="Only N sources, drawn by a hash of their names: the same in every command."),
]

# What a generator makes
Classes = Annotated[str, Option(metavar="all|0,3,7", help="Classes to sample, by number or name.")]
Weights = Annotated[str, Option(**one_of("ema", "ema2", "weights"), help="Which weights of the run.")]
Seed = Annotated[int, Option(metavar="N", min=0, max=MAX_SEED, help="Samples depend on it and on their number only.")]

# What is measured, with which networks
StoreTokenizer = Annotated[str | None, Option(metavar="RUN", help="Tokenizer that decodes bit stores.")]
Metrics = Annotated[str | None, Option(metavar="A,B,...", help="What to measure; default: all that can be.")]
Features = Annotated[
    str | None,
    Option(
        **one_of("inception", "i3d", others=["FILE", "RUN"]),
        help="Feature network: a name, a weights or TorchScript file, or a tokenizer's run.",
    ),
]
TextImageNetwork = Annotated[
    tuple[Path, Path] | None,
    Option(
        metavar="IMAGE TEXT",
        help="Encoders of pictures (uint8 [n, 3, H, W]) and of their prompts (a list of texts, or int64 token ids "
        "[n, L]) to float [n, D], TorchScript or .pt2: programs, so use files of people you trust.",
    ),
]
TextImageTokenizer = Annotated[
    Path | None, Option(metavar="FILE", help="The tokenizer.json of a TEXT encoder that takes token ids.")
]
Lpips = Annotated[Path | None, Option(metavar="DIR", help="LPIPS weights; default: measured where the cache has them.")]
Cache = Annotated[Path | None, Option(metavar="DIR", help="Folder of downloaded weights; default: ~/.cache/grn.")]
Download = Annotated[bool, Option("--download", help="Fetch published weights that are missing, once.")]

# Files beside the result
Plot = Annotated[Path | None, Option(metavar="FILE.png|svg|pdf", help="Write a plot.")]
Html = Annotated[Path | None, Option(metavar="FILE.html", help="Write the whole report as one page.")]


def overwrite(what: str) -> Any:
    """The flag ``--overwrite``, whose help says ``what`` is replaced."""
    return Option("--overwrite", help=what)


@dataclass(frozen=True, kw_only=True)
class NetworkGroup:
    """Which feature network is used, and where its weights are found."""

    features: Features = None
    cache: Cache = None
    download: Download = False

    def settings(self) -> "NetworkOptions":
        """The same for the stages."""
        from grncli.evaluation.feature_collection import NetworkOptions
        from grncli.runtime.cache_folder import default_cache

        return NetworkOptions(features=self.features, cache=self.cache or default_cache(), download=self.download)


@dataclass(frozen=True, kw_only=True)
class TextImageGroup:
    """Which network compares pictures with their prompts."""

    text_image_network: TextImageNetwork = None
    text_image_tokenizer: TextImageTokenizer = None

    def settings(self) -> "TextImageOptions | None":
        """The same for the stages."""
        from grncli.calls.measuring_calls import text_image_options

        return text_image_options({name: value for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class PictureGroup:
    """Which pictures are measured, and how they are read."""

    size: EvalSize = None
    frames: EvalFrames = None
    fps: Fps = None
    limit: Limit = None
    sample: Sample = None
    batch: Batch = None
    workers: Workers = None
    strict: Strict = False

    def reading(self, device: object, tokenizer: str | None) -> "PictureReading":
        """The same for the stages, with the device and the tokenizer that decode stores."""
        from grncli.evaluation.measuring import PictureReading

        workers = worker_count(self.workers)
        return PictureReading(**vars(self) | {"workers": workers, "device": str(device), "tokenizer": tokenizer})


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a group (a dataclass) by the options of the group."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        kinds = get_type_hints(groups[name], include_extras=True)
        parameters += [
            Parameter(option.name, Parameter.KEYWORD_ONLY, default=option.default, annotation=kinds[option.name])
            for option in fields(groups[name])
        ]

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{option.name: values.pop(option.name) for option in fields(group)})
        command(**values)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
