"""The LLM inside a vision-language checkpoint: which class of transformers it is, and what its weights are called.

Where transformers has a class for the text part alone, that is loaded from the same files, and whatever sees is left
out. A weight of the text part that is missing is refused as everywhere; so is one that the class has no place for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msekit.backbones.checkpoints.weight_files import tensor_shapes
from msekit.errors import MsekitError

NAMES = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
    r"^model\.text_model\.": "model.",
}
"""What the text part's weights are called in vision-language checkpoints, old and new → in its own class."""


def text_part(folder: Path, raw: dict[str, Any]) -> tuple[Any, Any] | None:
    """The class and the configuration of a vision-language checkpoint's text part; None for any other checkpoint.

    Raises:
        MsekitError: transformers has no class for the text part alone, or knows the checkpoint's kind as no causal LM.
    """
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    kind = str(raw.get("model_type"))
    whole = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(kind)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:  # that class is transformers' own choice
        return None
    if whole is None and kind in transformers.CONFIG_MAPPING:
        raise MsekitError(
            f"{kind} is no causal LM: transformers has no class of it that goes on with a text",
            where=folder,
            fix="Use a model that was trained to write text.",
        )
    if whole is None:
        return None
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        inner = config.get_text_config()
    except Exception as error:  # whatever an unusual configuration makes transformers raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise MsekitError(f"the checkpoint's configuration cannot be read: {reason}", where=folder) from error
    if inner.model_type == kind or inner.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise MsekitError(
            f"a vision-language model ({kind}), of whose text part transformers has no class by itself",
            where=folder,
            fix="Use the text LLM of the same family.",
        )
    if getattr(inner, "use_bidirectional_attention", None):
        raise MsekitError(
            f"a vision-language model ({kind}) whose text part reads in both directions: it is no causal LM",
            where=folder,
            fix="Use the text LLM of the same family.",
        )
    inner.tie_word_embeddings = not any("lm_head." in name for name in tensor_shapes(folder))
    return getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[inner.model_type]), inner


def of_the_text(names: set[str], model: Any) -> set[str]:
    """Those of the names that have no place in a text class and lie where its own weights do."""
    parts = {f"model.{name}." for name, _ in model.base_model.named_children()} | {"lm_head."}
    return {name for name in names if name.startswith(tuple(parts))}
