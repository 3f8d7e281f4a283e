"""`msekit count-params`: the trainable parameters of an adapter, exactly, without loading weights (Table 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msekit.cli import options
from msekit.cli.output import Format, answer
from msekit.errors import MsekitError, nearest

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec


def count_params(
    backbone: Annotated[
        str | None,
        typer.Option(help="Catalogue name, folder with config.json, or a hub id that is in the local cache."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Catalogue name, or the path of a data set's YAML.")] = None,
    adapter: options.Adapter = "mse",
    fmt: Format = "table",
    ablate: options.Ablate = None,
) -> None:
    """Count an adapter's trainable parameters; without options, Table 1 of the paper beside its rounded figures."""
    from msekit import paper
    from msekit.adapters.ablations import ABLATIONS
    from msekit.adapters.sizes import ADAPTERS
    from msekit.backbones.shape import text_width

    adapter = adapter or "mse"
    if adapter not in ADAPTERS:
        raise MsekitError(f"unknown adapter '{adapter}'", fix=nearest(adapter, ADAPTERS.names))
    if ablate is not None and ablate not in ABLATIONS:
        raise MsekitError(f"unknown ablation '{ablate}'", fix=nearest(ablate, ABLATIONS))
    if ablate is not None and adapter != "mse":
        raise MsekitError(f"the ablations of Table 4 are of the adapter mse, not of {adapter}")
    backbones = paper.PAPER_BACKBONES if backbone is None else (backbone,)
    datasets = paper.PAPER_DATASETS if dataset is None else (dataset,)
    text_dims = {name: text_width(name) for name in backbones}
    described_sets = [described(name) for name in datasets]
    cells = [cell(name, dim, data, adapter, ablate) for name, dim in text_dims.items() for data in described_sets]
    answer(fmt, cells, lambda: _show(cells))


def cell(
    backbone: str, text_dim: int, data: tuple[DatasetSpec, int, int], adapter: str, ablate: str | None = None
) -> dict[str, Any]:
    """One line of the answer.

    Args:
        backbone: What the user called it; a published pair takes its published sizes, any other the defaults.
        text_dim: Width of its embeddings.
        data: The data set and its audio and vision widths, 0 for a modality it lacks.
        adapter: Name of the adapter.
        ablate: A row of Table 4, or None.

    Returns:
        `{"backbone", "dataset", "adapter", "trainable", "paper"}`, and `"ablate"` where there is one; paper in
        millions, or None.
    """
    from msekit.adapters.sizes import ADAPTERS, parameter_count
    from msekit.data.targets import opinions_of
    from msekit.paper import PUBLISHED, printed_parameters
    from msekit.settings.config import AdapterConfig

    spec, audio_width, vision_width = data
    size = PUBLISHED.get((backbone, spec.name)) or AdapterConfig.model_validate({})
    if ADAPTERS[adapter].has_opinion:  # trained by recipe `best`, which has no published sizes
        size = AdapterConfig.model_validate({})
    sizes = (size.audio_hidden, size.vision_hidden, size.pseudo_tokens)
    trainable = parameter_count(
        adapter,
        text_dim,
        audio_width,
        vision_width,
        *sizes,
        ablate=ablate,  # type: ignore[arg-type]
        state_layers=len(AdapterConfig().depths),
        classes=len(spec.labels or ()),
        questions=opinions_of(spec),
    )
    line = {"backbone": backbone, "dataset": spec.name, "adapter": adapter, "trainable": trainable}
    if ablate is not None:
        return line | {"ablate": ablate, "paper": None}
    return line | {"paper": printed_parameters(backbone, spec.name, adapter)}


def described(dataset: str) -> tuple[DatasetSpec, int, int]:
    """A data set with its feature widths: from its description, else from the first rows that have the modality.

    Returns:
        The data set, its audio width and its vision width; 0 for a modality that it lacks.

    Raises:
        MsekitError: There is no such data set, or its widths are unknown and its files are not at hand.
    """
    from msekit.data.catalogue import resolve_dataset

    spec = resolve_dataset(dataset)
    audio, vision = spec.audio_width, spec.vision_width
    if audio is None or vision is None:
        for row in _train_rows(spec):
            if audio is None and row.audio is not None:
                audio = int(row.audio.shape[-1])
            if vision is None and row.vision is not None:
                vision = int(row.vision.shape[-1])
            if audio is not None and vision is not None:
                break
    return spec, audio or 0, vision or 0


def _train_rows(spec: DatasetSpec) -> Iterable[Any]:
    """The train split's rows, as published or as made."""
    from msekit.data.readers.open_source import open_source

    return open_source(spec).rows("train")


def _show(cells: list[dict[str, Any]]) -> None:
    from msekit.reporter import Reporter, table_of

    rows = []
    for line in cells:
        adapter = line["adapter"] + (f", {line['ablate']}" if "ablate" in line else "")
        paper = "" if line["paper"] is None else f"{line['paper']:.2f}M"
        rows.append((line["backbone"], line["dataset"], adapter, f"{line['trainable']:,}", paper))
    headings = ("backbone", "data set", "adapter", "trainable", "paper")
    Reporter().show(table_of(headings, rows, "Trainable parameters", numbers_from=3))
