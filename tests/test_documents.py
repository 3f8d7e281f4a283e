"""The documents' promises: links lead somewhere, commands exist, tables of results say where they come from."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from msekit.cli.main import app

REPOSITORY = Path(__file__).parents[1]
GUIDES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *REPOSITORY.glob("docs/*.md"),
]
RESULTS = [*REPOSITORY.glob("benchmarks/*/RESULTS.md"), REPOSITORY / "benchmarks" / "TRIED.md"]
DOCUMENTS = [*GUIDES, *RESULTS, REPOSITORY / "benchmarks" / "RESULTS.md"]


def names(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def anchors(document: Path) -> set[str]:
    """What a heading is called in a link, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[list[str]]:
    """Every `msekit …` of a text, in words: in a block of code, or between backticks."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`(msekit [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    found = [re.sub(r"\s#.*", "", line).split() for line in [*lines, *inline]]
    return [words[1:] for words in found if words[:1] == ["msekit"]]


def unknown(words: list[str]) -> list[str]:
    """Of a command line: a command or options that msekit does not have."""
    command: Any = get_command(app)
    while words and hasattr(command, "commands"):
        name, words = words[0], words[1:]
        if name in command.commands:
            command = command.commands[name]
        elif name != "--debug":
            return [] if "|" in name or not re.fullmatch(r"[a-z-]+", name) else [name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {re.split(r"[=,|]", word)[0] for word in words if word.startswith("--")}
    return sorted(options - known - {"--help"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_lead_somewhere(document: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if place.startswith("http"):
            continue
        target = document.parent / place if place else document
        assert target.exists(), link
        of_a_page = anchor in ("only-light", "only-dark") and target.suffix == ".svg"  # on which a picture is shown
        assert not anchor or of_a_page or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_commands_exist(document: Path):
    text = document.read_text(encoding="utf-8")
    for words in commands(text):
        assert not unknown(words), f"msekit {' '.join(words)}"
    for module in re.findall(r"python -m ((?:benchmarks|msekit)[\w.]*)", text):
        assert (REPOSITORY / f"{module.replace('.', '/')}.py").is_file(), module


def test_an_option_that_there_is_not_is_seen():
    assert unknown(["train", "--backbone", "x", "--speed", "9"]) == ["--speed"]
    assert unknown(["backbone", "lst"]) == ["lst"]
    assert sum(len(commands(document.read_text(encoding="utf-8"))) for document in GUIDES) > 50


def test_the_readme_is_short_and_shows_a_picture_a_table_and_output():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 150
    assert all(len(line) <= 140 for line in lines)
    assert "plug-in-dark.svg" in text
    table = next(number for number, line in enumerate(lines) if line.startswith("| plug-in of recipe `best`"))
    assert table <= 60, "on the first screens"
    assert "seed 1111" in text, "real output"


def test_what_troubleshooting_quotes_is_what_msekit_says():
    sources = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "msekit").rglob("*.py")]
    said = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))
    rows = re.findall(r"^\| (.*?) \|", (REPOSITORY / "docs" / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    quoted = [words for row in rows for words in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 20
    assert not [words for words in quoted if words not in said]


def test_the_readmes_table_is_that_of_the_results():
    readme, results = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md"))
    for figure in ("61.0 ± 1.6", "55.7 ± 0.7", ".758 ± .003", "52.8 ± 6.8", "48.5 ± 1.5", ".525 ± .010", "62.5 ± 1.7"):
        assert figure in readme
        assert figure in results


def test_every_page_of_the_site_is_in_its_contents():
    contents = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.name for path in REPOSITORY.glob("docs/*.md")} | {
        f"examples/{path.stem}.md" for path in REPOSITORY.glob("examples/*.*")
    }
    assert len(pages) > 20
    assert not [page for page in pages if f": {page}\n" not in contents]


@pytest.mark.parametrize("document", RESULTS, ids=names)
def test_a_table_says_where_it_comes_from(document: Path):
    paragraphs = document.read_text(encoding="utf-8").split("\n\n")
    for above, table in pairwise(paragraphs):
        if table.startswith("|"):
            assert re.search(r"achines? [A-D]|same|arithmetic|real runs above", above), table.splitlines()[0]
