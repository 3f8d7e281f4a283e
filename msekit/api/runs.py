"""`msekit.train`: one call from a backbone and data to a tested plug-in, with the settings of the command line.

result = msekit.train(backbone="smollm2-135m", dataset=samples, labels=("calm", "excited"), epochs=3)
result.report["metrics"]["wf1"]
result.plug_in.predict([...])
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msekit.api.given_data import Samples, answers_in, class_names, write_given
from msekit.errors import MsekitError, nearest
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import DEFAULT_SEED, OwnSet, RunRequest, plan_runs

if TYPE_CHECKING:
    from msekit.inference.plugin import PlugIn
    from msekit.training.callbacks import Callback

TrainConfig = RunConfig
"""Every setting of a run, checked; `RunResult.config` is one, and `train(config=…)` takes one."""

_OPTIONS = {field.name for field in fields(RunRequest)} - {
    *("backbone", "dataset", "own_set", "overrides", "seeds", "test_folds")
}
_DESCRIPTION = {field.name for field in fields(OwnSet)}
_SECTIONS = {name for name, info in RunConfig.model_fields.items() if hasattr(info.annotation, "model_fields")}


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    config: TrainConfig
    report: dict[str, Any] = field(repr=False)
    """The content of `report.json`."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.config.output

    @property
    def metrics(self) -> dict[str, Any]:
        """Of the test split."""
        return self.report["metrics"]

    @cached_property
    def plug_in(self) -> PlugIn:
        """The trained plug-in with its backbone, ready to predict; loaded when it is first asked for."""
        from msekit.inference.load import load_run

        return load_run(self.folder)


def train(
    backbone: str | None = None,
    dataset: str | Path | Samples | Mapping[str, Samples] | None = None,
    *,
    config: TrainConfig | None = None,
    seed: int | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    **settings: Any,
) -> RunResult:
    """Train one seed, test its best epoch, and leave a run folder.

    Args:
        backbone: Catalogue name, folder or hub id of a causal LM.
        dataset: Catalogue name, a YAML that describes one's own, a folder of samples; or samples in memory: a list of
            dicts, a pandas table, a `datasets.Dataset`, or a mapping of these by split.
        config: A resolved run, in place of all other settings.
        seed: Of weights, order and noise [1111].
        resume: Continue the run that the folder holds; a finished one is reused.
        callbacks: Told what happens; see `Callback`.
        quiet: Show no progress.
        **settings: The command line's options by name (`recipe`, `epochs`, `limit_train`, `output`, `labels`, `track`,
            …), sections (`optim={"lr": 1e-3}`), or dotted keys (`**{"optim.lr": 1e-3}`).

    Raises:
        MsekitError: Bad input; raised before anything is trained.
    """
    (run,) = configs(backbone, dataset, config, None if seed is None else (seed,), settings)
    reporter = Reporter(quiet)
    return _results([run], _trained([run], resume, reporter, callbacks, together=False))[0]


def train_seeds(
    backbone: str | None = None,
    dataset: str | Path | Samples | Mapping[str, Samples] | None = None,
    *,
    seeds: Sequence[int],
    parallel: bool = False,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    **settings: Any,
) -> list[RunResult]:
    """Train several seeds, one after the other or, with `parallel`, at once on one backbone; arguments as `train`.

    Returns:
        A result per seed, in their order.

    Raises:
        MsekitError: See `train`.
    """
    runs = configs(backbone, dataset, None, tuple(seeds), settings)
    return _results(runs, _trained(runs, resume, Reporter(quiet), callbacks, parallel))


def evaluate(
    run: str | Path | RunResult, split: str = "test", *, quiet: bool = False, **options: Any
) -> dict[str, Any]:
    """Score a split with a trained run; the keys of `report.json` that an evaluation has.

    Args:
        run: A run's folder, or what `train` returned.
        split: `train`, `valid` or `test`.
        quiet: Show no progress.
        **options: `source`, `dataset`, `estimate`, `quantization`, `shuffle`, `without`; see
            `msekit.studies.evaluate`.

    Raises:
        MsekitError: No run there, or data that do not fit it.
    """
    from msekit.studies.evaluate import evaluate as score

    folder = run.folder if isinstance(run, RunResult) else Path(run)
    return score(folder, split, reporter=Reporter(quiet), **options)


