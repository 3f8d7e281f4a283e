"""`msekit serve` under load: parallel clients, what is lost, its memory over time, latencies.

    python -m benchmarks.speed.serve_load                        # a tiny run trained on the spot
    python -m benchmarks.speed.serve_load --run runs/meld6-smollm2-135m --clients 50 --seconds 60
    python -m benchmarks.speed.serve_load --withheld             # four predictions an answer, as the page shows them

The server is a process of its own. Each client asks, waits for the answer and asks again, for the time given: a text
with audio and vision as JSON, each time another one of the samples. Of the answers
to the same sample, all must be the same to within 1e-5, the tolerance that batches of other samples are allowed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from msekit.runs.description import read_description
from msekit.runs.folder import find_run

TOLERANCE = 1e-5
_SAMPLES = 200


@dataclass
class Tally:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    """Sample → its first answer."""
    furthest: float = 0.0
    """Largest difference of a score from the sample's first answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, number: int, seconds: float, scores: dict[str, float]) -> None:
        """One answer."""
        with self.lock:
            self.seconds.append(seconds)
            first = self.scores.setdefault(number, scores)
            self.furthest = max(self.furthest, *(abs(first[label] - share) for label, share in scores.items()))


def questions(run: Path, withheld: bool) -> list[bytes]:
    """Random samples of the widths that a run reads, of different lengths."""
    widths, rng = read_description(find_run(run)).widths, np.random.default_rng(0)
    words = ["well", "I", "never", "thought", "that", "you", "would", "come", "back", "so", "soon", "now", "look"]
    made = []
    for _ in range(_SAMPLES):
        fields: dict[str, object] = {"text": " ".join(rng.choice(words, int(rng.integers(2, 20))))}
        if withheld:
            fields["withheld"] = True
        for modality, width in widths.items():
            if width:
                frames_LD = rng.normal(size=(int(rng.integers(5, 40)), width))
                fields[modality] = frames_LD.round(4).tolist()
        made.append(json.dumps(fields).encode())
    return made


def started(run: Path, complaints: Path) -> tuple[subprocess.Popen[str], str]:
    """The server's process and its address."""
    command = [sys.executable, "-m", "msekit", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(command, stderr=complaints.open("w"), text=True)
    while process.poll() is None:
        if address := re.search(r"http://127\.0\.0\.1:\d+", complaints.read_text()):
            return process, address.group()
        time.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{complaints.read_text()}")


def client(address: str, requests: list[bytes], first: int, until: float, tally: Tally) -> None:
    """One client, until the time is over."""
    number = first
    while time.monotonic() < until:
        number = (number + 7) % len(requests)
        request = urllib.request.Request(
            f"{address}/api/predict", requests[number], {"content-type": "application/json"}, method="POST"
        )
        start = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                scores = json.load(answer)["scores"]
            tally.add(number, time.perf_counter() - start, scores)
        except urllib.error.HTTPError as error:
            with tally.lock:
                tally.failures[f"status {error.code}"] += 1
        except (OSError, ValueError, KeyError) as error:
            with tally.lock:
                tally.failures[type(error).__name__] += 1


def load(address: str, requests: list[bytes], clients: int, seconds: float, process: psutil.Process) -> tuple:
    """Ask from all clients at once.

    Returns:
        The tally, the seconds until the last answer, and (seconds, MB) samples of the server's memory.
    """
    tally, start = Tally(), time.monotonic()
    threads = [
        threading.Thread(target=client, args=(address, requests, index, start + seconds, tally))
        for index in range(clients)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append((time.monotonic() - start, process.memory_info().rss / 1e6))
        time.sleep(min(1.0, seconds / 20))
    return tally, time.monotonic() - start, memory


def main() -> None:
    """Measure and print Markdown; exit code 1 where anything was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a tiny one is trained without")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--withheld", action="store_true", help="ask for the predictions without each modality too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run
        if run is None:
            run = Path(folder, "run")
            training = [
                "--backbone",
                "tiny-llama",
                "--dataset",
                "synthetic-erc",
                "--limit-train",
                "64",
                "--epochs",
                "1",
            ]
            command = [sys.executable, "-m", "msekit", "train", *training, "--output", str(run)]
            subprocess.run(command, check=True, capture_output=True)
        requests = questions(run, options.withheld)
        process, address = started(run, Path(folder, "complaints"))
        try:
            watched = psutil.Process(process.pid)
            load(address, requests, options.clients, min(5.0, options.seconds), watched)  # memory settles
            tally, took, memory = load(address, requests, options.clients, options.seconds, watched)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        complaints = Path(folder, "complaints").read_text()
    report(tally, took, memory, options.clients, process.returncode, 4 if options.withheld else 1)
    if tally.failures or tally.furthest > TOLERANCE or process.returncode or "Traceback" in complaints:
        raise SystemExit(complaints or 1)


def report(
    tally: Tally, took: float, memory: list[tuple[float, float]], clients: int, code: int, predictions: int
) -> None:
    """The table."""
    ordered = sorted(tally.seconds)
    p50, p95 = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
    third = len(memory) // 3
    early, late = (statistics.median(mega for _, mega in part) for part in (memory[:third], memory[-third:]))
    rows = {
        "clients, seconds": f"{clients}, {took:.0f}",
        "answers": f"{len(ordered):,} ({len(ordered) / took:.1f} a second, predictions in each: {predictions})",
        "lost": f"{sum(tally.failures.values())} {dict(tally.failures) or ''}".strip(),
        "latency p50, p95, longest": f"{p50:.2f}, {p95:.2f}, {ordered[-1]:.2f} s",
        "largest difference of answers to the same sample": f"{tally.furthest:.1e}",
        "memory, median of the first third and of the last": f"{early:.0f}, {late:.0f} MB",
        "exit code after Ctrl-C": str(code),
    }
    print("| | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
