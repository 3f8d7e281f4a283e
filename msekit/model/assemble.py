"""A backbone and an adapter → MSEModel: the one place that puts a model together, for training and for use."""

from __future__ import annotations

import torch

from msekit.adapters.interface import Adapter
from msekit.backbones.backbone import Backbone
from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError
from msekit.model.answers import Answers, cues_of
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout
from msekit.settings.choices import Layout


def assemble(backbone: Backbone, adapter: Adapter, spec: DatasetSpec, order: Layout, text_limit: int) -> MSEModel:
    """Put a model together, on the backbone's device.

    Args:
        backbone: The frozen LLM.
        adapter: Fresh or trained.
        spec: The data set: its labels or range, and its prompt.
        order: Where the task prompt stands.
        text_limit: Longest text in tokens.

    Raises:
        MsekitError: Sequences may be longer than the backbone was trained for.
    """
    answers = Answers.of(spec, backbone.encode, backbone.end, order)
    cues = cues_of(spec, order)
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt, order, cues)
    model = MSEModel(backbone, adapter, layout, answers).to(backbone.device)
    _check_context(model, text_limit)
    return model


def with_adapter(model: MSEModel, adapter: Adapter) -> MSEModel:
    """A second model that shares all but the adapter with the first."""
    second = MSEModel(model.backbone, adapter, model.layout, model.answers).to(model.backbone.device)
    second.objective = model.objective
    return second


def text_scale(backbone: Backbone) -> float:
    """RMS of the backbone's embedding table: the size that its words have."""
    embeddings = backbone.model.get_input_embeddings()
    from msekit.distributed.zero import gathered  # whoever uses a plug-in does without it until here

    with gathered(embeddings):
        table_Vd = embeddings.weight
        return float(torch.linalg.vector_norm(table_Vd, dtype=torch.float32) / table_Vd.numel() ** 0.5)


def _check_context(model: MSEModel, limit: int) -> None:
    """Refuse sequences longer than the backbone was trained for.

    Raises:
        MsekitError: With both lengths.
    """
    trained = getattr(model.backbone.model.config, "max_position_embeddings", None)
    answer = model.answers.longest
    longest = len(model.layout.opening) + model.adapter.pseudo_tokens + limit + len(model.layout.closing) + answer
    if trained is not None and longest > trained:
        raise MsekitError(
            f"sequences of up to {longest} tokens exceed the {trained} that {model.backbone.name} was trained for",
            fix="Lower data.text_limit.",
        )
