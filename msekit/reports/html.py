"""`report --format html`: one self-contained page per report, figures inlined, no script, readable at phone width."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from msekit.data.catalogue import DatasetSpec
from msekit.data.targets import of_target
from msekit.evaluation.metrics import higher_is_better
from msekit.reports import figures
from msekit.reports.aggregate import Group, aggregate
from msekit.reports.render import HEADINGS, cells, seeds_line
from msekit.runs.description import read_spec_of
from msekit.runs.files import CONFIG, DESCRIPTION, FULL, PREDICTIONS
from msekit.runs.history import read_history, read_robustness
from msekit.runs.predictions import read_predictions
from msekit.runs.report import RunReport, collect
from msekit.yaml_file import read_mapping

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; } h1, h2 { line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1.5rem 1rem; }
figure { margin: 0; } img { width: 100%; height: auto; } .warning { color: #9a3b00; }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { th, td { padding: .25rem .4rem; font-size: .9rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""


def html_report(runs: Sequence[Path]) -> str:
    """The page.

    Args:
        runs: As for `collect`.

    Raises:
        MsekitError: As `collect`; or matplotlib is not installed.
    """
    reports = collect(runs)
    groups = aggregate(reports)
    sections = [*overviews(groups), *(section(group) for group in groups)]
    title = " · ".join(dict.fromkeys(f"{r.values['backbone']} on {r.values['dataset']}" for r in reports))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def overviews(groups: Sequence[Group]) -> list[str]:
    """A table of the groups of each data set that has several: one line each, the metrics side by side."""
    sections = []
    for dataset in dict.fromkeys(group.values["dataset"] for group in groups):
        members = [group for group in groups if group.values["dataset"] == dataset]
        if len(members) == 1:
            continue
        names = list(dict.fromkeys(name for group in members for name in group.metrics))
        rows = [
            [
                group.title.partition(" · ")[2],
                str(len(group.seeds)),
                *(
                    cells(name, group.metrics[name], len(group.seeds))[1] if name in group.metrics else ""
                    for name in names
                ),
            ]
            for group in members
        ]
        sections.append(f"<h2>{escape(str(dataset))}</h2>{table(['runs', 'seeds', *names], rows)}")
    return sections


def section(group: Group) -> str:
    """One group of comparable runs: table, figures, and how the numbers came about."""
    lines = [f"<h2>{escape(group.title)}</h2>", f"<p>{escape(seeds_line(group))}</p>"]
    rows = [cells(name, summary, len(group.seeds)) for name, summary in group.metrics.items()]
    filled = [number for number in range(len(HEADINGS)) if any(row[number] for row in rows)]
    lines.append(table([HEADINGS[n] for n in filled], [[row[n] for n in filled] for row in rows]))
    shuffled = (
        "Shuffled: the same adapters with every sample's audio and vision taken from another one; what the score "
        "loses there is what they hear and see."
    )
    if any(row[-1] for row in rows):
        lines.append(f"<p>{shuffled}</p>")
    lines += [f'<p class="warning">{escape(warning)}</p>' for warning in group.warnings]
    pictures = [
        f'<figure><img alt="{escape(name)}" src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'
        "</figure>"
        for name, svg in drawn(group.members).items()
    ]
    lines.append(f'<div class="figures">{"".join(pictures)}</div>')
    lines.append(provenance(group.members))
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table that scrolls by itself where it is too wide."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def drawn(members: list[RunReport]) -> dict[str, str]:
    """Alternative text → SVG of every figure whose files the runs have."""
    pictures: dict[str, str] = {}
    histories = {run.seed: history for run in members if (history := read_history(run.path))}
    tested = [run for run in members if (run.path / PREDICTIONS).is_file() and (run.path / DESCRIPTION).is_file()]
    if not tested:
        return pictures
    spec = read_spec_of(tested[0].path)
    if histories:
        pictures["loss by epoch"] = figures.loss_curves(histories)
        pictures[f"validation {spec.key_metric} by epoch"] = figures.metric_curves(histories, spec.key_metric)
    for target in spec.targets or [""]:
        pictures |= _of_target(members, tested, spec, target)
    tests = _tests(members, spec)
    if len(tests) > 1:
        pictures["robustness to missing modalities"] = figures.robustness(tests, spec.key_metric)
    return pictures


def _of_target(members: list[RunReport], tested: list[RunReport], spec: DatasetSpec, target: str) -> dict[str, str]:
    """The pictures of one target's answers; `target` is empty where there is one."""
    own, prefix = spec, f"{target}: " if target else ""
    pictures: dict[str, str] = {}
    table = f"{target}:per_class_f1" if target else "per_class_f1"
    by_class = [found for run in members if isinstance(found := run.report.metrics.get(table), dict)]
    if target and spec.targets[target].labels:  # several answers a sample are no one picture
        return {f"{prefix}F1 by label": figures.class_f1(by_class, prefix)} if by_class else {}
    if target:
        own = of_target(spec, target)
    predictions = [read_predictions(run.path, spec, target) for run in tested]
    if not all(len(answers.truth) for answers in predictions):
        return pictures  # no test sample has a label
    if own.labels:
        pictures[f"{prefix}confusion matrix"] = figures.confusion(predictions, own.labels, prefix)
        if by_class:
            pictures[f"{prefix}F1 by class"] = figures.class_f1(by_class, prefix)
    else:
        pictures[f"{prefix}true and predicted intensity"] = figures.scatter(predictions, own, prefix)
    if all(answers.values.size for answers in predictions):
        pictures[f"{prefix}reliability"] = figures.reliability_diagram(predictions, own, prefix)
    return pictures


