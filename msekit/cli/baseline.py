"""`msekit baseline NAME|all --dataset D`: simpler models and the paper's rivals on the same cache and metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.baselines.catalogue import BASELINES, READS_LLM, check_text
from msekit.cli import options
from msekit.cli.output import Format, answer
from msekit.errors import MsekitError, UnfinishedRunError, choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msekit.data.catalogue import DatasetSpec
    from msekit.experiments.baseline_table import Request
    from msekit.reporter import Reporter

ALL = "all"


def baseline_command(
    name: Annotated[str, typer.Argument(help=f"Which model: {choice(BASELINES)}; or {ALL}.")],
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
    backbone: Annotated[
        str | None, typer.Option(help=f"The frozen LLM that {READS_LLM} reads, and others by --text-from backbone.")
    ] = None,
    text_from: options.TextFrom = "words",
    text_layer: Annotated[int | None, typer.Option(min=0, help="The LLM's layer [at two thirds of its depth].")] = None,
    sentence: Annotated[
        Literal["last", "mean"], typer.Option(help="A whole text as one state: of its last token, or the mean.")
    ] = "last",
    context: Annotated[int, typer.Option(min=0, help="Earlier utterances that the LLM reads before a text.")] = 0,
    text_limit: Annotated[
        int | None, typer.Option(min=1, help="Longest text that the LLM reads, with its context [the set's].")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "1111",
    folds: options.Folds = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs.")] = 30,
    limit_train: Annotated[int | None, typer.Option(min=1, help="Train on this many samples.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output folder [runs/<dataset>-<name>, with the text's origin if not words].")
    ] = None,
    fmt: Format = "table",
) -> None:
    """Train and test a baseline: a linear model, a classical network or one of the paper's rivals; or all of them.
    Finished seeds are reused, an unfinished one goes on behind its last epoch."""
    _refuse_what_does_not_fit(name, backbone, text_from, sentence, bool(context or text_limit), bool(folds))
    from msekit.baselines.finished import folder_name, kind_of
    from msekit.data.readers.found_labels import find_set
    from msekit.settings.plan_runs import parse_seeds

    described = options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation)
    spec, numbers = find_set(dataset, source, described.settings()), tuple(parse_seeds(seeds))
    around = output.resolve() if output else Path("runs").resolve()
    folder = around if output else around / folder_name(spec.name, name, backbone, text_from, context)
    specs = _by_fold(spec, folder, folds)
    alone = () if name == ALL else numbers
    asked = (backbone, epochs, limit_train, context, text_limit)
    kinds = {seed: kind_of(name, spec.name, seed, *asked) for seed in alone}
    _look_at(specs, kinds, backbone)  # what is refused is refused before libraries load
    from msekit.baselines.texts import TextFrom
    from msekit.experiments.baseline_table import Request

    text = TextFrom(text_from, backbone, text_layer, sentence, context, text_limit)
    request = Request(tuple(BASELINES) if name == ALL else (name,), spec, text, numbers, epochs, limit_train)
    if name == ALL:
        _run_all(request, around, fmt)
    else:
        _run_one(request, specs, folder, bool(folds), fmt)


def _refuse_what_does_not_fit(
    name: str, backbone: str | None, text_from: str, sentence: str, as_llm_reads: bool, folds: bool
) -> None:
    if name != ALL:
        check_text(name, backbone, text_from, sentence, as_llm_reads)
    elif as_llm_reads and text_from != "backbone":
        raise MsekitError("it is of what an LLM reads", where="--context, --text-limit", fix="--text-from backbone.")
    elif folds:
        raise MsekitError(f"--folds takes one baseline, not `{ALL}`", fix=f"One of {choice(BASELINES)}.")


def _by_fold(spec: DatasetSpec, folder: Path, folds: str | None) -> dict[Path, DatasetSpec]:
    """Where the seeds' folders lie → the data set, for every fold that is tested; one of each without folds."""
    from msekit.data.readers.chosen_folds import chosen_folds

    chosen = chosen_folds(spec, folds)
    return {folder / f"fold-{n}" if folds else folder: spec.model_copy(update={"fold": n}) for n in chosen}


def _look_at(specs: Mapping[Path, DatasetSpec], kinds: Mapping[int, dict[str, Any]], backbone: str | None) -> None:
    """Refuse folders that hold runs of another kind, and data or a backbone that is not there."""
    from msekit.baselines.finished import finished_baseline
    from msekit.data.targets import refuse_several
    from msekit.runs.look_first import look_at_backbone, look_at_data

    for place, spec in specs.items():
        refuse_several(spec, "a baseline")
        for seed, kind in kinds.items():
            finished_baseline(place / f"seed-{seed}", kind)
        look_at_data(spec)
    if backbone is not None:
        look_at_backbone(backbone)


def _run_all(request: Request, around: Path, fmt: str) -> None:
    from msekit.experiments.baseline_table import document_of, draw, run_all
    from msekit.reporter import Reporter

    reporter = Reporter()
    rows = run_all(request, around, reporter)
    document = document_of(request, rows)
    answer(fmt, document, lambda: draw(document, reporter))
    if broken_off := sum(len(row.broken_off) for row in rows):
        raise UnfinishedRunError(f"{broken_off} of the runs broke off, as said above", where=around)


def _run_one(request: Request, specs: Mapping[Path, DatasetSpec], folder: Path, folds: bool, fmt: str) -> None:
    """One baseline, on every fold if there are some."""
    from msekit.reporter import Reporter

    reporter = Reporter()
    for place, spec in specs.items():
        replace(request, spec=spec).run(request.names[0], place, reporter)
    if folds:
        _show_folds(request, specs, folder, fmt, reporter)
    else:
        _show_one(folder, fmt, reporter)


def _show_folds(
    request: Request, specs: Mapping[Path, DatasetSpec], folder: Path, fmt: str, reporter: Reporter
) -> None:
    from msekit.baselines.run import FEATURE_DTYPE
    from msekit.experiments.folds import FoldRun, show_folds, summarise_folds

    placed = [(place / f"seed-{seed}", spec, seed) for place, spec in specs.items() for seed in request.seeds]
    summary = summarise_folds(folder, [FoldRun(*one, FEATURE_DTYPE) for one in placed])
    answer(fmt, summary, lambda: show_folds(summary, folder, reporter))


def _show_one(folder: Path, fmt: str, reporter: Reporter) -> None:
    from msekit.experiments.baseline_table import label_of
    from msekit.reports.aggregate import aggregate
    from msekit.reports.render import as_json, render_table
    from msekit.runs.report import collect

    groups = aggregate(collect([folder]))
    answer(fmt, [as_json(group) for group in groups], lambda: render_table(groups, reporter))
    if fmt == "table":
        reporter.show(*(label_of(group) for group in groups))
