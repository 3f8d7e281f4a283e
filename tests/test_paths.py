"""Where the cache lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from msekit.paths import cache_root


@pytest.mark.parametrize(
    ("own", "hub", "shared", "expected"),
    [
        (None, None, None, "/home/me/.cache/msekit"),
        (None, None, "/big/cache", "/big/cache/msekit"),
        ("~/mine", "/big/hub", "/big/cache", "/home/me/mine"),
        (None, "/big/hub", "/big/cache", "/big/hub/msekit"),
        (None, "~/hub", None, "/home/me/hub/msekit"),
        (None, None, "relative", "/home/me/.cache/msekit"),
        ("", "", "", "/home/me/.cache/msekit"),
    ],
)
def test_the_users_variables_are_followed(
    monkeypatch: pytest.MonkeyPatch, own: str | None, hub: str | None, shared: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("MSEKIT_CACHE", own), ("HF_HOME", hub), ("XDG_CACHE_HOME", shared)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_root() == Path(expected)
