"""A checkpoint of the authors' program → a run folder of msekit.

The program saves, by `torch.save`, the state dict of everything that trains (AAAI 2025 release and its forks); tensors
are read with weights-only unpickling. Their names, after an optional `Model.`: `audio_LSTM.rnn.*` and `.linear` (LSTM
and W_a), `video_LSTM.*`, `text_guide_mixer.text_mlp` (W_t), `mutli_scale_fusion.scale1|scale2|scale3` (d/8, d/32 and
d/16, in this order), `.integrating.Integrating_layer.0` (the 1×1 convolution over them, same order),
`.multi_scale_projector` (W_3) and `.projector` (W_4). Buffers of the LLM that lie beside them are left out.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msekit.adapters.sizes import SCALES
from msekit.backbones.catalogue import canonical_name
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.fingerprint import fingerprint_checkpoint, fingerprint_configuration
from msekit.backbones.shape import text_width
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.errors import MsekitError, nearest
from msekit.inference.restore import restored_adapter
from msekit.model.wording import layout_sha256
from msekit.runs.config import write_config
from msekit.runs.description import FORMAT, BackboneRef, Description, read_description, write_description
from msekit.runs.files import ADAPTER
from msekit.runs.lock import held_for_training
from msekit.runs.tensors import write_tensors
from msekit.settings.config import RunConfig
from msekit.settings.resolve import validated
from msekit.version import __version__

_LSTM = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
_AUTHORS_SCALES = {"scale1": 8, "scale2": 32, "scale3": 16}
_FUSION = "mutli_scale_fusion"  # their spelling


def _names() -> dict[str, str]:
    """The authors' name → ours, for every tensor but the convolution's weight."""
    pairs = {f"{_FUSION}.integrating.Integrating_layer.0.bias": "multi_scale_fusion.mix.bias"}
    for theirs, ours in (("audio_LSTM", "audio_encoder"), ("video_LSTM", "vision_encoder")):
        pairs |= {f"{theirs}.rnn.{name}": f"{ours}.lstm.{name}" for name in _LSTM}
        pairs |= {f"{theirs}.linear.{name}": f"{ours}.projection.{name}" for name in ("weight", "bias")}
    linears = {
        "text_guide_mixer.text_mlp": "text_guide_mixer.text_projection",
        f"{_FUSION}.multi_scale_projector": "projector.to_text_dim",
        f"{_FUSION}.projector": "projector.expand",
    }
    for theirs, scale in _AUTHORS_SCALES.items():
        for layer in (0, 2):
            linears[f"{_FUSION}.{theirs}.{layer}"] = f"multi_scale_fusion.mlps.{SCALES.index(scale)}.{layer}"
    for theirs, ours in linears.items():
        pairs |= {f"{theirs}.{name}": f"{ours}.{name}" for name in ("weight", "bias")}
    return pairs


def read_authors_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint under msekit's names, float32. Nothing in the file is executed.

    Raises:
        MsekitError: Not a plain state dict, or one whose names are not those of the authors' adapter.
    """
    try:
        raw: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise MsekitError("no such file", where=path) from error
    except pickle.UnpicklingError as error:
        raise MsekitError(
            "the file holds more than tensors, or is no checkpoint; it was not executed", where=path
        ) from error
    except Exception as error:  # whatever a damaged file makes torch raise, struct.error and MemoryError among it
        raise MsekitError("the file is damaged, or is no checkpoint of torch", where=path) from error
    if not isinstance(raw, dict) or not all(isinstance(value, Tensor) for value in raw.values()):
        raise MsekitError("the file is not a plain state dict of tensors", where=path)
    theirs = {str(name).removeprefix("module.").removeprefix("Model."): tensor for name, tensor in raw.items()}
    theirs = {name: tensor for name, tensor in theirs.items() if not name.startswith("LLM.")}
    convolution = f"{_FUSION}.integrating.Integrating_layer.0.weight"
    names = _names()
    for name in sorted(theirs.keys() ^ {*names, convolution}):
        side = "an unknown" if name in theirs else "no"
        advice = nearest(name, names) if name in theirs else "Only the published adapter can be imported."
        raise MsekitError(f"the checkpoint has {side} '{name}'", where=path, fix=advice)
    tensors = {ours: theirs[name] for name, ours in names.items()}
    scales = list(_AUTHORS_SCALES.values())
    if theirs[convolution].numel() != len(scales):
        raise MsekitError(f"'{convolution}' has {theirs[convolution].numel()} weights, not {len(scales)}", where=path)
    order = [scales.index(scale) for scale in SCALES]
    tensors["multi_scale_fusion.mix.weight"] = theirs[convolution].reshape(-1)[order].reshape(1, len(scales), 1)
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def import_checkpoint(path: Path, backbone: str, dataset: str, output: Path) -> Path:
    """Write a run folder from a checkpoint of the authors' program.

    The weights are the same; the sequence around them is msekit's (its tags and prompt, no padding in the text mean),
    so scores differ from the authors' program and must be measured (`msekit evaluate`).

    Args:
        path: The checkpoint.
        backbone: What it was trained on; its weights are read for their fingerprint.
        dataset: Catalogue name or YAML.
        output: The folder to write; new or empty.

    Returns:
        The folder.

    Raises:
        MsekitError: An unusable checkpoint, or one of another backbone or data set.
    """
    tensors = read_authors_checkpoint(path)
    spec = resolve_dataset(dataset)
    sizes = _sizes(tensors, spec, path)
    if (width := text_width(backbone)) != sizes["text_dim"]:
        raise MsekitError(
            f"the checkpoint is for embeddings of width {sizes['text_dim']}, '{backbone}' has {width}", where=path
        )
    config = validated(
        {
            "backbone": canonical_name(backbone),
            "dataset": str(Path(dataset).resolve()) if Path(dataset).suffix in (".yaml", ".yml") else dataset,
            "recipe": "paper",
            "output": output,
            "adapter": {"conditioning": "paper", **sizes["adapter"]},
            "data": {"standardise": False, "trim": 0.0, "max_frames": None, "noise": 0.0},
        }
    )
    checkpoint = checkpoint_folder(config.backbone)
    trained_on = BackboneRef(
        name=config.backbone,
        fingerprint=fingerprint_checkpoint(checkpoint),
        configuration=fingerprint_configuration(checkpoint),
    )
    description = _description(config, spec, sizes, trained_on, sum(tensor.numel() for tensor in tensors.values()))
    with held_for_training(output, resume=False):
        write_tensors(output / ADAPTER, tensors)
        write_description(output, description)
        write_config(config)
        restored_adapter(output, read_description(output))
    return output


