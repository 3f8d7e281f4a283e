"""What the site has beside the files of this folder: every command, the examples, pages that lie elsewhere in the
repository; and links that lead there. MkDocs calls the functions that begin with `on_`."""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[1]
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "results/index.md",
    "benchmarks/TRIED.md": "results/tried.md",
    **{f"benchmarks/{topic}/RESULTS.md": f"results/{topic}.md" for topic in ("accuracy", "speed", "memory", "gpu")},
}
"""Files of the repository → pages of the site."""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {page: (REPOSITORY / file).read_text("utf-8") for file, page in ELSEWHERE.items() if page != "index.md"}
    pages["commands.md"] = commands_page()
    for script in sorted((REPOSITORY / "examples").glob("*.py")):
        pages[f"examples/{script.stem}.md"] = example_page(script)
    for notebook in sorted((REPOSITORY / "examples").glob("*.ipynb")):
        pages[f"examples/{notebook.stem}.md"] = notebook_page(notebook)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to files of the repository to their pages; where there is none, the words alone stay."""
    added = {name: file for file, name in ELSEWHERE.items() if name != "index.md"}  # that one is docs/index.md itself
    file = added.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", lambda link: _led(link, file, page.file.src_uri), markdown)


def _led(link: re.Match[str], file: str, page: str) -> str:
    words, target = link.groups()
    place, mark, anchor = target.partition("#")
    if "://" in place or not place:
        return link.group()
    path = posixpath.normpath(posixpath.join(posixpath.dirname(file), place))
    there = ELSEWHERE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
    if there is None:
        return words
    return f"[{words}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{mark}{anchor})"


def example_page(script: Path) -> str:
    """A script of the gallery: what its docstring says, then all of it."""
    source = script.read_text(encoding="utf-8")
    title, _, words = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    body = source[source.index('"""', 3) + 3 :].strip()
    words = re.sub(r"^ {4}(.*)$", r"```\n\1\n```", words.strip(), flags=re.MULTILINE)
    return f"# {title.rstrip('.')}\n\n{words}\n\n```python\n{body}\n```\n"


def notebook_page(notebook: Path) -> str:
    """A notebook's cells; its file is kept without outputs."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook.read_text("utf-8"))["cells"]]
    parts = [source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells]
    return "\n\n".join([*parts, f"This page is the notebook `examples/{notebook.name}`."]) + "\n"


def commands_page() -> str:
    """Every command with its options, from the command line itself."""
    from typer.main import get_command

    from msekit.cli.main import app

    lines = ["# Commands", "", "What `msekit COMMAND --help` says. In brackets: what is taken where nothing is given."]
    for name, command in _leaves("msekit", get_command(app)):
        lines += ["", f"## {name}", "", (command.help or "").strip(), "", "| argument or option | |", "|---|---|"]
        lines += [_row(parameter) for parameter in command.params]
    return "\n".join(lines) + "\n"


def _row(parameter: Any) -> str:
    """A line of a command's table: the argument or option, what it is for, its default."""
    names = (*parameter.opts, *parameter.secondary_opts)
    if parameter.param_type_name == "argument":
        names = (parameter.metavar or parameter.name.upper(),)
    words = getattr(parameter, "help", "") or ""
    if isinstance(parameter.default, (str, int, float)) and not isinstance(parameter.default, bool):
        words += f" [{parameter.default}]"
    escaped = re.sub(r"([\[\]|<>*])", r"\\\1", words.strip())
    return f"| {' '.join(f'`{name}`' for name in names)} | {escaped} |"


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Commands that do something, by their whole names."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, inner in sorted(command.commands.items()):
        yield from _leaves(f"{name} {word}", inner)
