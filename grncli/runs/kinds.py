"""What a kind of network is: the schema of its runs, how it is built, described, and imported from released files."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from grncli.runtime.tensor_files import LazyTensor


class RunRecipe(Protocol):
    """The fields that every recipe of a run has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def network(self) -> Any: ...  # noqa: D102
    @property
    def optimization(self) -> Any: ...  # noqa: D102
    @property
    def training(self) -> Any: ...  # noqa: D102
    @property
    def imported(self) -> dict[str, str] | None: ...  # noqa: D102


AnyModule = TypeVar("AnyModule", bound=nn.Module)
AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)


Weights = Mapping[str, Tensor | LazyTensor]


@dataclass(frozen=True, kw_only=True)
class ReleasedWeights:
    """Weights of a released file, and what else is known of them.

    Parameters
    ----------
    contents : all that the file holds
    weights : the chosen ones, by their released names
    settings : the user's, for what the file does not contain
    """

    file: Path
    contents: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReleasedLayout(Generic[AnyRecipe]):
    """How released files hold one kind of network, and how a run is made of them.

    Parameters
    ----------
    name : of the network, for messages
    entries : what ``grn import --weights`` calls the weights of a file, to their dotted entry in it; the first that is
        there is the default
    plain : how names of weights begin in a file that holds nothing but them
    settings : fields that ``grn import --set`` takes, each with an example
    texts : those of them whose values are taken as they are written, not as YAML
    convert : the recipe without ``imported``, and the weights by our names, of released ones; ValueError, LookupError,
        TypeError or ArithmeticError where they are none
    network : type of the recipes' sizes
    release : of a recipe and weights by our names, the weights by their released names, and the ``settings`` that
        ``convert`` needs beside them; ValueError with the first field that the layout cannot hold
    """

    name: str
    entries: Mapping[str, str]
    settings: Mapping[str, str]
    convert: Callable[[ReleasedWeights], tuple[AnyRecipe, Weights]]
    network: type[Any]
    release: Callable[[AnyRecipe, Weights], tuple[Weights, dict[str, Any]]]
    plain: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def find(self, contents: Mapping[Any, Any]) -> dict[str, Any]:
        """What lies where a file of this layout has weights, by what ``--weights`` calls them."""
        if self.plain and any(plain_name(name).startswith(self.plain) for name in contents):
            return {PLAIN: contents}
        found = {name: _entry(contents, path) for name, path in self.entries.items()}
        return {name: entry for name, entry in found.items() if entry is not None}

    @property
    def places(self) -> str:
        """Where its weights are expected, as a part of a sentence."""
        entries = " or ".join(map(repr, self.entries.values()))
        return f"the weights of a {self.name} under {entries}{', or as the file itself' if self.plain else ''}"


SETTINGS = "settings"  # in the header of a file in a released layout that grn export wrote: ``settings`` of its layout
PLAIN = "model"  # what ``--weights`` calls those of a file that holds nothing else
_WRAPPERS = re.compile(r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_orig_mod\.|^module\.")


def plain_name(name: Any) -> str:
    """The name of a weight without what sharding, checkpointing, compilation and data parallelism add to it."""
    return _WRAPPERS.sub("", str(name))


def _entry(contents: Any, path: str) -> Any:
    for part in path.split("."):
        contents = contents.get(part) if isinstance(contents, Mapping) else None
    return contents


@dataclass(frozen=True, kw_only=True)
class NetworkKind(Generic[AnyModule, AnyRecipe]):
    """A kind of network that runs hold.

    Parameters
    ----------
    name : the recipe's field ``kind``
    schema : of a run's own recipe
    build : makes the network of a recipe, with weights yet to be filled
    facts : what ``grn info`` prints beyond what every run has
    sections : the parts of a recipe that an imported run has
    layouts : of the released files that hold such a network
    """

    name: str
    schema: type[AnyRecipe]
    build: Callable[[AnyRecipe], AnyModule]
    facts: Callable[[AnyRecipe], dict[str, Any]]
    sections: Callable[[AnyRecipe], tuple[str, ...]]
    layouts: tuple[ReleasedLayout[AnyRecipe], ...]
