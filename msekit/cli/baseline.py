"""`msekit baseline NAME --dataset D`: a simpler model on the same cache, metrics and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msekit.baselines.catalogue import BASELINES, READS_LLM, check_backbone
from msekit.cli.output import Format, answer
from msekit.errors import choice


def baseline_command(
    name: Annotated[str, typer.Argument(help=f"Which model: {choice(BASELINES)}.")],
    dataset: Annotated[str, typer.Option(help="Catalogue name, or a YAML describing your own.")],
    source: Annotated[Path | None, typer.Option(help="Folder or file of the published features.")] = None,
    backbone: Annotated[str | None, typer.Option(help=f"The frozen LLM that {READS_LLM} reads; for no other.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "1111",
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs.")] = 30,
    limit_train: Annotated[int | None, typer.Option(min=1, help="Train on this many samples.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output folder [runs/<dataset>-<name>, with the LLM's if any].")
    ] = None,
    fmt: Format = "table",
) -> None:
    """Train and test a baseline: a classical one, or a linear model on the frozen LLM's hidden states. Finished seeds
    are reused."""
    check_backbone(name, backbone)
    from msekit.baselines.run import run_baseline
    from msekit.data.catalogue import resolve_dataset
    from msekit.reporter import Reporter
    from msekit.reports.aggregate import aggregate
    from msekit.reports.render import as_json, render_table
    from msekit.runs.report import collect
    from msekit.settings.plan_runs import parse_seeds

    reporter = Reporter()
    spec = resolve_dataset(dataset, source)
    read = "" if backbone is None else f"-{Path(backbone).name}"
    folder = (output or Path("runs") / f"{spec.name}-{name}{read}").resolve()
    for seed in parse_seeds(seeds):
        place = folder / f"seed-{seed}"
        run_baseline(
            name, spec, seed, place, backbone=backbone, epochs=epochs, limit_train=limit_train, reporter=reporter
        )
        reporter.note(f"run folder: {place}")
    groups = aggregate(collect([folder]))
    answer(fmt, [as_json(group) for group in groups], lambda: render_table(groups, reporter))
