"""The site: built strictly, nothing on it comes from elsewhere, and its search knows what people look for."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def test_the_pictures_are_those_that_the_script_draws():
    drawn = dict(runpy.run_path(str(REPOSITORY / "docs" / "figures" / "draw.py"))["drawn"]())
    assert len(drawn) == 4
    for name, text in drawn.items():
        assert (REPOSITORY / "docs" / "figures" / name).read_text(encoding="utf-8") == text, name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="the extra msekit[docs] is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


class Fetched(HTMLParser):
    """What a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("script", "img", "source", "iframe"):
            self.addresses.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.addresses.append(given.get("href") or "")


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        fetched = Fetched()
        fetched.feed(page.read_text(encoding="utf-8"))
        assert fetched.addresses
        assert not [address for address in fetched.addresses if re.match(r"(https?:)?//", address)], page.name


@pytest.mark.slow
def test_links_between_pages_stay_links(site: Path):
    for page in REPOSITORY.glob("docs/*.md"):
        html = (site / f"{page.stem}.html").read_text(encoding="utf-8")
        shown = html.partition("<article")[2].partition("</article")[0]
        for target in re.findall(r"\]\(([\w-]+)\.md[#)]", page.read_text(encoding="utf-8")):
            assert f'href="{target}.html' in shown, (page.name, target)


@pytest.mark.slow
def test_search_has_what_people_look_for(site: Path):
    found = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    for word in ("nf4", "context", "resume", "collapsed", "HF_HOME"):
        assert [entry for entry in found if word.lower() in (entry["title"] + entry["text"]).lower()], word
    commands = next(entry["text"] for entry in found if entry["location"].endswith("#msekit-train"))
    assert "--parallel-seeds" in commands
