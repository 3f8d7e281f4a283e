"""What makes two runs the same run, so that one process may continue what another began."""

from __future__ import annotations

import hashlib
import json

from msekit.runs.identity import settings_of
from msekit.settings.config import RunConfig
from msekit.training.build import Parts
from msekit.version import __version__


def run_key(config: RunConfig, parts: Parts) -> str:
    """What two processes must share for one to continue the other's run: settings, data, weights, prompt."""
    settings = settings_of(config) | {"text_limit": parts.text_limit, "dtype": str(parts.backbone.model.dtype)}
    fingerprints = [parts.cache.info.fingerprint, parts.backbone.fingerprint, parts.model.layout.sha256]
    identity = [__version__, settings, *fingerprints]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
