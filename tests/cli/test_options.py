"""Options of the command line: one of several commands is the same everywhere, unless its meaning differs."""

from collections import defaultdict

import pytest
from typer.main import get_command

from grncli.cli import app

# Options whose meaning depends on the command: in how many ways they are declared.
MEANINGS = {
    **dict.fromkeys(("clips", "compare", "dry_run", "fps", "grid", "json", "out", "per_class", "prompts"), 2),
    **dict.fromkeys(("reference", "select", "steps", "weights"), 2),
    "dtype": 3,
    "frames": 3,
    "size": 3,
    "seed": 3,
    "rounds": 4,
    "sheet": 4,
    "overwrite": 8,
    "tokenizer": 8,
}


def options():
    """Every option by name: command, metavar and help of each place where it is declared."""
    found = defaultdict(list)

    def visit(command, name):
        for child, inner in getattr(command, "commands", {}).items():
            visit(inner, f"{name} {child}".strip())
        for option in command.params:
            if option.param_type_name == "option":
                found[option.name].append((name, option.metavar, option.help))

    visit(get_command(app), "")
    return found


@pytest.mark.parametrize("name", sorted(options()))
def test_an_option_is_declared_once_for_each_meaning(name):
    assert len({declared[1:] for declared in options()[name]}) == MEANINGS.get(name, 1), options()[name]
