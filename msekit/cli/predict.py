"""`msekit predict`: a trained plug-in on new samples, one from the command line or a file of them."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from msekit.cli import options
from msekit.cli.output import Format, answer, print_json
from msekit.errors import MsekitError, shown

if TYPE_CHECKING:
    from msekit.inference.plugin import PlugIn, Prediction
    from msekit.reporter import Reporter

_UNUSABLE_LINES = 2  # exit code of a run over a file in which some lines could not be predicted


def predict_command(
    run: Annotated[str, typer.Argument(help="A run's or exported folder, or a hub repository user/name.")],
    source: Annotated[
        Path | None,
        typer.Option("--input", help='JSON lines {"id"?, "text", "audio"?, "vision"?}; features by path or inline.'),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the JSON lines of --input go [stdout].")] = None,
    text: Annotated[str | None, typer.Option(help="One sample: what was said.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Its sound: a clip, or .npy, .npz, .safetensors.")] = None,
    vision: Annotated[Path | None, typer.Option(help="Its face: a clip, or features.")] = None,
    video: Annotated[Path | None, typer.Option(help="A clip with both.")] = None,
    estimate: options.Estimate = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most samples computed together.")] = 16,
    backbone: Annotated[str | None, typer.Option(help="Another name, folder or hub id of the run's backbone.")] = None,
    quantization: options.Quantization = None,
    force: Annotated[
        bool, typer.Option("--force", help="Use a backbone whose fingerprint differs from the run's.")
    ] = False,
    fmt: Format = "table",
) -> None:
    """Predict: a label or intensity with the probability of every label."""
    if (source is None) == (text is None):
        raise MsekitError("predict takes one sample or a file of them", fix="Give --text, or --input FILE.jsonl.")
    if source is not None and (audio or vision or video):
        raise MsekitError("--audio, --vision and --video belong to --text", fix="Name files in the lines of --input.")
    if video is not None:
        if vision is not None:
            raise MsekitError("--video and --vision are two faces", fix="Give one of them.")
        audio, vision = audio or video, video
    if source is not None and not source.is_file() and not source.is_fifo():
        raise MsekitError("no such file", where=source)
    if source is not None and output is not None and output.resolve() == source.resolve():
        raise MsekitError("the output would overwrite the input", where=output)
    for modality, file in (("audio", audio), ("vision", vision)):
        if file is not None and not file.is_file():
            raise MsekitError(f"no such {modality} file", where=file)
    from msekit.runs.folder import fetch_run

    folder = fetch_run(run)  # before libraries load
    from msekit.inference.load import load_run
    from msekit.model.labels import check_estimate
    from msekit.reporter import Reporter

    reporter = Reporter()
    with reporter.status(f"loading {run}"):
        plug_in = load_run(folder, backbone, quantization=quantization, force=force)
    for notice in plug_in.notices:
        reporter.warn(notice)
    check_estimate(plug_in.description.dataset.task, estimate or plug_in.description.estimate)
    if source is not None:
        _predict_file(plug_in, source, output, estimate, batch_size, fmt, reporter)
        return
    assert text is not None
    prediction = plug_in.predict(text, audio, vision, estimate=estimate)
    for note in prediction.notes:
        reporter.warn(note)
    seconds = {"preparation": prediction.timing.preparation, "model": prediction.timing.model}
    document = prediction.record() | {"estimate": prediction.estimate, "seconds": seconds}
    answer(fmt, document, lambda: _show(prediction, reporter))


def _predict_file(
    plug_in: PlugIn,
    source: Path,
    output: Path | None,
    estimate: str | None,
    batch_size: int,
    fmt: str,
    reporter: Reporter,
) -> None:
    from msekit.inference.jsonl import predict_file

    collected: list[dict[str, Any]] = []
    keep = fmt == "json" and output is None  # the one document then holds the predictions themselves
    start = time.perf_counter()
    try:
        with output.open("w", encoding="utf-8") if output else nullcontext(sys.stdout) as stream:
            lines: TextIO = stream

            def write(prediction: Prediction) -> None:
                if keep:
                    collected.append(prediction.record())
                else:
                    lines.write(shown(json.dumps(prediction.record(), ensure_ascii=False)) + "\n")

            outcome = predict_file(
                plug_in,
                source,
                write,
                complain=lambda number, what: reporter.warn(f"line {number}: {what}"),
                estimate=estimate,
                batch_size=batch_size,
            )
    except OSError as error:
        if output is None:
            raise
        raise MsekitError(f"the output cannot be written: {error.strerror}", where=output) from error
    seconds = time.perf_counter() - start
    if outcome.ignored_keys:
        reporter.note(f"keys that predict does not read: {', '.join(sorted(outcome.ignored_keys))}")
    reporter.note(f"{outcome.predicted} predicted in {seconds:.1f} s, {len(outcome.failed)} lines could not be used")
    if fmt == "json":
        failed = [{"line": number, "error": what} for number, what in outcome.failed]
        document: dict[str, Any] = {"predicted": outcome.predicted, "failed": failed, "seconds": seconds}
        if keep:
            document["predictions"] = collected
        print_json(document)
    if outcome.failed:
        raise typer.Exit(_UNUSABLE_LINES)


def _show(prediction: Prediction, reporter: Reporter) -> None:
    """The answer and its ten most probable labels."""
    from msekit.evaluation.units import percent
    from msekit.reporter import table_of

    value = prediction.prediction
    title = f"{f'{value:+.2f}' if isinstance(value, float) else value} ({prediction.estimate})"
    likeliest = sorted(prediction.scores.items(), key=lambda item: -item[1])[:10]
    rows = [(label, percent(share)) for label, share in likeliest]
    reporter.show(table_of(("label", "probability"), rows, title, numbers_from=1))
    reporter.note(f"{prediction.timing.model * 1000:.0f} ms")
