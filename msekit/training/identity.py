"""What makes two runs the same run, so that one process may continue what another began."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from msekit.runs.identity import settings_of
from msekit.settings.config import RunConfig
from msekit.training.build import Parts
from msekit.training.checkpoint import RunKey
from msekit.version import __version__


def run_key(config: RunConfig, parts: Parts) -> RunKey:
    """The key of a run: settings, data, weights, prompt, and the precision that the backbone is held in."""
    settings = settings_of(config)
    if parts.spec.targets:
        settings["weights"] = {name: target.weight for name, target in parts.spec.targets.items()}
    written = _hashed(settings | {"configuration": parts.backbone.configuration}, parts)
    earlier = {_hashed(settings, parts)}  # of states without the backbone's configuration
    for dtype in {"auto", config.model.dtype}:
        model = settings["model"] | {"dtype": dtype}
        evaluation = settings["evaluation"] | {"batch_size": 16}
        earlier.add(_hashed(settings | {"model": model, "evaluation": evaluation}, parts))
    return RunKey(written, frozenset({written, *earlier}))


def _hashed(settings: dict[str, Any], parts: Parts) -> str:
    settings = settings | {"text_limit": parts.text_limit, "dtype": str(parts.backbone.model.dtype)}
    fingerprints = [parts.cache.info.fingerprint, parts.backbone.fingerprint, parts.model.layout.sha256]
    identity = [__version__, settings, *fingerprints]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
