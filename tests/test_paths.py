"""Where the cache lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from msekit.paths import cache_root


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        (None, None, "/home/me/.cache/msekit"),
        (None, "/big/cache", "/big/cache/msekit"),
        ("~/mine", "/big/cache", "/home/me/mine"),
        (None, "relative", "/home/me/.cache/msekit"),
        ("", "", "/home/me/.cache/msekit"),
    ],
)
def test_the_users_variables_are_followed(
    monkeypatch: pytest.MonkeyPatch, own: str | None, shared: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("MSEKIT_CACHE", own), ("XDG_CACHE_HOME", shared)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_root() == Path(expected)
