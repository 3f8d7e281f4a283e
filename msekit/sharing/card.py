"""The model card of an exported plug-in: what it is, what it was trained on, how well it does, what it is not for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from msekit.adapters.sizes import ADAPTERS
from msekit.backbones.catalogue import BACKBONES
from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.errors import shown
from msekit.evaluation.units import show
from msekit.reports.render import plain_markdown
from msekit.reports.summary import summarise
from msekit.runs.description import Description
from msekit.runs.files import CONFIG
from msekit.runs.report import read_report
from msekit.settings.resolve import read_run_file
from msekit.version import __version__

CARD_FILE = "README.md"
EVALUATIONS = ".eval_results/msekit.yaml"
"""The test metrics in the hub's own form, where the data set has a hub id."""

_TASKS = {
    "msa": "multimodal sentiment analysis",
    "erc": "emotion recognition in conversations",
    "targets": "multimodal emotion recognition with several targets",
}

_LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "unlicense",
    "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
    "odc-by", "odbl",
)  # fmt: skip
"""SPDX names that the hub knows, as it writes them."""
_HUB_METRICS = {"acc": "accuracy", "wf1": "f1", "macro_f1": "f1", "f1": "f1", "mae": "mae", "corr": "pearsonr"}
"""Our metrics → the hub's; any other keeps its name."""

_BODY = """\
# {title}

An [MSE-Adapter](https://arxiv.org/abs/2502.12478) plug-in for **{task}**: {parameters:,} trained parameters that let
the frozen LLM `{backbone}` read {reads}. The LLM itself is not part of this repository and is not changed.

{facts}

## Use

```python
{example}
```

`pip install msekit`. Features must come from the extractor of the training data. Loading executes nothing: the tensors
are safetensors, the description is JSON; a backbone with other weights is refused.

## Results

{results}

## Training

{training}

## Intended use and limits

For research on {task}. It answers with {answers}: {labels}; it cannot answer anything else, also where nothing fits.
It knows one data set, one language and one kind of features: speakers, cultures, recording conditions and topics that
differ from them lower its scores, and its probabilities are not calibrated. What a person shows is not what a person
feels. Do not use it to judge, select or watch people, nor where the law forbids inferring emotions.

## Licences

- This plug-in: {licence}
- Backbone `{backbone}`: {backbone_licence}
- Training data `{dataset}`: {data_licence}

Method: Yang, Dong and Qiang, *MSE-Adapter*, AAAI 2025. Written by msekit {version}.
"""


def model_card(run: Path, description: Description, licence: str | None, data_licence: str | None) -> str:
    """The README.md of an exported plug-in.

    Args:
        run: The run's folder, for its report, its settings and the other seeds beside it.
        description: As exported.
        licence: The owner's terms for the plug-in.
        data_licence: Terms of the training data.
    """
    spec, backbone = description.dataset, description.backbone.name
    entry = BACKBONES.get(backbone)
    unknown = f"see {'https://huggingface.co/' + backbone if backbone.count('/') == 1 else 'its publisher'}"
    reads = [f"{name} ({width} features a frame)" for name, width in description.widths.items() if width]
    body = _BODY.format(
        title=plain_markdown(f"{spec.name} on {backbone}"),
        task=_TASKS[spec.task],
        parameters=description.trainable_parameters,
        backbone=_code(backbone),
        reads=" and ".join(reads) or "neither audio nor vision (text alone)",
        facts=_facts(description),
        example=usage_example(description),
        results=_results(run),
        training=_training(run),
        answers="each of these targets" if spec.targets else "one of",
        labels=plain_markdown(description.labels),
        licence=licence or "not stated by its owner",
        backbone_licence=entry.licence if entry else unknown,
        dataset=spec.name,
        data_licence=data_licence
        or "not stated; ask the publisher of the corpus before using the plug-in commercially",
        version=__version__,
    )
    return f"---\n{_front_matter(run, description, entry.hub if entry else backbone, licence)}\n---\n\n{body}"


def _code(text: str) -> str:
    """A name between backticks, which it cannot leave; a bar would end a table's cell there too."""
    return shown(text).replace("`", "'").replace("|", "\\|")


def usage_example(description: Description) -> str:
    """Ten lines that run as they stand, beside the exported files."""
    shapes = {name: (12, width) for name, width in description.widths.items() if width}
    arrays = [f"{name} = np.zeros({shape}, np.float32)  # frames, features" for name, shape in shapes.items()]
    arguments = "".join(f", {name}={name}" for name in shapes)
    lines = [
        "import numpy as np",
        "import msekit",
        "",
        'run = msekit.load_run(".")  # a folder or a hub repository',
        *arrays,
        f'answer = run.predict("Oh my God, you came!"{arguments})',
        "print(answer.prediction, answer.scores)",
        'many = run.predict(["Well.", "No, thank you."])  # texts alone: audio and vision may be missing',
        "print([one.prediction for one in many])",
    ]
    return "\n".join(lines)


