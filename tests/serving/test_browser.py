"""A user's whole path in a real browser: `msekit serve` as a process, Chromium without a window, the keyboard."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra msekit[serve] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from msekit.data.readers.published import Row

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
WIDE, PHONE = (1200, 900), (390, 844)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.multiprocess,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="chromium or chromedriver is not installed"),
]


def started(*runs: Path) -> tuple[subprocess.Popen[str], str]:
    """`msekit serve` on a free port, and the address that it prints."""
    command = [sys.executable, "-m", "msekit", "serve", *map(str, runs), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    assert process.stderr is not None
    printed, end = "", time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if select.select([process.stderr], [], [], 1)[0]:
            printed += process.stderr.readline()
        if address := re.search(r"http://127\.0\.0\.1:\d+", printed):
            return process, address.group()
    process.kill()
    raise AssertionError(f"msekit serve did not start: {printed}")


@pytest.fixture(scope="module")
def server(erc_run: Path, msa_run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process, address = started(erc_run, msa_run)
    yield process, address
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("browser")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--no-first-run"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(CHROMEDRIVER)))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def view(browser: webdriver.Chrome, size: tuple[int, int]) -> None:
    """A viewport of this size in CSS pixels; a window cannot be as narrow as a phone."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def fits(browser: webdriver.Chrome) -> None:
    """Nothing lies beside the page or sticks out of its box."""
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    outside = """return [...document.querySelectorAll('section *')].filter(one => {
        const inner = one.getBoundingClientRect(), box = one.closest('section').getBoundingClientRect();
        return inner.right > box.right + 1 || inner.left < box.left - 1; }).map(one => one.outerHTML)"""
    assert browser.execute_script(outside) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []


def console(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def picture(browser: webdriver.Chrome, name: str) -> None:
    """A screenshot of the whole page, where MSEKIT_SCREENSHOTS names a folder."""
    if folder := os.environ.get("MSEKIT_SCREENSHOTS"):
        import base64

        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        Path(folder, f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


def press(browser: webdriver.Chrome, *keys: str) -> Any:
    """Keys to whatever has the focus; returns what has it then."""
    ActionChains(browser).send_keys(*keys).perform()
    return browser.switch_to.active_element


def submit(browser: webdriver.Chrome) -> None:
    """Tab to the button and press it."""
    before = browser.find_element(By.TAG_NAME, "html").id
    for _ in range(12):
        if browser.switch_to.active_element.tag_name == "button":
            break
        press(browser, Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.text == "Predict"
    assert focused.value_of_css_property("outline-style") == "solid", "the focus is seen"
    press(browser, Keys.ENTER)
    WebDriverWait(browser, 60).until(lambda driver: driver.find_element(By.TAG_NAME, "html").id != before)


def columns(browser: webdriver.Chrome) -> dict[str, str]:
    """Heading → answer of each column."""
    sections = browser.find_elements(By.CSS_SELECTOR, ".answers section")
    return {
        part.find_element(By.TAG_NAME, "h3").text: part.find_element(By.TAG_NAME, "strong").text for part in sections
    }


def chooser_text(browser: webdriver.Chrome) -> str:
    """What stands in the list of samples."""
    return Select(browser.find_element(By.NAME, "sample")).first_selected_option.text


def test_the_whole_path(
    server: tuple[subprocess.Popen[str], str], browser: webdriver.Chrome, erc_rows: list[Row], tmp_path: Path
) -> None:
    address = server[1]
    view(browser, WIDE)
    browser.get(address)
    fits(browser)
    assert browser.switch_to.active_element.get_attribute("name") == "text", "typing works at once"
    press(browser, "I never thought that you would come.")
    picture(browser, "wide-1-typed")
    submit(browser)
    assert list(columns(browser)) == ["all that was given"]
    shares = [part.text for part in browser.find_elements(By.CSS_SELECTOR, ".share")]
    assert sum(float(share.split()[0]) for share in shares) == pytest.approx(100, abs=0.5)
    assert browser.find_element(By.NAME, "text").get_attribute("value").startswith("I never thought")

    np.save(tmp_path / "sound.npy", erc_rows[0].audio)
    browser.find_element(By.NAME, "audio").send_keys(str(tmp_path / "sound.npy"))
    submit(browser)
    assert list(columns(browser)) == ["all that was given", "without audio"]

    browser.find_element(By.NAME, "text").clear()
    chooser = browser.find_element(By.NAME, "sample")
    chooser.send_keys(browser.find_elements(By.CSS_SELECTOR, "option")[3].text[:12])
    submit(browser)
    both = ["all that was given", "without audio", "without vision", "without audio and vision"]
    assert list(columns(browser)) == both
    assert "the data set says" in browser.find_element(By.TAG_NAME, "h2").text
    assert browser.find_element(By.NAME, "sample").get_attribute("value") == "2"
    top = browser.execute_script("return document.getElementById('answer').getBoundingClientRect().top")
    assert top < WIDE[1], "the answer is in view"
    assert browser.find_element(By.TAG_NAME, "blockquote").text in chooser_text(browser)
    picture(browser, "wide-2-sample")
    fits(browser)
    view(browser, PHONE)
    fits(browser)
    picture(browser, "phone-1-sample")

    link = browser.find_element(By.CSS_SELECTOR, "nav a")
    link.send_keys(Keys.ENTER)
    WebDriverWait(browser, 60).until(lambda driver: "msa" in driver.title)
    fits(browser)
    browser.find_element(By.NAME, "sample").send_keys(Keys.ARROW_DOWN)
    submit(browser)
    assert list(columns(browser)) == both
    assert all(re.fullmatch(r"[+-]\d\.\d\d", value) for value in columns(browser).values())
    fits(browser)
    picture(browser, "phone-2-intensity")
    view(browser, WIDE)
    picture(browser, "wide-3-intensity")
    fits(browser)
    assert console(browser) == []


def test_a_bad_upload_is_a_message(
    server: tuple[subprocess.Popen[str], str], browser: webdriver.Chrome, tmp_path: Path
) -> None:
    view(browser, PHONE)
    browser.get(server[1])
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not an archive")
    browser.find_element(By.NAME, "vision").send_keys(str(tmp_path / "bad.npz"))
    submit(browser)
    message = browser.find_element(By.CSS_SELECTOR, "[role=alert]")
    assert "cannot be read" in message.text
    assert not columns(browser)
    fits(browser)
    picture(browser, "phone-3-bad-upload")
    browser.find_element(By.NAME, "text").send_keys("Well.")
    submit(browser)
    assert list(columns(browser)) == ["all that was given"], "the page goes on"
    assert console(browser) == []


def test_ctrl_c_ends_it(server: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = server
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=30)
    assert "Traceback" not in printed
    assert process.returncode == 0