def _sizes(tensors: dict[str, Tensor], spec: DatasetSpec, path: Path) -> dict[str, Any]:
    """Every size of the adapter, from its tensors' shapes, compared with the data set's widths."""
    widths = {name: tensors[f"{name}_encoder.lstm.weight_ih_l0"].shape[1] for name in ("audio", "vision")}
    for name, expected in (("audio", spec.audio_width), ("vision", spec.vision_width)):
        if expected is not None and widths[name] != expected:
            raise MsekitError(
                f"the checkpoint reads {widths[name]} {name} features per frame, '{spec.name}' has {expected}",
                where=path,
            )
    return {
        "widths": widths,
        "text_dim": tensors["projector.to_text_dim.weight"].shape[0],
        "adapter": {
            "audio_hidden": tensors["audio_encoder.lstm.weight_hh_l0"].shape[1],
            "vision_hidden": tensors["vision_encoder.lstm.weight_hh_l0"].shape[1],
            "pseudo_tokens": tensors["projector.expand.weight"].shape[0],
            "hidden": tensors["projector.to_text_dim.weight"].shape[1],
        },
    }


def _description(
    config: RunConfig, spec: DatasetSpec, sizes: dict[str, Any], trained_on: BackboneRef, parameters: int
) -> Description:
    return Description(
        kind="imported",
        format=FORMAT,
        msekit=__version__,
        imported_from="a checkpoint of the authors' program",
        backbone=trained_on,
        dataset=spec,
        adapter=config.adapter,
        text_dim=sizes["text_dim"],
        widths=sizes["widths"],
        features={"audio": Preprocessor(), "vision": Preprocessor()},
        text_limit=spec.text_limit,
        estimate=config.evaluation.estimate,
        prompt=spec.task_prompt,
        prompt_sha256=layout_sha256(spec.task_prompt),
        recipe=config.recipe,
        trainable_parameters=parameters,
    )
