"""What data may come to beside its files: a few bytes, packed, may stand for gigabytes of one value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError

MOST_FOLD, LEAST_BUDGET = 64, 2 << 30
"""What rows may come to, as a multiple of their files and in bytes."""
_PACKED = 64 << 20  # bytes; a modality that is zero throughout packs well, and is smaller
_AT_ONCE = 64 << 20  # bytes of a Parquet file's rows, unpacked


def refuse_packed(unpacked: int, packed: int, what: str) -> None:
    """Refuse one sample's features that come to far more than what they are stored as, before they are unpacked.

    Args:
        unpacked: Bytes.
        packed: Bytes.
        what: What is packed, for the message.

    Raises:
        MsekitError: They are one value repeated, and take gigabytes.
    """
    if unpacked > max(_PACKED, MOST_FOLD * packed):
        raise MsekitError(
            f"{what} unpacks to {unpacked >> 20} MB from {packed / (1 << 20):.1f} MB: one value repeated, no features",
            fix="Leave it out where the modality is absent",
        )


def parquet_batches(file: Any, path: Path, columns: list[str], most: int = 64) -> Iterator[Any]:
    """Batches of a Parquet file's rows, as many in each as come to little memory, and `most` at most.

    Raises:
        MsekitError: Its rows come to far more than the file: a few bytes may stand for gigabytes of one value.
    """
    for number in range(file.num_row_groups):
        rows = min(most, _rows_at_once(file.metadata.row_group(number), path))
        yield from file.iter_batches(rows, row_groups=[number], columns=columns)


def _rows_at_once(group: Any, path: Path) -> int:
    """How many rows of a row group are read together; each may have a text that is stored once for all of them.

    Raises:
        MsekitError: Its values come to far more than the file: a few bytes may stand for gigabytes of one value.
    """
    columns = [group.column(place) for place in range(group.num_columns)]
    packed = (one for one in columns if one.total_uncompressed_size > MOST_FOLD * one.total_compressed_size)
    texts = max((one.total_uncompressed_size for one in packed if one.physical_type == "BYTE_ARRAY"), default=0)
    size = 8 * sum(one.num_values for one in columns)  # bytes of its numbers; repeated ones are stored once
    if size > LEAST_BUDGET + MOST_FOLD * path.stat().st_size:
        raise MsekitError(f"the rows come to {size >> 20} MB, over {MOST_FOLD} times the size of the file", where=path)
    most = min(_AT_ONCE * group.num_rows // max(1, size), _AT_ONCE // max(1, texts))
    return max(1, most)
