"""The kinds of networks that runs hold."""

from typing import Any

from grncli.runs.generators import GENERATOR
from grncli.runs.kinds import NetworkKind
from grncli.runs.tokenizers import TOKENIZER

KINDS: tuple[NetworkKind[Any, Any], ...] = (TOKENIZER, GENERATOR)
