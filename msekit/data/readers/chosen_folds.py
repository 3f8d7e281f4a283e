"""Which folds of a data set are meant: how many there are, and what `--folds` says of them."""

from __future__ import annotations

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.own_folder import OwnSet
from msekit.data.targets import refuse_several
from msekit.errors import MsekitError


def number_of_folds(spec: DatasetSpec) -> int:
    """How many folds a set has; the table is read where its description does not say it.

    Raises:
        MsekitError: It has none, or the table cannot be read.
    """
    if spec.folds is None:
        fix = "Say it in its description: `folds: {by: speaker, k: 5}` (or by session, or given)"
        raise MsekitError(f"data set '{spec.name}' has no folds", fix=fix)
    if spec.folds.k is not None:
        return spec.folds.k
    source = OwnSet(spec)
    next(source.readers("test"), None)
    return source.folds


def chosen_folds(spec: DatasetSpec, said: str | None) -> tuple[int | None, ...]:
    """The folds that `--folds` chooses: `all`, or numbers; (None,) for a set without folds of which none is asked.

    Raises:
        MsekitError: There are folds and none is chosen, or one that there is not.
    """
    if said is None:
        refuse_unchosen(spec)
        return (spec.fold,)
    refuse_several(spec, "cross-validation")
    count = number_of_folds(spec)
    if said == "all":
        return tuple(range(1, count + 1))
    numbers = [int(part) if part.strip().isdigit() else 0 for part in said.split(",")]
    if not all(1 <= number <= count for number in numbers) or len(set(numbers)) < len(numbers):
        raise MsekitError(f"--folds takes `all` or different numbers from 1 to {count}, not '{said}'")
    return tuple(numbers)


def refuse_unchosen(spec: DatasetSpec) -> None:
    """Refuse to train on a set with folds where nobody says which one is tested.

    Raises:
        MsekitError: Nobody does.
    """
    if spec.folds is not None and spec.fold is None:
        raise MsekitError(
            f"data set '{spec.name}' has folds, and none is chosen",
            fix="msekit train … --folds all (or --folds 1); elsewhere `fold: 1` in its description.",
        )
