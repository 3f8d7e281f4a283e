"""The site in a real browser: it fits a desk and a phone, says nothing to the console, and its search finds.

With `MSEKIT_SCREENSHOTS=FOLDER` it leaves pictures to look at.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("uvicorn", reason="the extra msekit[serve] is not installed, whose browser this is")

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.serving import test_browser
from tests.serving.test_browser import browser, console, picture, view
from tests.test_site import site

__all__ = ["browser", "site"]
pytestmark = test_browser.pytestmark
PAGES = (
    "index.html",
    "train.html",
    "commands.html",
    "examples/does_it_listen.html",
    "results/accuracy.html",
    "api.html",
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("width", [1200, 390])
def test_pages_fit_and_say_nothing_to_the_console(browser, address: str, width: int):
    view(browser, (width, 900))
    for page in PAGES:
        browser.get(f"{address}/{page}")
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), page
        broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        assert browser.execute_script(broken) == [], page
        assert console(browser) == [], page
        picture(browser, f"site-{page.replace('/', '-').removesuffix('.html')}-{width}")


def results(page: Any) -> list[Any]:
    return page.find_elements(By.CSS_SELECTOR, ".md-search-result__item")


def test_search_finds(browser, address: str):
    view(browser, (1200, 900))
    for word in ("nf4", "context", "resume"):
        browser.get(f"{address}/index.html?q={word}")
        found = WebDriverWait(browser, 20).until(results)
        assert word in " ".join(item.get_attribute("textContent") for item in found).lower()
    picture(browser, "site-search")
