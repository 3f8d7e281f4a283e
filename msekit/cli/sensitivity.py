"""`msekit sensitivity RUN`: a trained run tested with other wordings of its prompt and other orders of the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from msekit.cli.output import Format, answer


def sensitivity_command(
    run: Annotated[Path, typer.Argument(help="A seed's folder, or a folder that holds one seed.")],
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Which samples.")] = "test",
    orders: Annotated[int, typer.Option(min=0, help="Other orders of the labels (emotions).")] = 3,
    source: Annotated[Path | None, typer.Option(help="Features elsewhere than where the run found them.")] = None,
    fmt: Format = "table",
) -> None:
    """Test a run with other wordings of its prompt and other orders of the labels."""
    from msekit.evaluation.units import show as show_metric
    from msekit.reporter import Reporter, table_of
    from msekit.reports.summary import show_cases
    from msekit.runs.folder import find_run
    from msekit.runs.moved_data import look_at_data_of

    run = find_run(run)  # before libraries load
    look_at_data_of(run, source)
    from msekit.studies.sensitivity import sensitivity

    reporter = Reporter()
    report = sensitivity(run, split, orders, source=source, reporter=reporter)

    def show() -> None:
        named = {f"{name}: {report['prompts'][name]}": metrics for name, metrics in report["metrics"].items()}
        show_cases("prompt", report | {"metrics": named}, reporter)
        rows = [
            (metric, *(show_metric(metric, spread[name]) for name in ("min", "max", "std")))
            for metric, spread in report["spread"].items()
        ]
        reporter.show(table_of(("metric", "least", "most", "deviation"), rows, "over the prompts", numbers_from=1))

    answer(fmt, report, show)