def _tests(members: list[RunReport], spec: DatasetSpec) -> dict[str, list[float]]:
    """The key metric by what was done to the test split, a value per seed: as it is, shuffled, modalities withheld."""
    tests: dict[str, list[float]] = {}
    for run in members:
        check = run.report.integrity
        done = {"as it is": run.report.metrics, "shuffled": check.metrics if check else {}}
        done |= {name: metrics for name, metrics in read_robustness(run.path).items() if name != FULL}
        for name, metrics in done.items():
            if isinstance(value := metrics.get(spec.key_metric), float):
                tests.setdefault(name, []).append(value)
    return tests


def provenance(members: list[RunReport]) -> str:
    """How the numbers came about: selection rule, machine, versions, fingerprints, settings."""
    first = members[0]
    values = first.values
    key = read_spec_of(first.path).key_metric if (first.path / DESCRIPTION).is_file() else "key metric"
    best = ", ".join(f"seed {run.seed}: {run.values.get('best_epoch', '?')}" for run in members)
    way = "highest" if key == "key metric" or higher_is_better(key) else "lowest"
    facts = [
        ("checkpoint", f"the epoch with the {way} validation {key} ({best})"),
        ("samples tested", str(values.get("samples", "?"))),
        ("trainable parameters", f"{first.report.trainable_parameters or 0:,}"),
        ("machine", str(values.get("machine", "?"))),
        ("versions", ", ".join(f"{name} {number}" for name, number in (values.get("versions") or {}).items())),
        *(
            (name.replace("_", " "), str(values.get(name, "?")))
            for name in ("data_fingerprint", "backbone_fingerprint")
        ),
        ("prompt sha256", str(values.get("prompt_sha256", "?"))),
    ]
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    file = first.path / CONFIG
    settings = _without_places(read_mapping(file, "run's configuration")) if file.is_file() else ""
    shown = f"<details><summary>settings of seed {first.seed}</summary><pre>{escape(settings)}</pre></details>"
    return f"<dl>{listed}</dl>{shown if settings else ''}"


def _without_places(settings: dict[str, Any]) -> str:
    """The settings as YAML, without the folders of the machine, which say whose it is."""
    kept = {key: value for key, value in settings.items() if key not in ("output", "source")}
    for key in ("dataset", "backbone", "profile"):
        if isinstance(path := kept.get(key), str) and Path(path).is_absolute():
            kept[key] = Path(path).name
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
