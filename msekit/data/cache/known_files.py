"""Feature files that are known by their checksum, so that another file under the same name is told from them.

The checksums are those that MMSA publishes beside its features (github.com/thuiar/MMSA, README, "Datasets"; Mao et al.
2022). Numbers of several papers are on these files; mirrors hold others of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msekit.data.cache.digests import digests_of
from msekit.data.catalogue import DatasetSpec

KNOWN = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": ("mosi", "MOSI/Processed/unaligned_50.pkl"),
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": ("", "MOSI/Processed/aligned_50.pkl"),
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": ("mosei", "MOSEI/Processed/unaligned_50.pkl"),
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": ("", "MOSEI/Processed/aligned_50.pkl"),
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": ("sims", "SIMS/Processed/unaligned_39.pkl"),
}
"""sha256 → the catalogue's set that it is of (none has the aligned ones), and its name there."""


def remarks_on_files(spec: DatasetSpec, files: Sequence[Path], memo: Path) -> list[str]:
    """A sentence for each file of a known set that is not the known file.

    Args:
        spec: The data set; of one that is not known nothing is said.
        files: What its rows are read from.
        memo: Where checksums are kept.
    """
    from msekit.data.download import downloaded

    wanted = {name: digest for digest, (name, _) in KNOWN.items() if name}.get(spec.name)
    if wanted is None or spec.layout != "msa-pickle":
        return []
    if spec.hub is not None and spec.source == downloaded(spec):  # a download is compared with the hub's own checksums
        return []
    said = []
    for file, digest in zip(files, digests_of(list(files), memo), strict=True):
        if digest == wanted:
            continue
        what = f"it is {KNOWN[digest][1]}" if digest in KNOWN else f"its sha256 begins with {digest[:12]}"
        said.append(
            f"{file.name} is not {KNOWN[wanted][1]} as MMSA publishes it (sha256 {wanted[:12]}…): {what}; numbers on "
            "it are not those of papers on that file"
        )
    return said
