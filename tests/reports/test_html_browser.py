"""The HTML report in a real browser: quiet console, every figure drawn and legible, at a desk's and a phone's width.

With `MSEKIT_SCREENSHOTS=FOLDER` it leaves pictures to look at.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("uvicorn", reason="the extra msekit[serve] is not installed, whose browser this is")
pytest.importorskip("matplotlib", reason="the extra msekit[plot] is not installed")

from msekit.reporter import Reporter
from msekit.reports.html import html_report
from msekit.settings.resolve import resolve
from msekit.training.loop import train
from tests.serving import test_browser
from tests.serving.test_browser import browser, console, picture, view

__all__ = ["browser"]
pytestmark = test_browser.pytestmark
LEGIBLE = 9
"""CSS pixels of the smallest words on a phone."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of emotions and intensities."""
    folder = tmp_path_factory.mktemp("report")
    for dataset in ("synthetic-erc", "synthetic-msa"):
        given = {"backbone": "tiny-llama", "dataset": dataset, "output": folder / dataset / "seed-1", "seed": 1}
        given |= {"data": {"limit_train": 32}, "optim": {"epochs": 2}, "evaluation": {"bootstrap": 5}}
        train(resolve(given, task=dataset[-3:]), reporter=Reporter(quiet=True))
    file = folder / "report.html"
    file.write_text(html_report([folder / "synthetic-erc", folder / "synthetic-msa"]), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [1200, 375])
def test_every_figure_is_there_and_can_be_read(browser, page: Path, width: int):
    view(browser, (width, 900))
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    figures = browser.execute_script(
        "return [...document.images].map(i => [i.alt, i.complete && i.naturalWidth, i.clientWidth, i.clientHeight])"
    )
    assert len(figures) == 11
    for name, natural, shown, height in figures:
        assert natural, f"{name} is not drawn"
        assert height > 100
        smallest = 7.5 * 96 / 72 * shown / natural
        assert smallest >= LEGIBLE, f"{name}: words of {smallest:.1f} pixels"
    assert console(browser) == []
    picture(browser, f"report-{width}")
