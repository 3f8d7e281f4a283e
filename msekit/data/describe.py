"""What `msekit data` shows: a verification; the shapes, lengths and labels of a cache as data, tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from msekit.data.cache.cache import Cache
from msekit.data.catalogue import MODALITIES, SPLITS
from msekit.data.verify import ModalityCheck, SplitCheck, Verification
from msekit.errors import MsekitError

_BAR = 12  # characters of the longest bar
_LENGTH_BINS = 8


def show_verification(outcome: Verification, console: Console) -> None:
    """A table of counts, the findings with their rows, and the verdict."""
    table = Table("", *SPLITS, title=f"{escape(outcome.name)} ({outcome.task})")
    checks = [outcome.splits[split] for split in SPLITS]
    known = ["" if check.expected is None else f" of {check.expected}" for check in checks]
    table.add_row("samples", *(f"{check.samples}{of}" for check, of in zip(checks, known, strict=True)))
    table.add_row("unusable", *(str(check.unusable) for check in checks))
    table.add_row("empty texts", *(str(check.empty_texts) for check in checks))
    table.add_row("repeated ids", *(str(check.repeated_ids) for check in checks))
    for key in MODALITIES:
        for what, cells in _modality_lines(checks, key):
            table.add_row(f"{key} {what}", *cells)
    counts = [binned_labels(check.labels, outcome.task) for check in checks]
    for label in label_order(counts, outcome.task):
        table.add_row(escape(f"label {label}"), *(str(count.get(label, 0)) for count in counts))
    console.print(table)
    for finding in outcome.findings:
        color = "red" if finding.severity == "error" else "yellow"
        count = f": {finding.samples} samples" if finding.samples > 1 else ""
        kind, more = "row " if finding.samples else "", ", …" if finding.samples > len(finding.rows) else ""
        rows = f" ({kind}{', '.join(finding.rows)}{more})"
        text = f"{finding.split + ': ' if finding.split else ''}{finding.what}{count}{rows if finding.rows else ''}"
        console.print(f"[{color}]{finding.severity}:[/{color}] {escape(text)}", soft_wrap=True)
    console.print(f"verdict: {outcome.verdict}")


def _modality_lines(checks: list[SplitCheck], key: str) -> list[tuple[str, list[str]]]:
    modality: list[ModalityCheck] = [getattr(check, key) for check in checks]  # one of each split
    if not any(check.present for check in modality):
        return [("samples", ["none" for _ in modality])]
    lines = [
        ("features per frame", [str(check.width) for check in modality]),
        ("frames, least/median/most", ["/".join(map(str, check.frames)) for check in modality]),
        ("absent", [str(check.absent) for check in modality]),
        ("zero throughout", [str(check.all_zero) for check in modality]),
        ("NaN, +inf, -inf values", [f"{c.nan}, {c.positive_infinite}, {c.negative_infinite}" for c in modality]),
        ("samples with such", [str(check.with_nonfinite) for check in modality]),
        ("constant features", [str(len(check.constant)) for check in modality]),
    ]
    if any(check.beyond_float16 for check in modality):
        beyond = [f"{check.beyond_float16}, {check.beyond_float32}" for check in modality]
        lines.append(("values beyond float16, float32", beyond))
    return lines


def binned_labels(counts: dict[str, int], task: str) -> dict[str, int]:
    """Label counts as they are shown: intensities are put together in steps of a half."""
    if task == "erc":
        return counts
    binned: dict[str, int] = {}
    for label, count in counts.items():
        name = f"{round(2 * float(label)) / 2 + 0.0:+.1f}"
        binned[name] = binned.get(name, 0) + count
    return binned


def label_order(counts: list[dict[str, int]], task: str) -> list[str]:
    """All labels: classes by their numbers, intensities from low to high."""
    names = list(dict.fromkeys(label for count in counts for label in count))
    return sorted(names, key=float) if task == "msa" else names


def description(cache: Cache) -> dict[str, Any]:
    """What `msekit data info` says of a cache, as plain data."""
    info = cache.info
    splits: dict[str, Any] = {}
    for split in SPLITS:
        table = cache.split(split)
        splits[split] = {
            "samples": len(table),
            "labels": info.splits[split].label_counts,
            "text_characters": _spread(np.array([len(text) for text in table.texts])),
            "audio_frames": _spread(table.audio_lengths[table.audio_lengths > 0]),
            "vision_frames": _spread(table.vision_lengths[table.vision_lengths > 0]),
        }
    modalities = {
        key: getattr(info, key).model_dump(include={"width", "longest", "absent", "nonfinite", "nonfinite_rows"})
        for key in MODALITIES
    }
    return {
        "name": info.name,
        "task": info.task,
        "fingerprint": info.fingerprint,
        "cache": str(cache.path),
        "dtype": info.settings.dtype,
        "splits": splits,
        **modalities,
        "warnings": info.warnings,
    }


def _spread(lengths: np.ndarray) -> dict[str, float] | None:
    """Least, quartiles, 95th percentile and most; None for nothing."""
    if not len(lengths):
        return None
    values = np.percentile(lengths, [0, 25, 50, 75, 95, 100]).tolist()
    return dict(zip(("least", "quarter", "median", "three_quarters", "95%", "most"), values, strict=True))


def show_description(cache: Cache, console: Console) -> None:
    """Shapes, lengths and labels in the terminal, with the fingerprint that reports cite."""
    told = description(cache)
    table = Table("", *SPLITS, title=f"{escape(told['name'])} ({told['task']}, {told['dtype']})")
    table.add_row("samples", *(str(told["splits"][split]["samples"]) for split in SPLITS))
    for key, unit in (("text", "characters"), ("audio", "frames"), ("vision", "frames")):
        spreads = [told["splits"][split][f"{key}_{unit}"] for split in SPLITS]
        cells = ["none" if s is None else f"{s['least']:.0f}/{s['median']:.0f}/{s['most']:.0f}" for s in spreads]
        table.add_row(f"{key} {unit}, least/median/most", *cells)
    for key in MODALITIES:
        if told[key]["width"]:
            table.add_row(f"{key} features per frame", *(str(told[key]["width"]) for _ in SPLITS))
            table.add_row(f"{key} absent", *(str(told[key]["absent"][split]) for split in SPLITS))
            bad = (f"{told[key]['nonfinite'][s]} in {told[key]['nonfinite_rows'][s]}" for s in SPLITS)
            table.add_row(f"{key} non-finite: values in samples", *bad)
    console.print(table)
    console.print(_label_histogram(told))
    for key in MODALITIES:
        if told[key]["width"]:
            console.print(_length_histogram(cache, key))
    console.print(escape(f"fingerprint {told['fingerprint']}\ncache {told['cache']}"), soft_wrap=True)


def _shares(facts: dict[str, Any]) -> tuple[list[str], list[dict[str, int]]]:
    """Label names in order, and their counts per split."""
    counts = [binned_labels(facts["splits"][split]["labels"], facts["task"]) for split in SPLITS]
    return label_order(counts, facts["task"]), counts


def _label_histogram(told: dict[str, Any]) -> Table:
    names, counts = _shares(told)
    table = Table("label", *SPLITS)
    largest = [max(count.values()) for count in counts]
    for name in names:
        found = [(count.get(name, 0), most) for count, most in zip(counts, largest, strict=True)]
        table.add_row(escape(name), *(f"{'█' * round(_BAR * count / most)} {count}" for count, most in found))
    return table


def _length_histogram(cache: Cache, key: str) -> Table:
    lengths = np.concatenate([getattr(cache.split(split), f"{key}_lengths") for split in SPLITS])
    lengths = lengths[lengths > 0]
    bins = min(_LENGTH_BINS, int(lengths.max() - lengths.min()) + 1)
    counts, edges = np.histogram(lengths, bins=bins, range=(lengths.min(), lengths.max() + 1))
    table = Table(f"{key} frames", "samples of all splits")
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        first, last = int(np.ceil(low)), int(np.ceil(high)) - 1
        span = f"{first}" if first == last else f"{first}–{last}"
        table.add_row(span, f"{'█' * round(2 * _BAR * count / max(counts))} {count}")
    return table


def plot(cache: Cache, file: Path) -> None:
    """Labels and lengths of every split as a picture.

    Raises:
        MsekitError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MsekitError("plots need matplotlib", fix="pip install 'msekit[plot]'") from error
    facts = description(cache)
    figure = Figure(figsize=(11, 7), layout="constrained")
    (labels, texts), (audio, vision) = figure.subplots(2, 2)
    names, counts = _shares(facts)
    for place, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        shares = [count.get(name, 0) / sum(count.values()) for name in names]
        labels.bar(np.arange(len(names)) + 0.27 * (place - 1), shares, width=0.27, label=split)
    # matplotlib's own font has no Chinese characters
    shown = names if all(name.isascii() for name in names) else [str(number) for number in range(len(names))]
    labels.set_xticks(range(len(names)), shown, rotation=45 if len(names) > 5 else 0)
    labels.set(title="labels, share of the split")
    labels.legend()
    for axes, key, unit in ((texts, "text", "characters"), (audio, "audio", "frames"), (vision, "vision", "frames")):
        for split in SPLITS:
            table = cache.split(split)
            spans = list(map(len, table.texts)) if key == "text" else getattr(table, f"{key}_lengths")
            axes.hist(spans, bins=30, histtype="step", density=True, label=split)
        features = "" if key == "text" else f" (× {facts[key]['width']} features)"
        axes.set(title=f"{key}, {unit}{features}", ylabel="density")
    figure.suptitle(f"{facts['name']}  {facts['fingerprint'][:16]}")
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise MsekitError(f"the plot cannot be written: {error}", where=file) from error
