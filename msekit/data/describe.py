"""What `msekit data` shows: a verification; the shapes, lengths and labels of a cache as data, tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from msekit.data.cache.cache import Cache
from msekit.data.catalogue import MODALITIES, SPLITS
from msekit.data.findings import by_cause, line_of
from msekit.data.modality_scan import ModalityCheck
from msekit.data.readers.rows import number_of
from msekit.data.verify import SplitCheck, Verification
from msekit.errors import MsekitError, needs_extra
from msekit.reporter import Reporter, table_of
from msekit.words import reason

_BAR = 12  # characters of the longest bar
_LENGTH_BINS = 8


def show_verification(outcome: Verification, reporter: Reporter) -> None:
    """A table of counts, the findings with their rows, and the verdict."""
    checks = [outcome.splits[split] for split in SPLITS]
    expected = ["" if check.expected is None else f" of {check.expected}" for check in checks]
    rows = [
        ("samples", *(f"{check.samples}{of}" for check, of in zip(checks, expected, strict=True))),
        ("unusable", *(str(check.unusable) for check in checks)),
        ("empty texts", *(str(check.empty_texts) for check in checks)),
        ("repeated ids", *(str(check.repeated_ids) for check in checks)),
    ]
    if any(check.without_label for check in checks):
        rows.append(("without label", *(str(check.without_label) for check in checks)))
    asked = dict.fromkeys(question for check in checks for question in check.unanswered)
    rows += [(f"without {name}", *(str(check.unanswered.get(name, 0)) for check in checks)) for name in asked]
    rows += [(f"{key} {what}", *cells) for key in MODALITIES for what, cells in _modality_lines(checks, key)]
    counts = [binned_labels(check.labels, outcome.task) for check in checks]
    rows += [
        (f"label {label}", *(str(count.get(label, 0)) for count in counts))
        for label in label_order(counts, outcome.task)
    ]
    reporter.show(table_of(("", *SPLITS), rows, f"{outcome.name} ({outcome.task})"))
    for group in by_cause(outcome.findings):
        reporter.show(line_of(group))
    reporter.show(f"verdict: {outcome.verdict}")


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
        target, colon, value = label.rpartition(":")
        number = number_of(value)
        name = label if number is None or "." not in value else f"{target}{colon}{round(2 * number) / 2 + 0.0:+.1f}"
        binned[name] = binned.get(name, 0) + count
    return binned


def label_order(counts: list[dict[str, int]], task: str) -> list[str]:
    """All labels: classes by their numbers, intensities from low to high."""
    names = list(dict.fromkeys(label for count in counts for label in count))
    return sorted(names, key=float) if task == "msa" else names


def cache_facts(cache: Cache) -> dict[str, Any]:
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


def show_description(cache: Cache, facts: dict[str, Any], reporter: Reporter) -> None:
    """Shapes, lengths and labels, with the fingerprint that reports cite.

    Args:
        cache: What is described.
        facts: Its `description`.
        reporter: Where the tables go.
    """
    rows = [("samples", *(str(facts["splits"][split]["samples"]) for split in SPLITS))]
    for key, unit in (("text", "characters"), ("audio", "frames"), ("vision", "frames")):
        spreads = [facts["splits"][split][f"{key}_{unit}"] for split in SPLITS]
        cells = ["none" if s is None else f"{s['least']:.0f}/{s['median']:.0f}/{s['most']:.0f}" for s in spreads]
        rows.append((f"{key} {unit}, least/median/most", *cells))
    for key in (key for key in MODALITIES if facts[key]["width"]):
        rows.append((f"{key} features per frame", *(str(facts[key]["width"]) for _ in SPLITS)))
        rows.append((f"{key} absent", *(str(facts[key]["absent"][split]) for split in SPLITS)))
        bad = (f"{facts[key]['nonfinite'][s]} in {facts[key]['nonfinite_rows'][s]}" for s in SPLITS)
        rows.append((f"{key} non-finite: values in samples", *bad))
    reporter.show(table_of(("", *SPLITS), rows, f"{facts['name']} ({facts['task']}, {facts['dtype']})"))
    reporter.show(_label_histogram(facts))
    reporter.show(*(_length_histogram(cache, key) for key in MODALITIES if facts[key]["width"]))
    for line in facts.get("beside", ()):
        reporter.show(f"beside the rows: {line}")
    reporter.show(f"fingerprint {facts['fingerprint']}", f"cache {facts['cache']}")


def _shares(facts: dict[str, Any]) -> tuple[list[str], list[dict[str, int]]]:
    """Label names in order, and their counts per split."""
    counts = [binned_labels(facts["splits"][split]["labels"], facts["task"]) for split in SPLITS]
    return label_order(counts, facts["task"]), counts


def _label_histogram(facts: dict[str, Any]) -> Table:
    names, counts = _shares(facts)
    scales = [_BAR / max(1, *count.values()) for count in counts]
    rows = []
    for name in names:
        here = [(count.get(name, 0), scale) for count, scale in zip(counts, scales, strict=True)]
        rows.append((name, *(f"{'█' * round(scale * count)} {count}" for count, scale in here)))
    return table_of(("label", *SPLITS), rows)


def _length_histogram(cache: Cache, key: str) -> Table:
    lengths = np.concatenate([getattr(cache.split(split), f"{key}_lengths") for split in SPLITS])
    lengths = lengths[lengths > 0]
    bins = min(_LENGTH_BINS, int(lengths.max() - lengths.min()) + 1)
    counts, edges = np.histogram(lengths, bins=bins, range=(lengths.min(), lengths.max() + 1))
    rows = []
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        first, last = int(np.ceil(low)), int(np.ceil(high)) - 1
        span = f"{first}" if first == last else f"{first}–{last}"
        rows.append((span, f"{'█' * round(2 * _BAR * count / max(counts))} {count}"))
    return table_of((f"{key} frames", "samples of all splits"), rows)


def plot(cache: Cache, file: Path) -> None:
    """Labels and lengths of every split as a picture.

    Raises:
        MsekitError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise needs_extra("plots need matplotlib", "plot") from error
    facts = cache_facts(cache)
    figure = Figure(figsize=(11, 7), layout="constrained")
    (labels, texts), (audio, vision) = figure.subplots(2, 2)
    names, counts = _shares(facts)
    for place, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        shares = [count.get(name, 0) / max(1, sum(count.values())) for name in names]
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
        raise MsekitError(f"the plot cannot be written: {reason(error)}", where=file) from error
