"""`msekit evaluate`: a trained run on a split, as trained, without a modality, or with audio and vision shuffled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from msekit.cli import options
from msekit.cli.output import Format, answer
from msekit.errors import MsekitError


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="A seed's folder, or a folder that holds one seed.")],
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Which samples.")] = "test",
    source: Annotated[Path | None, typer.Option(help="Features elsewhere than where the run found them.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Another data set with the same labels and widths.")] = None,
    estimate: options.Estimate = None,
    quantization: options.Quantization = None,
    shuffle: Annotated[
        bool, typer.Option(help="Give every sample another one's audio and vision: what the run really hears.")
    ] = False,
    without: Annotated[
        str | None, typer.Option(help="audio, vision or both, comma-separated: withhold them from every sample.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Fit a temperature and choose the estimate on validation; show what they change.")
    ] = False,
    robustness: Annotated[
        bool, typer.Option(help="Take text, audio and vision away from every sample in turn, and shuffle each.")
    ] = False,
    fmt: Format = "table",
) -> None:
    """Evaluate a run: metrics with 95 % bootstrap intervals."""
    if calibrate or robustness:
        others = {
            "--dataset": dataset,
            "--estimate": estimate,
            "--quantization": quantization,
            "--shuffle": shuffle,
            "--without": without,
            "--robustness": calibrate and robustness,
        }
        for option in (option for option, value in others.items() if value):
            raise MsekitError(f"{option} does not go with {'--calibrate' if calibrate else '--robustness'}")
        return _study("calibrate" if calibrate else "robustness", run, split, source, fmt)
    from msekit.reporter import Reporter
    from msekit.reports.summary import show_metrics
    from msekit.runs.folder import find_run
    from msekit.runs.moved_data import look_at_data_of

    run = find_run(run)  # before libraries load
    look_at_data_of(run, source, dataset)
    from msekit.studies.evaluate import evaluate

    reporter = Reporter()
    report = evaluate(
        run,
        split,
        source=source,
        dataset=dataset,
        estimate=estimate,
        quantization=quantization,
        shuffle=shuffle,
        without=tuple(part.strip() for part in without.split(",")) if without else (),
        reporter=reporter,
    )
    answer(fmt, report, lambda: show_metrics(report, reporter))
    return None


def _study(kind: str, run: Path, split: str, source: Path | None, fmt: str) -> None:
    """`--calibrate` or `--robustness`: several estimates or cases beside one another."""
    from msekit.reporter import Reporter
    from msekit.reports.summary import show_cases
    from msekit.runs.folder import find_run
    from msekit.runs.moved_data import look_at_data_of

    run = find_run(run)
    look_at_data_of(run, source)
    from msekit.studies.calibrate import calibrate, show_calibration
    from msekit.studies.robustness import robustness

    reporter = Reporter()
    study = calibrate if kind == "calibrate" else robustness
    report = study(run, split, source=source, reporter=reporter)

    def show() -> None:
        if kind == "calibrate":
            show_calibration(report, reporter)
        else:
            show_cases("case", report, reporter)

    answer(fmt, report, show)
