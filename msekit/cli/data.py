"""`msekit data`: fetch features, verify them, prepare the cache, look at it, list what is known, write an example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.cli import options
from msekit.cli.output import Format, answer

if TYPE_CHECKING:
    from msekit.data.cache.cache import Cache
    from msekit.data.catalogue import DatasetSpec
    from msekit.reporter import Reporter
    from msekit.settings.plan_runs import OwnSet

app = typer.Typer(
    help="Data sets: fetch, prepare, verify, info, list, clips, example.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Catalogue name, a YAML describing your own, or any name with --labels.")]
Source = options.Source
_VERIFY = "msekit data verify "
"""Of these commands the one to begin with, for advice: they take a data set's name without an option."""
Dtype = Annotated[Literal["float32", "float16"], typer.Option(help="Precision of the features in the cache.")]


@app.command("fetch")
def fetch_command(name: Name) -> None:
    """Download the published features from the hub, or check and complete what is here."""
    from msekit.data.catalogue import resolve_dataset
    from msekit.data.download import fetch
    from msekit.data.hub_tables import PREFIX, fetch_table
    from msekit.reporter import Reporter

    reporter = Reporter()
    if name.startswith(PREFIX):
        reporter.note(f"complete: {fetch_table(name, reporter)}")
        return
    reporter.note(f"complete: {fetch(resolve_dataset(name, None, {}, _VERIFY), reporter)}")


@app.command("prepare")
def prepare_command(
    name: Name,
    source: Source = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: options.Language = None,
    prompt: options.Prompt = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    columns: options.Columns = None,
    validation: options.Validation = None,
    dtype: Dtype = "float32",
) -> None:
    """Verify the features and build the cache that training maps into memory."""
    from msekit.data.describe import show_verification
    from msekit.reporter import Reporter

    reporter = Reporter()
    described = options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation)
    spec = _spec(name, source, described, reporter)
    if not _is_prepared(spec, dtype):
        outcome = _verified(spec, reporter)
        show_verification(outcome, reporter)
        outcome.check()
    cache = _prepared(spec, dtype, reporter)
    reporter.note(f"fingerprint {cache.info.fingerprint}\ncache {cache.path}")


@app.command("verify")
def verify_command(
    name: Name,
    source: Source = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: options.Language = None,
    prompt: options.Prompt = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    columns: options.Columns = None,
    validation: options.Validation = None,
    fmt: Format = "table",
) -> None:
    """Look at every row: schema, widths, sizes, lengths, odd values, repeats. Exit code 2 when it is unusable."""
    from msekit.data.describe import show_verification
    from msekit.reporter import Reporter

    reporter = Reporter()
    described = options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation)
    spec = _spec(name, source, described, reporter)
    outcome = _verified(spec, reporter)
    answer(fmt, outcome.model_dump(mode="json"), lambda: show_verification(outcome, reporter))
    outcome.check()


@app.command("info")
def info_command(
    name: Name,
    source: Source = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: options.Language = None,
    prompt: options.Prompt = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    columns: options.Columns = None,
    validation: options.Validation = None,
    dtype: Dtype = "float32",
    plot: Annotated[Path | None, typer.Option(help="Also draw labels and lengths into this file (.png).")] = None,
    fmt: Format = "table",
) -> None:
    """Show shapes, lengths, labels and unusual values (building the cache first where needed)."""
    from msekit.data import describe
    from msekit.data.readers.beside import beside_the_rows
    from msekit.reporter import Reporter

    reporter = Reporter()
    described = options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation)
    spec = _spec(name, source, described, reporter)
    cache = _prepared(spec, dtype, reporter)
    description = describe.cache_facts(cache) | {"beside": beside_the_rows(spec)}
    answer(fmt, description, lambda: describe.show_description(cache, description, reporter))
    if plot is not None:
        describe.plot(cache, plot)
        reporter.note(f"plot {plot}")


@app.command("example")
def example_command(
    name: Annotated[str, typer.Argument(help="moods (emotions) or opinions (intensities).")],
    output: Annotated[Path | None, typer.Option(help="A new folder [NAME].")] = None,
) -> None:
    """Write a small data set as one of your own would be: the documents' examples run on it."""
    from msekit.data.example import SIZES, write_example
    from msekit.reporter import Reporter

    path = write_example(name, output or Path(name))
    Reporter().note(f"{sum(SIZES.values())} samples; next: msekit train --backbone smollm2-135m --dataset {path}")


