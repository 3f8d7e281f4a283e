"""What a config.json says of its checkpoint that msekit cannot use, told before torch or transformers load.

Which kinds of models write text stands in tables of transformers; they are read off its source here, as importing them
imports torch. What the tables do not tell, loading does (`load.py`).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError

WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of classes end that write text."""
_JUDGES = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
"""How the names of classes end that have another head in the place of the one that writes."""
OF_OUR_OWN = ("qwen", "chatglm")
"""Kinds that transformers does not know and `formats.py` converts."""
ONE_THAT_WRITES = "Use a model that was trained to write text."


@cache
def tables() -> Mapping[str, frozenset[str]]:
    """The kinds of models (`model_type`) in each table of transformers, by the table's name.

    Empty where transformers is written otherwise than it was: then nothing is told early.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return {}
    found: dict[str, frozenset[str]] = {}
    for name in ("modeling_auto.py", "auto_mappings.py", "configuration_auto.py"):
        file = Path(spec.origin).parent / "models" / "auto" / name
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError):
            return {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                key = node.targets[0].id
                found[key] = found.get(key, frozenset()) | _kinds(node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
                key = getattr(node.func.value, "id", "")
                found[key] = found.get(key, frozenset()) | frozenset().union(*map(_kinds, node.args))
    return found


def _kinds(value: ast.AST) -> frozenset[str]:
    """The keys of `OrderedDict([(key, value), …])` and of dictionaries in it."""
    kinds = set()
    for node in ast.walk(value):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant):
            kinds.add(node.elts[0].value)
        elif isinstance(node, ast.Dict):
            kinds |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return frozenset(kind for kind in kinds if isinstance(kind, str))


def refuse_stated(config: Mapping[str, Any], where: object) -> None:
    """Refuse a checkpoint that does not go on with a text, by its configuration alone.

    Args:
        config: Its config.json.
        where: Its folder or repository.

    Raises:
        MsekitError: An encoder, a model with an encoder, one that judges or sees and does not write, or one that
            transformers does not know.
    """
    known, kind = tables(), str(config.get("model_type"))
    writers, seeing = (known.get(f"MODEL_FOR_{name}_MAPPING_NAMES") for name in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT"))
    if not writers or not seeing or kind in OF_OUR_OWN:
        return
    said = stated_class(config, kind)
    what: str | None
    if config.get("is_encoder_decoder") is True and not said.endswith("ForCausalLM"):
        what = f"{said} is no causal LM: {kind} answers what an encoder has read, and goes on with no text"
    elif kind in known.get("MODEL_FOR_MASKED_LM_MAPPING_NAMES", ()) and not config.get("is_decoder"):
        what = f"{said} is no causal LM: {kind} reads a text in both directions and does not write"
    elif said.endswith(_JUDGES):
        what = f"{said} is no causal LM: it judges a text and does not write"
    elif kind in writers | seeing:
        what = _of_the_text_part(config, kind, writers)
    elif kind in frozenset().union(*known.values()):
        what = f"{kind} is no causal LM: transformers has no class of it that goes on with a text"
    else:
        _refuse_unknown(config, kind, where)
        return
    if what is not None:
        fix = "Use the text LLM of the same family." if what.startswith("a vision") else ONE_THAT_WRITES
        raise MsekitError(what, where=where, fix=fix)


def stated_class(config: Mapping[str, Any], otherwise: str) -> str:
    """The class that a config.json says its checkpoint is of."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else otherwise


def _of_the_text_part(config: Mapping[str, Any], kind: str, writers: frozenset[str]) -> str | None:
    """What is wrong with the LLM inside a vision-language model, if its configuration says it."""
    inner = config.get("text_config")
    if kind in writers or not isinstance(inner, Mapping):
        return None
    if inner.get("use_bidirectional_attention"):
        return f"a vision-language model ({kind}) whose text part reads in both directions: it is no causal LM"
    known = frozenset().union(*tables().values())
    if str(inner.get("model_type")) in known - writers:
        return f"a vision-language model ({kind}), of whose text part transformers has no class by itself"
    return None


def _refuse_unknown(config: Mapping[str, Any], kind: str, where: object) -> None:
    """Refuse a kind that transformers does not know, unless a program has loaded it, which may have told it of more."""
    if "transformers" in sys.modules or "model_type" not in config:
        return
    own_code = " and only its own code could load it, which msekit never runs" if "auto_map" in config else ""
    raise MsekitError(
        f"transformers {version('transformers')} does not know the checkpoint's model type '{kind:.60}'{own_code}",
        where=where,
        fix="Use a conversion of it to an architecture that transformers has.",
    )
