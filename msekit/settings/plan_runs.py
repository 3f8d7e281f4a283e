"""What a command asks for → one resolved config per seed, and the folder that holds their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msekit.errors import MsekitError, brief, nearest

if TYPE_CHECKING:
    from msekit.settings.config import RunConfig

DEFAULT_SEED = 1111
_OTHERWISE_CALLED = {"adapter.name": "adapter", "tracking.trackers": "track"}
"""Options that are not called like their setting."""


@dataclass(frozen=True)
class OwnSet:
    """What the options say of a data set of one's own, or otherwise than its description; None: as there."""

    labels: tuple[str, ...] | None = None
    range: tuple[float, float] | None = None
    language: str | None = None
    prompt: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    columns: dict[str, str] | None = None
    validation: float | None = None
    folds: dict[str, Any] | None = None
    fold: int | None = None
    metrics: str | tuple[str, ...] | None = None
    key_metric: str | None = None
    targets: dict[str, Any] | None = None

    def settings(self) -> dict[str, Any]:
        """What was said, as keys of a data set's description."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class RunRequest:
    """What a command asks for of its runs: options that several commands have. None where an option is not given.

    Values are checked where they meet the other layers (`settings.resolve`), so that a run file's mistake and an
    option's read alike.
    """

    backbone: str | None = None
    dataset: str | None = None
    """Catalogue name, or the path of a YAML."""
    source: Path | None = None
    own_set: OwnSet = OwnSet()
    recipe: str | None = None
    profile: str | None = None
    layout: str | None = None
    quantization: str | None = None
    adapter: str | None = None
    ablate: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    limit_train: int | None = None
    on_missing: str | None = None
    context: int | None = None
    track: tuple[str, ...] | None = None
    """Experiment trackers."""
    output: Path | None = None
    """Folder of the seeds' folders; None for `runs/<data set>-<backbone>`."""
    run_file: str | None = None
    """A run file's path, or the name of a shipped one."""
    seeds: tuple[int, ...] | None = None
    test_folds: str | None = None
    """`all`, or numbers: which folds are tested, each by runs of its own in `fold-N/`."""
    deterministic: bool | None = None
    overrides: tuple[str, ...] = ()
    """`key=value`, from `--set`."""

    def settings(self) -> dict[str, Any]:
        """The options as keys of a `RunConfig`, nested; without data set, seed and output, which `plan_runs` adds."""
        return {
            "backbone": self.backbone,
            "source": self.source,
            "description": self.own_set.settings(),
            "recipe": self.recipe,
            "profile": self.profile,
            "layout": self.layout,
            "model": {"quantization": self.quantization},
            "adapter": {"name": self.adapter, "ablate": self.ablate},
            "optim": {"epochs": self.epochs, "batch_size": self.batch_size, "deterministic": self.deterministic},
            "data": {"limit_train": self.limit_train, "on_missing": self.on_missing, "context": self.context},
            "tracking": {"trackers": self.track},
        }


def plan_runs(request: RunRequest) -> tuple[list[RunConfig], Path]:
    """One resolved config per seed, or per fold and seed, and the folder that holds their folders.

    Raises:
        MsekitError: No backbone or data set named, or any setting that is wrong.
    """
    from msekit.data.readers.chosen_folds import chosen_folds
    from msekit.data.readers.found_labels import find_set
    from msekit.settings.resolve import read_run_file, resolve

    file = find_run_file(request.run_file) if request.run_file else None
    in_file = read_run_file(file) if file else {}
    backbone = _named("backbone", request.backbone, in_file)
    dataset = _named("dataset", request.dataset, in_file)
    described = (in_file.get("description") or {}) | request.own_set.settings()
    source = request.source or in_file.get("source")
    spec = find_set(dataset, None if source is None else Path(str(source)), described)
    settings = request.settings()
    _said_once(settings, request.overrides)
    described_by_file = Path(dataset).suffix.lower() in (".yaml", ".yml")
    settings["dataset"] = str(Path(dataset).expanduser().resolve()) if described_by_file else dataset
    folder = request.output or in_file.get("output") or Path("runs") / f"{spec.name}-{Path(backbone).name}"
    folder = Path(str(folder)).resolve()
    runs = []
    for fold in chosen_folds(spec, request.test_folds):
        place = folder / f"fold-{fold}" if request.test_folds else folder
        chosen = settings | {"description": {**settings["description"], "fold": fold}}
        runs += [
            resolve(
                chosen | {"seed": seed, "output": place / f"seed-{seed}"},
                task=spec.task,
                run_file=file,
                overrides=request.overrides,
                extractors=spec.extractors,
            )
            for seed in request.seeds or (in_file.get("seed", DEFAULT_SEED),)
        ]
    return runs, folder


def _said_once(settings: dict[str, Any], overrides: tuple[str, ...]) -> None:
    """No setting by an option and by `--set`: one of the two would be without effect.

    Raises:
        MsekitError: The first that is said twice.
    """
    for key in (override.partition("=")[0] for override in overrides):
        section, _, name = key.partition(".")
        if isinstance(settings.get(section), dict) and settings[section].get(name) is not None:
            option = _OTHERWISE_CALLED.get(key, name.replace("_", "-"))
            raise MsekitError(f"--set {key}: --{option} says it too", fix="Keep one of them.")


def _named(key: str, option: str | None, in_file: dict[str, Any]) -> str:
    """The backbone or data set, from the command line or the run file.

    Raises:
        MsekitError: Neither names one, or the run file has settings in its place.
    """
    name = option or in_file.get(key)
    if not name:
        raise MsekitError(f"no {key} given", fix=f"Name one with --{key}.")
    if isinstance(name, (dict, list)):
        from msekit.settings.names import meant

        first = str(next(iter(name), ""))
        raise MsekitError(f"setting {key} is to be a text, not {brief(name)}", fix=meant(first))
    return str(name)


def find_run_file(name: str) -> Path:
    """A run file by path, or by the name of one that ships in `configs/`.

    Raises:
        MsekitError: Neither exists; the shipped names are offered.
    """
    from msekit.paths import shipped

    if Path(name).is_file():
        return Path(name)
    apart = ("profiles", "datasets")
    files = {path.stem: path for path in shipped("configs").rglob("*.yaml") if path.parent.name not in apart}
    if name in files:
        return files[name]
    raise MsekitError(f"no run file '{name}'", fix=nearest(name, files))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Comma-separated seeds.

    Raises:
        MsekitError: Not whole numbers, or one twice.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise MsekitError(f"--seeds takes whole numbers, not '{text}'", fix="For example --seeds 1111,2222.") from error
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise MsekitError(f"--seeds takes different, non-negative numbers, not '{text}'")
    return numbers
