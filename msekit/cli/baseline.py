"""`msekit baseline NAME --dataset D`: a simpler model on the same cache, metrics and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msekit.baselines.catalogue import BASELINES, READS_LLM, check_backbone
from msekit.cli import options
from msekit.cli.output import Format, answer
from msekit.errors import choice


def baseline_command(
    name: Annotated[str, typer.Argument(help=f"Which model: {choice(BASELINES)}.")],
    dataset: Annotated[str, typer.Option(help="Catalogue name, or a YAML describing your own.")],
    source: options.Source = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: options.Language = None,
    prompt: options.Prompt = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    columns: options.Columns = None,
    validation: options.Validation = None,
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
    from msekit.baselines.finished import finished_baseline, kind_of
    from msekit.data.readers.found_labels import find_set
    from msekit.reporter import Reporter
    from msekit.reports.aggregate import aggregate
    from msekit.reports.render import as_json, render_table
    from msekit.runs.look_first import look_at_backbone, look_at_data
    from msekit.runs.report import collect
    from msekit.settings.plan_runs import parse_seeds

    reporter = Reporter()
    described = options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation)
    spec = find_set(dataset, source, described.settings())
    read = "" if backbone is None else f"-{Path(backbone).name}"
    folder = (output or Path("runs") / f"{spec.name}-{name}{read}").resolve()
    numbers = parse_seeds(seeds)
    ended = [
        finished_baseline(folder / f"seed-{seed}", kind_of(name, spec.name, seed, backbone, epochs, limit_train))
        for seed in numbers
    ]
    if not all(ended):  # before libraries load
        look_at_data(spec)
        look_at_backbone(backbone or "tiny-llama")
    from msekit.baselines.run import run_baseline

    for seed in numbers:
        place = folder / f"seed-{seed}"
        run_baseline(
            name, spec, seed, place, backbone=backbone, epochs=epochs, limit_train=limit_train, reporter=reporter
        )
        reporter.note(f"run folder: {place}")
    groups = aggregate(collect([folder]))
    answer(fmt, [as_json(group) for group in groups], lambda: render_table(groups, reporter))
