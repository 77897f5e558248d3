"""Pages are true: generated ones are up to date, links lead somewhere, code blocks are taken by the program."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from grncli.cli import app
from grncli.runs.generator_recipe import AskedGeneratorRecipe
from grncli.runs.recipe import read_recipe
from grncli.runs.tokenizer_recipe import TokenizerRecipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCHEMAS = {"train-tokenizer": TokenizerRecipe, "train-gen": AskedGeneratorRecipe}
README_LINES = 120


def name_of(path):
    return str(path.relative_to(ROOT))


def blocks(path, language):
    return [code for kind, code in FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


def prose(path):
    """A page without what is code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path):
    """The names that a forge and the site give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in plain}


def links(path):
    return re.findall(r"\]\(([^()\s]+)\)", FENCE.sub("", path.read_text(encoding="utf-8")))


def commands(path):
    """Calls of ``grn`` in the shell blocks of a page, as words, without what else their lines hold."""
    lines = "\n".join(blocks(path, "sh")).replace("\\\n", " ").splitlines()
    for line in lines:
        for piece in re.split(r"\s[|>]\s|&&|;", line):
            words = shlex.split(piece, comments=True)
            if "grn" in words[:3]:
                yield words[words.index("grn") + 1 :]


CALLS = [
    pytest.param(words, id=f"{name_of(path)}: {' '.join(words)[:60]}") for path in PAGES for words in commands(path)
]


def test_generated_pages_say_what_the_program_says():
    done = subprocess.run([sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run `python docs/generate.py` and commit what it writes:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    lost = []
    for link in links(path):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pictures_say_what_they_show(path):
    assert [text for text in re.findall(r"!\[([^]]*)\]", path.read_text(encoding="utf-8")) if len(text) < 10] == []


@pytest.mark.parametrize("words", CALLS)
def test_commands_in_pages_are_taken_by_the_program(words):
    command, context = get_command(app), None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, list(words), parent=context)
        name, *words = [*context._protected_args, *context.args]
        command = command.commands[name]
    taken = command.make_context(command.name, list(words), parent=context).params
    if command.name in SCHEMAS:
        recipe = Path(taken["recipe"])
        path = recipe if recipe.suffix else Path("recipes", f"{recipe}.yaml")
        changed = [word for word in words if re.match(r"[a-z_.]+=", word)]
        read_recipe(ROOT / path, SCHEMAS[command.name], changed)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_in_pages_compiles(path):
    for code in blocks(path, "python"):
        if not code.startswith("grncli."):  # a signature of the reference
            ast.parse(code)


def test_names_in_the_paper_to_code_page_are_there():
    page = DOCS / "paper-to-code.md"
    named = re.findall(r"\[`(\w+)\.(\w+)`\]\(\.\./(grncli/[\w/]+\.py)\)", page.read_text(encoding="utf-8"))
    lost = []
    for module, name, file in named:
        found = {getattr(node, "name", None) for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body}
        if Path(file).stem != module or name not in found:
            lost.append(f"{module}.{name}")
    assert len(named) > 20
    assert not lost


def test_the_readme_is_read_in_three_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_every_page_is_on_the_map():
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")}
    alone = [name_of(path) for path in DOCS.glob("*.md") if path.resolve() not in listed and path.name != "README.md"]
    assert not alone


def test_the_site_builds_without_a_warning(tmp_path):
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        tmp_path / "read",
        DOCS,
        tmp_path / "site",
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "commands/tokenize.html" in (tmp_path / "site/index.html").read_text(encoding="utf-8")
