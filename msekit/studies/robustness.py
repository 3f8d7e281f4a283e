"""`evaluate --robustness`: what text, audio and vision bring, each taken away from every test sample, each shuffled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from msekit.data.batches.batch import Collator
from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.scoring import SHUFFLE_SEED, score_split
from msekit.model.text_states import FreshStates, states_wanted
from msekit.reporter import Reporter
from msekit.runs.files import FULL, ROBUSTNESS, write_json
from msekit.runs.report import read_report
from msekit.settings.config import RunConfig
from msekit.studies.evaluate import open_run
from msekit.training.build import Parts

CASES = {FULL: (), "without audio": ("audio",), "without vision": ("vision",), "neither": ("audio", "vision")}
"""Name → the modalities that are withheld."""


def robustness(
    run: Path, split: str = "test", *, source: Path | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Score a split with modalities withheld and shuffled; for the run's own test split, kept as `robustness.json`.

    Args:
        run: The run folder.
        split: Which samples.
        source: Where the features lie now.
        reporter: Where progress goes; None for the terminal.

    Returns:
        `{"dataset", "backbone", "seed", "split", "samples", "metrics": {case: metrics}}`; cases that take away what
        the adapter never read are left out. Of an adapter with an opinion also `the LLM alone` and `the opinion alone`.

    Raises:
        MsekitError: As `evaluate`.
    """
    reporter = reporter or Reporter()
    folder, config, parts = open_run(run, (split,), source=source, reporter=reporter)
    accelerator = accelerator_for(parts.backbone.device)
    by_case = {}
    for case, collator in cases(parts, config, split).items():
        scores = score_split(parts.model, collator, parts.evaluation_batch, accelerator, reporter, case)
        by_case[case] = scores.metrics(parts.spec, config.evaluation.estimate)
        if case == FULL:
            names = {"llm": "the LLM alone", "opinion": "the opinion alone"}
            by_case |= {
                names[name]: part.metrics(parts.spec, config.evaluation.estimate)
                for name, part in scores.alone().items()
            }
    common = {"dataset": parts.spec.name, "backbone": config.backbone, "seed": config.seed}
    report = common | {"split": split, "samples": len(parts.collators[split].split), "metrics": by_case}
    trained = read_report(folder)
    own = trained is not None and trained.data_fingerprint == parts.cache.info.fingerprint
    if accelerator.is_main_process and split == "test" and own:
        write_json(folder / ROBUSTNESS, report)
    return report


def cases(parts: Parts, config: RunConfig, split: str) -> dict[str, Collator]:
    """A split as it is, and with less to read, hear and see; what the adapter never had is left out."""
    whole = parts.collators[split]
    by_case = {
        case: replace(whole, withheld=frozenset(withheld))
        for case, withheld in CASES.items()
        if set(withheld) <= set(parts.modalities)
    }
    by_case |= {f"{name} shuffled": whole.shuffled(SHUFFLE_SEED, [name]) for name in parts.modalities}
    if config.adapter.parts.text:
        by_case |= {
            "without text": without_text(parts, config, split),
            "text shuffled": whole.text_shuffled(SHUFFLE_SEED),
        }
    return by_case


def without_text(parts: Parts, config: RunConfig, split: str) -> Collator:
    """A split in which nobody says anything."""
    collator = parts.collators[split]
    nothing: list[list[int]] = [[] for _ in collator.text_ids]
    states = None
    if collator.states is not None:
        wanted = states_wanted(config.adapter, parts.spec, parts.backbone)
        states = FreshStates(parts.backbone, nothing, None, wanted).checked()
    return replace(collator, text_ids=nothing, context=None, states=states)
