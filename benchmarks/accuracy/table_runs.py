"""What the plug-in is worth: smollm2-135m on ravdess, meld6, mosi_utt and the synthetic sets, on a CPU.

    python -m benchmarks.accuracy.table_runs --data ../shared/data --plan                     # what it would cost
    python -m benchmarks.accuracy.table_runs --data ../shared/data [--only ravdess-ema]   # what is missing of it
    python -m benchmarks.accuracy.table_runs --report                                   # what is finished, as Markdown

Two runs at a time with one thread each. Every finished run's report is kept in results/table_runs/ and not made again;
an unfinished one goes on where it stopped. Reports in results/table_runs_w8a8/ were made with the LLM in w8a8, which
msekit does not have; --report prints them apart. Parts, in the order they are run; within a part seed by seed, so that
after the first seed every row has a number. Core-minutes are by arithmetic (`table_plan.py`), nothing finished, a run
that two parts share counted in the first: ten and a half hours on two cores, without rivals and long, which only
--only starts.

The short budget is the same for all rows on the LLM: 640 samples, 3 epochs in batches of 8 (240 steps; 40 steps, tried
first, taught nothing on meld6 and mosi_utt), the prompt first; the paper's row has the paper's layout. Row
`prompt-last` says what the order gives, `bf16` is what a CPU with AMX takes.

| part | what | runs | core-minutes |
|---|---|---:|---:|
| rows | kit, the paper's setting, linear, prompt-only, EF-LSTM, text, on the three sets; short budget | 54 | 254 |
| options | one training option at a time on recipe kit; short budget, not tested shuffled | 66 | 397 |
| table4 | `msekit reproduce table4` on ravdess and meld6, short budget; its full row is rows' kit | 36 | 193 |
| quick | kit and best, prompt-first, on all samples for 3 to 6 epochs, beside real_runs.py's kit | 18 | 310 |
| synthetic | full model and ablations beside what is possible, one seed; erc 480 samples x 3, msa 960 x 5 | 8 | 77 |
| baselines | all classical models on all samples, to their own end | 45 | 45 |
| rivals | mlp, mag, chfn; short budget | 27 | 159 |
| long | kit, the paper's setting, linear, prompt-only on all samples for 3 to 6 epochs | 36 | 922 |
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.accuracy.table_plan import (
    CEILINGS,
    METRICS,
    PARTS,
    RESULTS,
    SEEDS,
    SYNTHETIC,
    TASKS,
    Job,
    Row,
    costs,
    job,
    jobs,
)

HELD_IN_INTEGERS = """## With the LLM in w8a8

All rows below but `fp32` were made with the LLM's linear layers in w8a8: their weights in 8 bit, their products in
integers. msekit does not have it (benchmarks/TRIED.md says why), so these runs cannot be made again, and no run of
this script is kept beside them."""


def run(task: Job, logs: Path) -> None:
    """Run (or resume) a job and keep its reports.

    Raises:
        CalledProcessError: The command failed; its log says why.
    """
    started = time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (logs / f"{task.part}-{task.name}-{task.seed}.log").open("a") as log:
        subprocess.run(task.command, stdout=log, stderr=log, check=True, env=environment)
    for folder, file in task.keeps.items():
        report = json.loads((folder / "report.json").read_text())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"options": task.options[file], "test": report}, indent=1) + "\n")
    took = (time.monotonic() - started) / 60
    print(f"done: {task.part} {task.name} seed {task.seed}, {took:.1f} min", file=sys.stderr, flush=True)


def run_all(tasks: list[Job], workers: int, logs: Path) -> list[str]:
    """Run what is missing; what failed, a line each."""
    for task in tasks:
        for file in set(task.keeps.values()) - set(task.missing):
            options = json.loads(file.read_text())["options"]
            if options != task.options[file]:
                raise SystemExit(f"{file} was made with {options}: remove it to run again")
    failures = []
    with ThreadPoolExecutor(workers) as pool:
        started = [(task, pool.submit(run, task, logs)) for task in tasks if task.missing]
        try:
            for task, future in started:
                try:
                    future.result()
                except subprocess.CalledProcessError as error:
                    failures.append(f"failed: {task.part} {task.name} seed {task.seed}: exit code {error.returncode}")
                except FileNotFoundError as error:
                    failures.append(f"failed: {task.part} {task.name} seed {task.seed}: no {error.filename}")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def paper_tables(where: argparse.Namespace) -> None:
    """Table 4 beside ours, as `msekit reproduce` prints it, where all its runs are in the output folder."""
    for dataset in PARTS["table4"][1]:
        all_seeds = [job("table4", dataset, Row("table4"), seed, where) for seed in where.seeds]
        if all((folder / "report.json").is_file() for task in all_seeds for folder in task.keeps):
            command = list(all_seeds[0].command)
            command[command.index("--seeds") + 1] = ",".join(map(str, where.seeds))
            done = subprocess.run([*command, "--report", "--format", "markdown"], stdout=subprocess.PIPE, check=True)
            (where.output / f"table4-{dataset}.md").write_bytes(done.stdout)


def cell(metric: str, outcomes: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over the seeds, and the mean with audio and vision shuffled."""
    checks = [o.get("shuffled") or o["test"].get("integrity") or {} for o in outcomes]
    values, without = (
        [metrics[metric] for metrics in group if metrics.get(metric) is not None]
        for group in ([o["test"]["metrics"] for o in outcomes], [check.get("metrics", {}) for check in checks])
    )
    if not values:
        return "undefined"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}" + (f" ({statistics.fmean(without):.3f})" if without else "")


