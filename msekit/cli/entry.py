"""Where the program begins: what is set for its process, before a library loads, and how it ends.

Exit codes: 0 for success, 2 for a user's mistake, 75 after a signal that saved, 130 after Ctrl-C, 1 for a failure of
ours.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from importlib import import_module
from types import FrameType
from typing import Any

_CTRL_C = 130
_AGAIN_S = 0.05
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""How a user says in which way threads wait."""


class Interrupts:
    """Ctrl-C, remembered: libraries turn it into errors of their own, or lose it where they are destroyed."""

    def __init__(self) -> None:
        self.received = False
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # whoever starts us may have it ignored
            signal.signal(signal.SIGINT, self._note)
            sys.unraisablehook = self._lost

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        raise KeyboardInterrupt

    def _lost(self, lost: Any) -> None:
        """An exception that Python cannot raise, from a `__del__` or a callback: a Ctrl-C among them comes again."""
        if lost.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(lost)
            return
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()


def run() -> None:
    """Run the command line."""
    interrupts = Interrupts()
    try:
        _command(interrupts)
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if not interrupts.received or code in (0, None):
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would only disturb the end
        if code != _CTRL_C:
            sys.stderr.write("stopped by Ctrl-C\n")
        raise SystemExit(_CTRL_C) from None


def _command(interrupts: Interrupts) -> None:
    debug = "--debug" in sys.argv
    if debug:  # accepted anywhere on the line
        sys.argv.remove("--debug")
    if not any(name in os.environ for name in _WAITING):
        # OpenMP's threads would spin while they wait: beside other work a pass takes eight times as long
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks ends no command
            stream.reconfigure(errors="backslashreplace")
    app = import_module("msekit.cli.main").app  # by its name: that module offers `run`, as older installations call it
    from msekit.cli.output import PlainFormatter
    from msekit.distributed.processes import already_launched, hand_over
    from msekit.errors import MsekitError
    from msekit.paths import cache_root

    # torch's own choice for what it compiles is a folder of a known name under /tmp, where others may have left code
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.getLogger("msekit").addHandler(handler)
    try:
        app()
    except SystemExit as end:
        if already_launched() and not end.code:
            import_module("msekit.distributed.accelerator").leave_group()
        raise
    except MsekitError as error:
        if debug or interrupts.received:
            raise
        if not hand_over(str(error)):
            from rich.console import Console
            from rich.markup import escape

            Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(error.exit_code)