def _facts(description: Description) -> str:
    quantized = "" if description.backbone.quantization == "none" else f", held in {description.backbone.quantization}"
    rows = {
        "task": plain_markdown(f"{description.dataset.task}: {description.labels}"),
        "language": description.dataset.language,
        "backbone": f"`{_code(description.backbone.name)}`{quantized}",
        "plug-in": _plug_in(description),
        "backbone fingerprint": f"`{description.backbone.fingerprint}`",
        "data fingerprint": f"`{description.data_fingerprint}`" if description.data_fingerprint else "not known",
        "recipe, seed": f"{description.recipe}, {description.seed}",
        "point estimate": description.estimate,
        "text limit": f"{description.text_limit} tokens",
        "prompt": f"`{_code(description.dataset.task_prompt)}` (sha256 `{description.prompt_sha256[:16]}…`)",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _plug_in(description: Description) -> str:
    """Its name, and what it asks the LLM."""
    adapter = description.adapter
    if not ADAPTERS[adapter.name].has_opinion:
        return f"`{adapter.name}`"
    depths = ", ".join(f"{share:.0%}" for share in adapter.depths)
    return f"`{adapter.name}`: hidden states at {depths} of the LLM's depth, behind the cue `{_code(str(adapter.cue))}`"


def _results(run: Path) -> str:
    """This seed's test metrics with intervals, beside the mean over the seeds that lie with it."""
    report = read_report(run)
    if report is None:
        return "This plug-in was not tested by msekit."
    summary = summarise(run.parent, report.document()) if run.name.startswith("seed-") else {"seeds": [], "metrics": {}}
    seeds = summary["seeds"] if len(summary["seeds"]) > 1 else []
    over = f" mean ± std over seeds {', '.join(map(str, seeds))} |" if seeds else ""
    lines = [
        f"Test split, {report.samples} samples, estimate `{report.estimate}`, 95 % bootstrap intervals.",
        "",
        f"| metric | seed {report.seed} (this one) |{over}",
        f"|---|---|{'---|' if seeds else ''}",
    ]
    for metric, value in report.scalars.items():
        spread = summary["metrics"].get(metric)
        beside = f" {show(metric, spread['mean'], spread=spread['std'])} |" if seeds and spread else ""
        beside = beside or (" |" if seeds else "")
        interval = (report.confidence or {}).get(metric)
        lines.append(f"| {metric} | {show(metric, value, interval=interval)} |{beside}")
    if report.collapsed_to is not None:
        collapsed_to = plain_markdown(str(report.collapsed_to))
        lines += ["", f"**Every test sample is predicted as '{collapsed_to}': this run has collapsed.**"]
    return "\n".join(lines)


def _training(run: Path) -> str:
    """The settings that made it, without any path of the machine."""
    if not (run / CONFIG).is_file():
        return "The settings are not known."
    config = read_run_file(run / CONFIG)
    shown = {key: config[key] for key in ("recipe", "seed", "adapter", "data", "optim", "model") if key in config}
    return f"```yaml\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)}```"


def hub_licence(licence: str | None) -> dict[str, Any]:
    """A licence as the hub's metadata has it: by its SPDX name, else as one that the card describes."""
    name = "-".join((licence or "").lower().split())
    return {"license": name} if name in _LICENCES else {"license": "other", "license_name": "see-model-card"}


def hub_set(spec: DatasetSpec) -> str | None:
    """The hub id of a data set's features: the catalogue's set of its name and labels has it."""
    namesake = DATASETS.get(spec.name)
    same = namesake is not None and (namesake.labels, namesake.range) == (spec.labels, spec.range)
    return namesake.hub if namesake is not None and same else None


def evaluations(run: Path, description: Description) -> str | None:
    """The test metrics as `.eval_results` has them; None where the run was not tested, or its set has no hub id."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    report, hub = read_report(run), hub_set(description.dataset)
    if report is None or hub is None:
        return None
    notes = f"msekit, {report.samples} samples, estimate {report.estimate}, seed {report.seed}"
    entries = [
        EvalResultEntry(hub, metric, value, notes=notes)
        for metric, value in report.scalars.items()
        if value is not None
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)


def _hub_metric(key: str) -> str:
    """A metric as the hub calls it, of a target or of the whole."""
    name = key.rpartition(":")[2] if key.rpartition(":")[2] in _HUB_METRICS else key
    return _HUB_METRICS.get(name, name)


def _front_matter(run: Path, description: Description, base_model: str | None, licence: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    spec, report, hub = description.dataset, read_report(run), hub_set(description.dataset)
    metrics = {key: value for key, value in (report.scalars if report else {}).items() if value is not None}
    results = [
        EvalResult(
            task_type="text-classification",
            task_name=_TASKS[spec.task],
            dataset_type=hub or spec.name,
            dataset_name=spec.name,
            metric_type=_hub_metric(key),
            metric_name=key,
            metric_value=value,
            dataset_split="test",
        )
        for key, value in metrics.items()
    ]
    data = ModelCardData(
        library_name="msekit",
        language=spec.language,
        **hub_licence(licence),
        base_model=base_model if base_model and base_model.count("/") == 1 else None,
        datasets=[hub] if hub else None,
        metrics=sorted({_hub_metric(key) for key in metrics}) or None,
        pipeline_tag="text-classification",
        tags=["msekit", "mse-adapter", "multimodal", spec.task],
        model_name=f"{spec.name}-{Path(description.backbone.name).name}",
        eval_results=results or None,
    )
    return data.to_yaml()
