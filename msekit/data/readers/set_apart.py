"""`set_apart`: which of train's rows become the validation split of a table that has none.

Rows of one speaker stay together, or else those of one dialogue, or of one text: a voice that training has heard says
little about one that it has not. What is chosen depends on these names alone, not on the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.own_tables import Sample
from msekit.errors import MsekitError

_KINDS = ("speaker", "dialogue_id", "text")


def advice_on_empty(spec: DatasetSpec, split: str) -> str:
    """What to do about a split without samples."""
    if split != "valid" or spec.layout not in ("csv", "folder"):
        return "All three are needed"
    return "--validation 0.1 (or `validation: 0.1` in the description) sets a tenth of train apart"


def group_of(sample: Sample) -> str:
    """The name of the rows that a row stays together with."""
    kind = next((kind for kind in _KINDS if sample.fields.get(kind) not in (None, "")), "text")
    return f"{kind} {sample.fields.get(kind)}"


def set_apart(rows: Iterable[tuple[object, Sample]], share: float, path: Path) -> tuple[frozenset[str], str]:
    """Choose groups until they have a share of train's rows, without those that would make it more than twice that.

    Args:
        rows: The split that each row states, and the row.
        share: Of train's rows. Where all groups are too large, the smallest is chosen.
        path: The table, for messages.

    Returns:
        The names of the groups, and a sentence about them.

    Raises:
        MsekitError: There are rows of valid already, or only one group.
    """
    counts: Counter[str] = Counter()
    for stated, sample in rows:
        if stated == "valid":
            raise MsekitError(
                "there is a validation split already", where=sample.where, fix="Leave `validation` out, or its rows"
            )
        if stated == "train":
            counts[group_of(sample)] += 1
    if len(counts) < 2:
        what = "no rows" if not counts else f"all rows of train have one {next(iter(counts)).partition(' ')[0]}"
        raise MsekitError(f"{what}: none can be set apart for validation", where=path)
    chosen: set[str] = set()
    taken, total = 0, counts.total()
    order = sorted(counts, key=lambda name: hashlib.blake2b(name.encode("utf-8", "replace")).digest())
    for name in order:
        if taken >= share * total or len(chosen) == len(counts) - 1:
            break
        if taken + counts[name] <= 2 * share * total:
            chosen.add(name)
            taken += counts[name]
    if not chosen:
        smallest = min(order, key=lambda name: counts[name])
        chosen, taken = {smallest}, counts[smallest]
    kinds = Counter(name.partition(" ")[0] for name in counts)
    kind = kinds.most_common(1)[0][0].removesuffix("_id")
    remark = f"valid is {taken} of train's {total} rows, those of {len(chosen)} of {len(counts)} {kind}s"
    if taken > 2 * share * total:
        remark += f"; `validation` asks for {share:g}, and no {kind} has fewer"
    return frozenset(chosen), remark
