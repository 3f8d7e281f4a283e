"""A run's settings put together in layers, checked, and written back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from msekit.adapters.sizes import ADAPTERS
from msekit.backbones.catalogue import canonical_name
from msekit.data.extractor import Extractor
from msekit.errors import MsekitError, brief, nearest
from msekit.settings.config import OF_AN_OPINION, RunConfig
from msekit.settings.names import meant, takes_text
from msekit.settings.profiles import profile_of
from msekit.settings.recipes import default_recipe, extractor_layer, recipe_layers
from msekit.words import first_fault
from msekit.yaml_file import parse_yaml, read_mapping

OPTIONS_OF_THEIR_OWN = {
    "backbone": "--backbone",
    "dataset": "--dataset",
    "source": "--source",
    "output": "--output",
    "seed": "--seeds",
    "recipe": "--recipe",
    "profile": "--profile",
    "layout": "--layout",
}
_LATER = {"tracking"}
"""Sections that the first runs' `config.yaml` does not have."""


def resolve(
    options: dict[str, Any],
    *,
    task: str,
    run_file: Path | None = None,
    overrides: Iterable[str] = (),
    extractors: Mapping[Any, Extractor] | None = None,
) -> RunConfig:
    """Put the layers together.

    Args:
        options: What the command line says, nested; None says nothing. It (or the run file) names the backbone, the
            data set and the output folder.
        task: `msa` or `erc`: recipes `kit` and `best` differ.
        run_file: A YAML with settings.
        overrides: `optim.lr=1e-4`, …; of one key the last counts.
        extractors: What made the features, where that is on record.

    Raises:
        MsekitError: An unknown key or a value of the wrong kind, with the key's name.
    """
    layers = [reopened(read_run_file(run_file))] if run_file else []
    layers += [_without_none(options), *map(_parse_override, overrides)]
    chosen: dict[str, Any] = {}
    for layer in layers:
        _merge(chosen, layer)
    backbone, dataset = canonical_name(str(chosen.get("backbone"))), str(chosen.get("dataset"))
    chosen["backbone"] = backbone
    recipe = str(chosen.setdefault("recipe", default_recipe(backbone, dataset, chosen)))
    if chosen.get("profile") is not None:
        chosen["profile"] = str(chosen["profile"])
    merged: dict[str, Any] = {}
    _merge(merged, profile_of(chosen.get("profile")).settings)
    for layer in (*recipe_layers(recipe, task, backbone, dataset), extractor_layer(recipe, extractors or {})):
        _merge(merged, layer)
    _merge(merged, chosen)
    config = validated(merged)
    _refuse_without_an_opinion(config)
    return config


def _refuse_without_an_opinion(config: RunConfig) -> None:
    """No setting without effect: what belongs to an adapter with an opinion is refused for any other.

    Raises:
        MsekitError: The first such setting.
    """
    if ADAPTERS[config.adapter.name].has_opinion:
        return
    for key in sorted(OF_AN_OPINION):
        section, _, name = key.partition(".")
        value, fields = getattr(getattr(config, section), name), type(getattr(config, section)).model_fields
        if value != fields[name].default:
            raise MsekitError(
                f"setting {key} is of the adapter mse-states, not of {config.adapter.name}",
                fix="Leave it, or use --recipe kit for another adapter than that of recipe best.",
            )


def validated(raw: dict[str, Any], where: object = None) -> RunConfig:
    """Check a nested mapping.

    Raises:
        MsekitError: The first wrong key or value.
    """
    try:
        return RunConfig(**raw)
    except ValidationError as error:
        first, key, what = first_fault(error)
        if first["type"] == "extra_forbidden":
            name = str(first["loc"][-1])
            section = "".join(f"{part}." for part in first["loc"][:-1])
            fix = meant(name) or nearest(name, _keys_beside(first["loc"]), inside=section)
            raise MsekitError(f"unknown setting '{key}'", where=where, fix=fix) from error
        raise MsekitError(f"setting {what}" if key else f"the settings: {what}", where=where) from error


def read_run_file(path: Path) -> dict[str, Any]:
    """Read a run file or a run's resolved `config.yaml`.

    Raises:
        MsekitError: The file is unreadable or not a mapping.
    """
    return read_mapping(path, "run file")


def reopened(settings: dict[str, Any]) -> dict[str, Any]:
    """A run file's settings; in those of a finished run, what was decided for its machine is open again.

    A run's `config.yaml` says every setting. Its ways through the LLM, its recomputed layers and its evaluation batch
    are what fitted there: another run, on another machine or backbone, decides anew. No number depends on them.
    """
    if not settings.keys() >= RunConfig.model_fields.keys() - _LATER:
        return settings
    model = dict(settings["model"]) | {"checkpointing": "auto"}
    if model.get("passes") != "plain":
        model["passes"] = "auto"
    return settings | {"model": model, "evaluation": dict(settings["evaluation"]) | {"batch_size": None}}


def dump(config: RunConfig) -> str:
    """The resolved run as YAML; reading it back gives the same run."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise MsekitError(f"--set takes key=value, not '{text}'", fix="For example --set optim.lr=1e-4.")
    section, _, name = key.partition(".")
    if section in OPTIONS_OF_THEIR_OWN:
        if name:
            raise MsekitError(f"unknown setting '{key}'", fix=meant(name) or f"{section} has no settings in it.")
        raise MsekitError(f"--set {key}: this has an option of its own", fix=f"Use {OPTIONS_OF_THEIR_OWN[key]}.")
    try:
        nested: Any = parse_yaml(value)
    except ValueError as error:
        if not takes_text(key):
            raise MsekitError(f"--set {key}: the value {brief(value)} cannot be read: {error}") from error
        nested = value
    if nested is not None and takes_text(key) and not isinstance(nested, str):
        nested = value  # a text may look like something else to YAML: `Heard:`, 5, yes
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    cleaned = {key: _without_none(value) if isinstance(value, dict) else value for key, value in options.items()}
    return {key: value for key, value in cleaned.items() if value is not None and value != {}}


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    section: Any = RunConfig
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
