"""`msekit predict`: a trained plug-in on new samples, one from the command line or a file of them."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from msekit.cli import options
from msekit.cli.output import Format, answer, print_json
from msekit.errors import MsekitError, shown
from msekit.words import reason

if TYPE_CHECKING:
    from msekit.inference.plugin import PlugIn
    from msekit.inference.prediction import Prediction
    from msekit.reporter import Reporter

_UNUSABLE_LINES = 2  # exit code of a run over a file in which some lines could not be predicted


Source = Annotated[
    Path | None,
    typer.Option("--input", help='JSON lines {"id"?, "text", "audio"?, "vision"?, "history"?, "speaker"?}.'),
]
History = Annotated[
    list[str] | None, typer.Option(help="What was said before it, oldest first: --history 'Ross: I did.' …")
]
Transcribe = Annotated[
    str | None, typer.Option(help="Hear the words of a clip: tiny, base, …, a folder [as in training].")
]
Segment = Annotated[
    Literal["none", "vad"], typer.Option(help="A long recording: an answer for each utterance, with times.")
]
Force = Annotated[bool, typer.Option("--force", help="Use a backbone whose fingerprint differs from the run's.")]


def predict_command(
    run: Annotated[str, typer.Argument(help="A run's or exported folder, or a hub repository user/name.")],
    source: Source = None,
    output: Annotated[Path | None, typer.Option(help="Where the JSON lines of --input go [stdout].")] = None,
    text: Annotated[str | None, typer.Option(help="One sample: what was said.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Its sound: a clip, or .npy, .npz, .safetensors.")] = None,
    vision: Annotated[Path | None, typer.Option(help="Its face: a clip, or features.")] = None,
    video: Annotated[Path | None, typer.Option(help="A clip with both.")] = None,
    history: History = None,
    speaker: Annotated[str | None, typer.Option(help="Who says it.")] = None,
    transcribe: Transcribe = None,
    segment: Segment = "none",
    plot: Annotated[Path | None, typer.Option(help="Its answers over time: .png, .svg, .pdf.")] = None,
    estimate: options.Estimate = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most samples computed together.")] = 16,
    backbone: Annotated[str | None, typer.Option(help="Another name, folder or hub id of the run's backbone.")] = None,
    quantization: options.Quantization = None,
    force: Force = False,
    fmt: Format = "table",
) -> None:
    """Predict: a label or intensity with the probability of every label."""
    audio, vision = _checked(source, output, text, audio, vision, video, history, speaker, transcribe, segment, plot)
    from msekit.runs.folder import fetch_run

    folder = fetch_run(run)  # before libraries load
    from msekit.inference.load import load_run
    from msekit.inference.samples import utterance_of
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
    if segment != "none":
        _predict_recording(plug_in, video or audio, output, transcribe, estimate, plot, reporter)  # type: ignore[arg-type]
        return
    if text is None:
        from msekit.inference.recordings import ears_of
        from msekit.media.transcribe import transcript

        text = transcript(audio, ears_of(plug_in, transcribe))  # type: ignore[arg-type]
        reporter.note(f"heard: {text}")
    said = [utterance_of(line) for line in history or ()]
    prediction = plug_in.predict(text, audio, vision, history=said, speaker=speaker, estimate=estimate)
    for note in prediction.notes:
        reporter.warn(note)
    seconds = {"preparation": prediction.timing.preparation, "model": prediction.timing.model}
    document = prediction.record() | {"estimate": prediction.estimate, "seconds": seconds}
    answer(fmt, document, lambda: _show(prediction, reporter))


def _checked(
    source: Path | None,
    output: Path | None,
    text: str | None,
    audio: Path | None,
    vision: Path | None,
    video: Path | None,
    history: list[str] | None,
    speaker: str | None,
    transcribe: str | None,
    segment: str,
    plot: Path | None,
) -> tuple[Path | None, Path | None]:
    """The files of sound and face, once all that was asked for can be."""
    from msekit.data.readers.feature_files import file_and_array
    from msekit.media.decode import CLIP_SUFFIXES

    clip = audio or video
    heard = source is None and text is None and clip is not None and clip.suffix.lower() in CLIP_SUFFIXES
    if not heard and (source is None) == (text is None):
        fix = "Give --text, a clip with words in it, or --input FILE.jsonl."
        raise MsekitError("predict takes one sample or a file of them", fix=fix)
    if source is not None and (clip or vision):
        raise MsekitError("--audio, --vision and --video belong to --text", fix="Name files in the lines of --input.")
    if source is not None and (history or speaker):
        raise MsekitError("--history and --speaker belong to --text", fix="Put them into the lines of --input.")
    if transcribe and text is not None:
        raise MsekitError("--text and --transcribe are two texts", fix="Give one of them.")
    if transcribe and source is not None:
        raise MsekitError("--transcribe is of a clip", fix="Put texts into the lines of --input.")
    if segment != "none" and not heard:
        raise MsekitError("--segment is of a recording", fix="Give --video or --audio, and no --text.")
    if plot is not None and segment == "none":
        raise MsekitError("--plot shows a recording's utterances", fix="Add --segment vad.")
    if video is not None and vision is not None:
        raise MsekitError("--video and --vision are two faces", fix="Give one of them.")
    if source is not None and not source.is_file() and not source.is_fifo():
        raise MsekitError("no such file", where=source)
    if source is not None and output is not None and output.resolve() == source.resolve():
        raise MsekitError("the output would overwrite the input", where=output)
    if video is not None:
        audio, vision = clip, video
    for modality, file in (("audio", audio), ("vision", vision)):
        if file is not None and not file_and_array(file)[0].is_file():
            raise MsekitError(f"no such {modality} file", where=file)
    return audio, vision


def _predict_recording(
    plug_in: PlugIn,
    recording: Path,
    output: Path | None,
    transcribe: str | None,
    estimate: str | None,
    plot: Path | None,
    reporter: Reporter,
) -> None:
    """Answers with times, one JSON line each, and their plot."""
    import tempfile

    from msekit.data.targets import refuse_several
    from msekit.inference.recordings import ears_of, predict_recording
    from msekit.reports.timeline import check_ending, draw_timeline

    if plot is not None:
        refuse_several(plug_in.description.dataset, "--plot")
        check_ending(plot)
    ears, records = ears_of(plug_in, transcribe), []
    with (
        tempfile.TemporaryDirectory(prefix="msekit-") as folder,
        output.open("w", encoding="utf-8") if output else nullcontext(sys.stdout) as stream,
    ):
        complain = lambda piece, what: reporter.warn(f"{piece}: {what}")  # noqa: E731
        for record in predict_recording(plug_in, recording, Path(folder), ears, complain, estimate=estimate):
            records.append(record)
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            stream.flush()
    reporter.note(f"{len(records)} utterances; heard by {ears}")
    if plot is not None:
        draw_timeline(records, plot, recording.name)
        reporter.note(f"plot: {plot}")


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
        raise MsekitError(f"the output cannot be written: {reason(error)}", where=output) from error
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
    """The answer and its ten most probable labels, of several targets each one's."""
    from msekit.evaluation.units import percent
    from msekit.model.answers import estimate_for
    from msekit.reporter import table_of
    from msekit.runs.predictions import in_words

    for target, value, scores in prediction.by_target():
        way = estimate_for("msa" if isinstance(value, float) else "erc", prediction.estimate)  # type: ignore[arg-type]
        title = f"{target + ': ' if target else ''}{in_words(value)} ({way if target else prediction.estimate})"
        likeliest = sorted(scores.items(), key=lambda item: -item[1])[:10]
        rows = [(label, percent(share)) for label, share in likeliest]
        reporter.show(table_of(("label", "probability"), rows, title, numbers_from=1))
    reporter.note(f"{prediction.timing.model * 1000:.0f} ms")