def ceilings(dataset: str, row: str, metrics: tuple[str, ...]) -> str:
    """The best that is possible on a synthetic set; empty elsewhere."""
    if dataset not in SYNTHETIC or row not in CEILINGS:
        return ""
    from msekit.data.readers.synthetic import ceiling

    best = ceiling(dataset)[CEILINGS[row]]
    return ", ".join(f"{m} {'undefined' if best[m] is None else f'{best[m]:.3f}'}" for m in metrics)


def own_options(rows: dict[str, list[str]]) -> tuple[str, dict[str, str]]:
    """The options of the first row on the LLM (recipe kit, where it is there), and what the others have otherwise."""
    joined = {row: re.split(r" (?=--)", " ".join(options)) for row, options in rows.items()}
    first = next((options for options in joined.values() if options[0].startswith("--")), [])
    own = {row: " ".join(option for option in options if option not in first) for row, options in joined.items()}
    return " ".join(first), {row: f"`{options}`" if options else "" for row, options in own.items()}


def finished(folder: Path) -> list[Path]:
    """The reports kept in a folder, recipe kit's first."""
    files = [file for dataset in TASKS for file in sorted(folder.glob(f"{dataset}-*/seed-*.json"))]
    return sorted(files, key=lambda file: "-kit" not in file.parent.name)


def tables(files: list[Path]) -> str:
    """Reports as Markdown; in brackets the score with audio and vision shuffled."""
    lines: dict[tuple[str, str], dict[str, list[Path]]] = {}  # (data set, samples) → row → its seeds' reports
    for file in dict.fromkeys(files):
        dataset = next(name for name in TASKS if file.parent.name.startswith(f"{name}-"))
        parts = re.fullmatch(r"(.+?)(-\d+)?(?:x\d+)?", file.parent.name.removeprefix(f"{dataset}-"))
        assert parts is not None, "every name fits"
        lines.setdefault((dataset, parts[2] or ""), {}).setdefault(parts[1], []).append(file)
    shown_sets = []
    for (dataset, _), rows in sorted(lines.items()):
        metrics = METRICS[dataset]
        extra = ["best possible"] if dataset in SYNTHETIC else []
        reports = {row: [json.loads(file.read_text()) for file in sorted(seeds)] for row, seeds in rows.items()}
        first, own = own_options({row: outcomes[0]["options"] for row, outcomes in reports.items()})
        headings = [dataset, *metrics, *extra, "trainable", "seeds", "besides or instead"]
        body = [f"All on the LLM: `{first}`\n"] if first else []
        body += [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
        for row, outcomes in reports.items():
            size = f"{outcomes[0]['test'].get('trainable_parameters') or 0:,}"
            shown = [row, *(cell(metric, outcomes) for metric in metrics)]
            shown += [ceilings(dataset, row, metrics)] if extra else []
            shown += [size, str(len(outcomes)), own[row]]
            body.append(f"| {' | '.join(shown)} |")
        shown_sets.append("\n".join(body))
    return "\n\n".join(shown_sets)


def all_tables(tasks: list[Job], results: Path) -> str:
    """All that is kept: what can be run again, and beneath it what was made with the LLM in w8a8."""
    shown = [tables([*(file for task in tasks for file in task.keeps.values() if file.is_file()), *finished(results)])]
    integers = finished(results.with_name(f"{results.name}_w8a8"))
    return "\n\n".join(filter(None, [*shown, *((HELD_IN_INTEGERS, tables(integers)) if integers else ())]))


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/tables"))
    parser.add_argument("--results", type=Path, default=RESULTS / "table_runs", help="elsewhere for another backbone")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--only", nargs="*", default=[], help="parts, data sets, rows, or data set-row names")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--plan", action="store_true", help="only print what it would cost")
    parser.add_argument("--report", action="store_true", help="only print what is finished, all of it")
    where = parser.parse_args(arguments)
    if where.report:
        where.only = list(PARTS)
    tasks, failures = jobs(where), []
    if not where.report:
        print(costs(tasks), file=sys.stderr, flush=True)
        if where.plan:
            return 0
        failures = run_all(tasks, where.workers, where.output / "logs")
        if any(task.part == "table4" for task in tasks):
            paper_tables(where)
        print(tables([file for task in tasks for file in task.keeps.values() if file.is_file()]))
    else:
        print(all_tables(tasks, where.results))
    print("\n".join(failures), file=sys.stderr, end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