@app.command("clips")
def clips_command(
    toolkit: Annotated[Literal["emobox", "mertools"], typer.Argument(help="Whose label files.")],
    labels: Annotated[Path, typer.Argument(help="A corpus' folder of EmoBox, or a label….npz of MERTools.")],
    output: Annotated[Path, typer.Option(help="The table of clips, a CSV for msekit extract --table.")],
    texts: Annotated[Path | None, typer.Option(help="mertools: the transcription….csv.")] = None,
    target: Annotated[Literal["emo", "val"], typer.Option(help="mertools: emotion or valence.")] = "emo",
    suffix: Annotated[str, typer.Option(help="mertools: ending of the clips' files.")] = ".mp4",
    language: Annotated[Literal["en", "zh"], typer.Option(help="mertools: of the texts.")] = "en",
) -> None:
    """Make a table of clips from the label files of EmoBox or MERTools."""
    from msekit.data.readers.label_files import emobox_rows, mertools_rows, write_rows
    from msekit.reporter import Reporter

    reporter, left_out = Reporter(), list[str]()
    if toolkit == "emobox":
        rows = emobox_rows(labels)
    else:
        rows, left_out = mertools_rows(labels, texts, target, suffix, language)
    if left_out:
        reporter.warn(f"left out, for they have no labels: {', '.join(left_out)}")
    write_rows(rows, output)
    names = sorted({row["label"] for row in rows})
    shown = f"labels {','.join(names)}" if len(names) <= 30 else "intensities"
    reporter.note(f"{len(rows)} clips, {shown}; next: msekit extract CLIPS --table {output} --output FOLDER")


@app.command("list")
def list_command(fmt: Format = "table") -> None:
    """List the catalogue."""
    from msekit.data.catalogue import DATASETS
    from msekit.reporter import Reporter, table_of

    def show() -> None:
        rows = []
        for spec in DATASETS.values():
            labels = ", ".join(spec.labels or spec.targets) or str(list(spec.range or ()))
            widths = " × ".join("?" if width is None else str(width) for width in (spec.audio_width, spec.vision_width))
            sizes = "/".join(map(str, spec.split_sizes or ("?",)))
            rows.append((spec.name, spec.task, spec.language, labels, widths, sizes, _features_of(spec)))
        sizes_of = ("audio × vision width", "train/valid/test")
        headings = ("name", "task", "language", "labels or range", *sizes_of, "features")
        Reporter().show(table_of(headings, rows))

    answer(fmt, [spec.model_dump(mode="json") for spec in DATASETS.values()], show)


def _features_of(spec: DatasetSpec) -> str:
    """Where a catalogue set's features come from."""
    if spec.layout == "synthetic":
        return "made on the spot"
    return f"hub: {spec.hub}" if spec.hub else "--source: the paper's authors' files"


def _spec(name: str, source: Path | None, own_set: OwnSet, reporter: Reporter) -> DatasetSpec:
    from msekit.data.download import with_features
    from msekit.data.readers.found_labels import find_set

    return with_features(find_set(name, source, own_set.settings(), _VERIFY), reporter)


def _verified(spec: DatasetSpec, reporter: Reporter) -> Any:
    from msekit.data.verify import verify

    with reporter.rows(f"verifying {spec.name}") as progress:
        return verify(spec, progress)


def _is_prepared(spec: DatasetSpec, dtype: Literal["float32", "float16"]) -> bool:
    from msekit.data.cache.cache import is_prepared
    from msekit.data.cache.split_table import CacheSettings

    return is_prepared(spec, CacheSettings(dtype=dtype))


def _prepared(spec: DatasetSpec, dtype: Literal["float32", "float16"], reporter: Reporter) -> Cache:
    import time

    from msekit.data.cache.cache import prepare
    from msekit.data.cache.split_table import CacheSettings
    from msekit.data.readers.open_source import open_source

    started, built = time.perf_counter(), False
    with reporter.rows(f"preparing {spec.name}") as progress:

        def note(split: str, rows: int) -> None:
            nonlocal built
            built = True
            progress(split, rows)

        cache = prepare(spec, CacheSettings(dtype=dtype), progress=note)
    if built:
        seconds = time.perf_counter() - started
        megabytes = sum(file.stat().st_size for file in open_source(spec).source_files) / 1e6
        reporter.note(f"built in {seconds:.1f} s from {megabytes:.0f} MB ({megabytes / seconds:.0f} MB/s)")
    for warning in cache.info.warnings:
        reporter.warn(warning)
    return cache


@app.command("from-mertools")
def from_mertools_command(
    labels: Annotated[Path, typer.Argument(help="label.npz.")],
    output: Annotated[Path, typer.Option(help="Folder for the set.")],
    audio: Annotated[Path | None, typer.Option(help="Folder of <name>.npy with the audio features.")] = None,
    vision: Annotated[Path | None, typer.Option(help="Likewise.")] = None,
    transcripts: Annotated[Path | None, typer.Option(help="CSV with name and chinese, english or text.")] = None,
    test: Annotated[str, typer.Option(help="The corpus that is tested on.")] = "test1",
    language: Annotated[Literal["en", "zh"], typer.Option(help="Of the texts.")] = "zh",
) -> None:
    """Read MERTools' layout: labels, transcripts and folders of features become a set of one's own."""
    from msekit.data.readers.mertools import write_own_folder
    from msekit.errors import MsekitError
    from msekit.reporter import Reporter

    features = {key: folder for key, folder in (("audio", audio), ("vision", vision)) if folder is not None}
    for folder in features.values():
        if not folder.is_dir():
            raise MsekitError("no such folder", where=folder)
    reporter = Reporter()
    path, notes = write_own_folder(labels, features, output, transcripts=transcripts, test=test, language=language)
    for note in notes:
        reporter.warn(note)
    reporter.note(f"next: msekit train --backbone NAME --dataset {path}")
