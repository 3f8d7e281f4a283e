"""A file of the cache that is mapped into memory: reading on where another program cut it short ends the process.

msekit itself never writes into such a file: what it builds is renamed into its place, and what was mapped stays.
"""

from __future__ import annotations

import os
from pathlib import Path

from msekit.errors import MsekitError


class MappedFile:
    """What a file was when it was mapped."""

    def __init__(self, path: Path) -> None:
        self.path, self._was = path, path.stat()

    def refuse_cut(self) -> None:
        """Refuse to read on in a file that is shorter than it was; a removed or replaced one is still mapped whole.

        Raises:
            MsekitError: It was cut short.
        """
        try:
            now = os.stat(self.path)
        except OSError:
            return
        if (now.st_dev, now.st_ino) == (self._was.st_dev, self._was.st_ino) and now.st_size < self._was.st_size:
            raise MsekitError(
                "the cache was cut short while it was in use",
                where=self.path,
                fix="Start the command again (training with --resume): the cache is built anew",
            )
