"""Two "machines" on one host: network namespaces joined by a veth cable, one training process in each.

    sudo python -m benchmarks.speed.two_machines [--only equal|cut|traffic]

It shows that two machines give the adapter that one process gives, what travels per step (counted by the network card),
and that a cable cut during training ends both sides with a message within the time-out, after which --resume ends with
the same adapter. One JSON document on stdout. Exit code 77: no right to make namespaces here.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CANNOT = 77
HOST, CABLE = "10.213.0", "cable"
TIMEOUT_S = 6
RUN = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--set", "optim.lr=5e-4"]
RUN += ["--set", "evaluation.bootstrap=0", "--set", f"timeout_minutes={TIMEOUT_S / 60}"]
RUN += ["--set", "optim.opinion_samples=1"]  # the fewest epochs alone: what is shown here is of the steps together
TWENTY_STEPS = ["--limit-train", "155", "--epochs", "2"]


def ip(*arguments: str) -> None:
    """Run iproute2's `ip`."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def two_machines() -> Iterator[list[str]]:
    """Two namespaces with a cable between them; yields their names."""
    names = [f"msekit-{os.getpid()}-{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "address", "add", f"{HOST}.{number + 1}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start(names: list[str], folder: Path, *more: str) -> list[subprocess.Popen[str]]:
    """The same training on both machines, one process each."""
    place = [
        "--launch",
        "multinode",
        "--num-processes",
        "2",
        "--num-machines",
        "2",
        "--main-address",
        f"{HOST}.1:29500",
    ]
    processes = []
    for rank, name in enumerate(names):
        command = [sys.executable, "-m", "msekit", *RUN, "--output", str(folder), *place, "--machine-rank", str(rank)]
        inside = ["ip", "netns", "exec", name, *command, *more]
        process = subprocess.Popen(  # a run's table is no part of the document that this program prints
            inside, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
    return processes


def finish(processes: list[subprocess.Popen[str]], limit: float = 120) -> list[dict[str, Any]]:
    """Wait for both: how each ended, after how long, and its last line."""
    started, ends = time.monotonic(), []
    try:
        for process in processes:
            errors = process.communicate(timeout=limit)[1]
            ends.append({"code": process.returncode, "after_s": round(time.monotonic() - started, 1), "said": errors})
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return ends


def trained(names: list[str], folder: Path, *more: str) -> Path:
    """Train on both machines to the end; the run's folder."""
    for end in finish(start(names, folder, *more)):
        assert end["code"] == 0, end["said"]
    return folder / "seed-1111"


def alone(folder: Path, *more: str) -> Path:
    """The same training in one process."""
    subprocess.run(
        [sys.executable, "-m", "msekit", *RUN, "--output", str(folder), *more], check=True, capture_output=True
    )
    return folder / "seed-1111"


def difference(run: Path, other: Path) -> float:
    """Largest difference between two runs' adapters."""
    from safetensors.torch import load_file

    mine, theirs = (load_file(folder / "adapter.safetensors") for folder in (run, other))
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def sent(name: str) -> int:
    """Bytes that a machine's network card has sent."""
    path = f"/sys/class/net/{CABLE}/statistics/tx_bytes"
    done = subprocess.run(["ip", "netns", "exec", name, "cat", path], check=True, capture_output=True, text=True)
    return int(done.stdout)


def cut(names: list[str], folder: Path, reference: Path) -> dict[str, Any]:
    """Cut the cable during training, see both sides end, mend it, resume."""
    processes = start(names, folder, *TWENTY_STEPS, "--set", "save_minutes=0.0001")
    state = folder / "seed-1111" / "state" / "state.safetensors"
    while not state.exists():
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)
    ip("-n", names[1], "link", "set", CABLE, "down")
    ends = finish(processes)
    unfinished = not (folder / "seed-1111" / "report.json").exists()
    ip("-n", names[1], "link", "set", CABLE, "up")
    resumed = trained(names, folder, *TWENTY_STEPS, "--resume")
    for end in ends:
        end["said"] = next((line for line in end["said"].splitlines() if "error:" in line), end["said"][-300:])
    return {"timeout_s": TIMEOUT_S, "unfinished": unfinished, "ends": ends, "resumed": difference(reference, resumed)}


def traffic(names: list[str], folder: Path) -> dict[str, Any]:
    """Bytes per step, from two runs that differ only in the number of steps."""
    sizes, counts = (64, 576), []
    for size in sizes:
        before = sent(names[0])
        run = trained(names, folder / str(size), "--limit-train", str(size), "--epochs", "4")
        counts.append(sent(names[0]) - before)
    steps = 4 * (sizes[1] - sizes[0]) // 16
    adapter = json.loads((run / "report.json").read_text())["trainable_parameters"] * 4
    per_step = (counts[1] - counts[0]) / steps
    return {"bytes_per_step": round(per_step), "adapter_bytes": adapter, "ratio": round(per_step / adapter, 3)}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["equal", "cut", "traffic"], action="append")
    parts = parser.parse_args().only or ["equal", "cut", "traffic"]
    results: dict[str, Any] = {}
    try:
        with two_machines() as names, tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if {"equal", "cut"} & set(parts):
                reference = alone(folder / "alone", *TWENTY_STEPS)
            if "equal" in parts:
                both = trained(names, folder / "both", *TWENTY_STEPS)
                results["equal"] = {"difference": difference(reference, both)}
            if "cut" in parts:
                results["cut"] = cut(names, folder / "cut", reference)
            if "traffic" in parts:
                results["traffic"] = traffic(names, folder / "traffic")
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        if isinstance(error, subprocess.CalledProcessError) and error.cmd[0] != "ip":
            raise
        print(f"network namespaces cannot be made here: {getattr(error, 'stderr', error)}", file=sys.stderr)
        sys.exit(CANNOT)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