def configs(
    backbone: str | None,
    dataset: Any,
    config: TrainConfig | None,
    seeds: tuple[int, ...] | None,
    settings: dict[str, Any],
) -> list[TrainConfig]:
    """The resolved runs.

    Raises:
        MsekitError: An unknown or a wrong setting; both a config and settings.
    """
    if config is not None:
        if backbone is not None or dataset is not None or settings:
            raise MsekitError("config is a whole run: it goes with no other setting", where="msekit.train")
        output = config.output if seeds is None else config.output.parent / f"seed-{seeds[0]}"
        return [config.model_copy(update={"seed": (seeds or (config.seed,))[0], "output": output})]
    options, described, overrides = _sorted(settings)
    if isinstance(dataset, (str, Path)):
        if Path(dataset).expanduser().is_dir() and "source" not in options:
            options["source"] = Path(dataset).expanduser().resolve()
            dataset = options["source"].name
    elif dataset is not None:
        if "targets" in described and not isinstance(described["targets"], Mapping):
            raise MsekitError("`targets` is a mapping from names to what each is", where="msekit.train")
        options["source"] = write_given(dataset, answers_in(described))
        if not {"range", "targets"} & described.keys():
            described.setdefault("labels", class_names(dataset))
        dataset = options.pop("name", "given")
    options.pop("name", None)
    request = RunRequest(
        backbone=backbone,
        dataset=None if dataset is None else str(dataset),
        own_set=OwnSet(**described),
        overrides=tuple(overrides),
        seeds=seeds or (None if "run_file" in options else (DEFAULT_SEED,)),
        **options,
    )
    return plan_runs(request)[0]


def _sorted(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Settings by where they go: options, the data set's description, and overrides as `--set` takes them."""
    options: dict[str, Any] = {}
    described: dict[str, Any] = {}
    overrides = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and name in _SECTIONS:
            overrides += [f"{name}.{key}={json.dumps(part)}" for key, part in value.items()]
        elif "." in name or (name in RunConfig.model_fields and name not in {*_OPTIONS, *_SECTIONS}):
            overrides.append(f"{name}={json.dumps(value)}")
        elif name in _DESCRIPTION:
            described[name] = tuple(value) if isinstance(value, list) else value
        elif name in _OPTIONS or name == "name":
            options[name] = value
        else:
            known = {*_OPTIONS, *_DESCRIPTION, *_SECTIONS, "save_minutes", "name"}
            raise MsekitError(f"unknown setting '{name}'", where="msekit.train", fix=nearest(name, known))
    for key in ("source", "output"):
        if key in options:
            options[key] = Path(options[key]).expanduser().resolve()
    if isinstance(options.get("track"), str):
        options["track"] = (options["track"],)
    return options, described, overrides


def _trained(
    runs: list[TrainConfig], resume: bool, reporter: Reporter, callbacks: Sequence[Callback], together: bool
) -> list[dict[str, Any]]:
    """The reports, and the summary beside their folders."""
    from msekit.reports.summary import write_summary
    from msekit.runs.look_first import look_first
    from msekit.training.callbacks import Callback
    from msekit.training.loop import train as train_one
    from msekit.training.parallel_seeds import train_together

    for one in callbacks:
        if not isinstance(one, Callback):
            kind = f"the class {one.__name__}, not one of it" if isinstance(one, type) else f"a {type(one).__name__}"
            raise MsekitError(f"`callbacks` holds {kind}", where="msekit.train", fix="Give objects of msekit.Callback.")
    for run in runs:
        look_first(run, resume)
    if together:
        reports = list(train_together(runs, resume, reporter, callbacks))
    else:
        reports = [train_one(run, resume, reporter, callbacks) for run in runs]
    write_summary(runs[0].output.parent, reports)
    return reports


def _results(runs: list[TrainConfig], reports: list[dict[str, Any]]) -> list[RunResult]:
    return [RunResult(run, report) for run, report in zip(runs, reports, strict=True)]
