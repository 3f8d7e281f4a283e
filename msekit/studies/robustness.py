"""`evaluate --robustness`: a run's score with audio, vision or both taken away from every test sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.scoring import score_split
from msekit.reporter import Reporter
from msekit.runs.files import FULL, ROBUSTNESS, write_json
from msekit.runs.report import read_report
from msekit.studies.evaluate import open_run

CASES = {FULL: (), "without audio": ("audio",), "without vision": ("vision",), "neither": ("audio", "vision")}


def robustness(
    run: Path, split: str = "test", *, source: Path | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Score a split with modalities withheld; for the run's own test split, kept as `robustness.json` in its folder.

    Args:
        run: The run folder.
        split: Which samples.
        source: Where the features lie now.
        reporter: Where progress goes; None for the terminal.

    Returns:
        `{"dataset", "backbone", "seed", "split", "samples", "metrics": {case: metrics}}`; cases that take away what
        the adapter never read are left out.

    Raises:
        MsekitError: As `evaluate`.
    """
    reporter = reporter or Reporter()
    folder, config, parts = open_run(run, (split,), source=source, reporter=reporter)
    accelerator = accelerator_for(parts.backbone.device)
    collator = parts.collators[split]
    by_case = {}
    for case, withheld in CASES.items():
        if not set(withheld) <= set(parts.modalities):
            continue
        without = replace(collator, withheld=frozenset(withheld))
        size = parts.evaluation_batch
        scores = score_split(parts.model, without, size, accelerator, reporter, case)
        by_case[case] = scores.metrics(parts.spec, config.evaluation.estimate)
    common = {"dataset": parts.spec.name, "backbone": config.backbone, "seed": config.seed}
    report = common | {"split": split, "samples": len(collator.split), "metrics": by_case}
    trained = read_report(folder)
    own = trained is not None and trained.data_fingerprint == parts.cache.info.fingerprint
    if accelerator.is_main_process and split == "test" and own:
        write_json(folder / ROBUSTNESS, report)
    return report
