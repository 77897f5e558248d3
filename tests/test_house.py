"""The rooms of the package: what may import what, one name for one thing, and no module that outgrows its room."""

import ast
import runpy
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "grncli"
# From the ground up: a module imports its own floor and those below it. A floor lists rooms that do not know each
# other, unless one name stands for several.
FLOORS = [
    ["runtime"],
    ["hbq", "tokens", "conditions", "schedules", "refinement", "rng"],
    ["store"],
    ["models", "datasets"],
    ["media", "text"],
    ["runs"],
    ["metrics", "bit_statistics"],
    ["tokenizing", "decoding", "prompt_encoding", "captioning", "editing", "transfer", "demo", "machine"],
    ["sampling", "training"],
    ["evaluation", "bench"],
    ["costs", "reporting", "status"],
    ["calls"],
    ["cli"],
    ["__init__", "__main__"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60  # lines


def modules():
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(path):
    """Modules of ours that a module imports, also inside functions and for types."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "grncli":
            module = node.module.removeprefix("grncli").removeprefix(".")
            for alias in node.names:
                full = f"{module}.{alias.name}".removeprefix(".")
                names.add(full if full in modules() else module or "__init__")
    return names


GRAPH = {name: imports(path) for name, path in modules().items()}


def test_no_import_runs_upward():
    upward = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if FLOOR[other.split(".")[0]] > FLOOR[name.split(".")[0]] and other != "__init__"
    ]
    assert not upward


def test_no_modules_import_each_other_in_a_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(GRAPH.get(name, ())):
            if other != "__init__":
                visit(other)
        path.pop()
        done.add(name)

    for name in GRAPH:
        if name != "__init__":
            visit(name)


@pytest.mark.parametrize("kind", ["modules", "classes"])
def test_a_name_means_one_thing(kind):
    places = defaultdict(list)
    for name, path in modules().items():
        if kind == "modules" and path.stem != "__init__":
            places[path.stem].append(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if kind == "classes" and isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_modules_and_functions_keep_their_size():
    long = []
    for name, path in modules().items():
        text = path.read_text()
        if len(text.splitlines()) > LONGEST_MODULE:
            long.append(f"{name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            # The options of a command, and of its call, are declared in the signature.
            if isinstance(node, ast.FunctionDef) and not name.startswith(("cli.", "calls.")):
                lines = node.end_lineno - node.lineno + 1
                long += [f"{name}.{node.name}: {lines} lines"] if lines > LONGEST_FUNCTION else []
    assert not long


def test_the_top_of_the_package_holds_the_method():
    loose = [name for name in GRAPH if "." not in name and not (PACKAGE / name).is_dir()]
    assert len(loose) <= 8, loose


@pytest.mark.parametrize("script", sorted(PACKAGE.parent.glob("recipes/*.py")), ids=lambda path: path.name)
def test_the_scripts_beside_the_recipes_import_what_there_is(script):
    assert callable(runpy.run_path(str(script), run_name="script")["main"])
