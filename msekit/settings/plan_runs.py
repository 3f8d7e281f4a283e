"""What a command was told → one resolved config per seed, and the folder that holds their folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msekit.errors import MsekitError

if TYPE_CHECKING:
    from msekit.settings.config import RunConfig


DEFAULT_SEED = 1111


def plan_runs(
    given: dict[str, Any], run_file: str | None, seeds: str | None, overrides: list[str]
) -> tuple[list[RunConfig], Path]:
    """One resolved config per seed, and the folder that holds their folders.

    Raises:
        MsekitError: No backbone or data set named, or any setting that is wrong.
    """
    from msekit.data.catalogue import resolve_dataset
    from msekit.settings.resolve import read_run_file, resolve

    file = find_run_file(run_file) if run_file else None
    in_file = read_run_file(file) if file else {}
    for key, option in (("backbone", "--backbone"), ("dataset", "--dataset")):
        if not (given[key] or in_file.get(key)):
            raise MsekitError(f"no {key} given", fix=f"Name one with {option}.")
    dataset = str(given["dataset"] or in_file["dataset"])
    asked = {key: value for key, value in (given.get("description") or {}).items() if value is not None}
    described = (in_file.get("description") or {}) | asked
    spec = resolve_dataset(dataset, given["source"] or in_file.get("source"), described)
    backbone = str(given["backbone"] or in_file["backbone"])
    if Path(dataset).suffix in (".yaml", ".yml"):
        given["dataset"] = str(Path(dataset).resolve())
    folder = given["output"] or in_file.get("output") or Path("runs") / f"{spec.name}-{Path(backbone).name}"
    folder = Path(str(folder)).resolve()
    numbers = parse_seeds(seeds) if seeds else [in_file.get("seed", DEFAULT_SEED)]
    runs = [
        resolve(
            given | {"seed": seed, "output": folder / f"seed-{seed}"},
            task=spec.task,
            run_file=file,
            overrides=overrides,
        )
        for seed in numbers
    ]
    return runs, folder


def find_run_file(name: str) -> Path:
    """A run file by path, or by the name of one that ships in `configs/`.

    Raises:
        MsekitError: Neither exists; the shipped names are offered.
    """
    from msekit.errors import nearest
    from msekit.paths import shipped

    if Path(name).is_file():
        return Path(name)
    known = {path.stem: path for path in shipped("configs").rglob("*.yaml") if path.parent.name != "profiles"}
    if name in known:
        return known[name]
    raise MsekitError(f"no run file '{name}'", fix=nearest(name, known))


def parse_seeds(text: str) -> list[int]:
    """Comma-separated seeds.

    Raises:
        MsekitError: Not whole numbers, or one twice.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise MsekitError(f"--seeds takes whole numbers, not '{text}'", fix="For example --seeds 1111,2222.") from error
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise MsekitError(f"--seeds takes different, non-negative numbers, not '{text}'")
    return numbers
