"""What a kind of network is: the schema of its runs, how it is built, described, and imported from released files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn


class RunRecipe(Protocol):
    """The fields that every recipe of a run has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def network(self) -> Any: ...  # noqa: D102
    @property
    def training(self) -> Any: ...  # noqa: D102
    @property
    def imported(self) -> dict[str, str] | None: ...  # noqa: D102


AnyModule = TypeVar("AnyModule", bound=nn.Module)
AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)


@dataclass(frozen=True, kw_only=True)
class ReleasedWeights:
    """Weights of a released file, and what else is known of them.

    Parameters
    ----------
    contents : all that the file holds
    weights : the chosen ones, by their released names
    settings : the user's, for what the file does not contain
    imported : where they come from, for the recipe
    """

    file: Path
    contents: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    imported: dict[str, str]


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
    entries : what ``grn import --weights`` calls the weights of a released file, to their entry in it; the first that
        is there is the default
    settings : fields that ``grn import --set`` takes, each with an example
    convert : the recipe and the weights, by our names, of released ones; ValueError, LookupError, TypeError or
        ArithmeticError where they are none
    """

    name: str
    schema: type[AnyRecipe]
    build: Callable[[AnyRecipe], AnyModule]
    facts: Callable[[AnyRecipe], dict[str, Any]]
    sections: tuple[str, ...]
    entries: Mapping[str, str]
    settings: Mapping[str, str]
    convert: Callable[[ReleasedWeights], tuple[AnyRecipe, dict[str, Tensor]]]
