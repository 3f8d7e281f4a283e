"""Train the MSE-Adapter: a small plug-in that lets a frozen large language model hear and see.

The public names are imported on first use, so `import msekit` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msekit.version import __version__

if TYPE_CHECKING:
    from msekit.adapters.mse import MSEAdapter
    from msekit.api.runs import RunResult, TrainConfig, evaluate, train, train_seeds
    from msekit.backbones.backbone import Backbone
    from msekit.backbones.load import load_backbone
    from msekit.inference.host import PlugInHost
    from msekit.inference.load import load_run
    from msekit.inference.plugin import PlugIn
    from msekit.inference.prediction import Prediction
    from msekit.training.callbacks import Callback

_HOMES = {
    "MSEAdapter": "msekit.adapters.mse",
    "Backbone": "msekit.backbones.backbone",
    "load_backbone": "msekit.backbones.load",
    "PlugIn": "msekit.inference.plugin",
    "PlugInHost": "msekit.inference.host",
    "Prediction": "msekit.inference.prediction",
    "load_run": "msekit.inference.load",
    "Callback": "msekit.training.callbacks",
    "RunResult": "msekit.api.runs",
    "TrainConfig": "msekit.api.runs",
    "evaluate": "msekit.api.runs",
    "train": "msekit.api.runs",
    "train_seeds": "msekit.api.runs",
}
__all__ = [
    "Backbone",
    "Callback",
    "MSEAdapter",
    "PlugIn",
    "PlugInHost",
    "Prediction",
    "RunResult",
    "TrainConfig",
    "__version__",
    "evaluate",
    "load_backbone",
    "load_run",
    "train",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'msekit' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
