"""What is decided by a trial: whether an LLM reads padded batches and label tries at once, and which ways are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from msekit.backbones.passes.agree import APART_AS_LOADED, said
from msekit.backbones.passes.plain import plain_pass
from msekit.backbones.passes.prefix import state_of
from msekit.backbones.passes.trial import NotByEmbeddingsError, Trial, scale_of, trial_sequences
from msekit.backbones.passes.twin import WINDOW_KEYS, NoTwinError, small_twin
from msekit.backbones.sequence import Pass
from msekit.errors import MsekitError


@dataclass
class Findings:
    """What trials found."""

    padding: str | None = None
    """Why samples are read one at a time."""
    tree: str | None = None
    """Why labels are read one at a time."""
    failed: dict[str, str] = field(default_factory=dict)
    """Ways that do not compute what transformers does → why."""

    @property
    def one_by_one(self) -> dict[str, str]:
        """What is not read at once → why."""
        reasons = {"padded-batch": self.padding, "label-tree": self.tree}
        return {what: reason for what, reason in reasons.items() if reason}


def check_takes_embeddings(model: Any) -> None:
    """Refuse an architecture whose configuration says that a token is more than its embedding.

    Raises:
        MsekitError: It has embeddings for every layer besides, which a pseudo token has not.
    """
    if getattr(model.config.get_text_config(decoder=True), "hidden_size_per_layer_input", None):
        kind = type(model).__name__
        raise _refusal(NotByEmbeddingsError(f"{kind} reads an embedding of each token in every layer besides"))


def try_out(
    model: Any, ways: list[str], run_of: Callable[[str, Any], Pass], device: torch.device | None = None
) -> Findings:
    """Try on the model's twin what is read at once, and ways.

    Args:
        model: A frozen transformers model.
        ways: The prefix first, if it is among them.
        run_of: Another way and a model → the model's pass by it.
        device: Where the twin computes; None for the CPU.

    Raises:
        MsekitError: It does not read embeddings as it reads tokens.
    """
    no_tree = state_of(model)
    try:
        trial = Trial(small_twin(model).to(device or "cpu"), no_tree=no_tree)
    except NotByEmbeddingsError as error:
        raise _refusal(error) from error
    except Exception as error:  # whatever an architecture raises that does not take what a trial reads
        why = str(error) if isinstance(error, NoTwinError) else f"it cannot be tried ({said(error)})"
        return _without_twin(model, no_tree, dict.fromkeys(ways, why), why)
    findings = Findings(trial.padding, trial.tree)
    for way in ways:
        reason: str | None
        try:
            reason = trial.prefix() if way == "prefix" else trial.of(run_of(way, trial.model))
        except Exception as error:  # whatever an architecture raises that is asked for what it does not do
            reason = said(error)
        if reason:
            findings.failed[way] = reason
    return findings


def _without_twin(model: Any, no_tree: str | None, failed: dict[str, str], why: str) -> Findings:
    """Try the model itself, as far as it is in fp32.

    Raises:
        MsekitError: It does not read embeddings as it reads tokens.
    """
    exact = all(weight.dtype == torch.float32 and not hasattr(weight, "ds_id") for weight in model.parameters())
    try:
        if exact:
            trial = Trial(model, scale_of(model), APART_AS_LOADED, no_tree or _window_of(model))
            return Findings(trial.padding, trial.tree, failed)
        plain_pass(model)(trial_sequences(model, scale_of(model))[0][0])
    except Exception as error:  # whatever an architecture raises that does not take what a model here reads
        raise _refusal(error) from error
    return Findings(no_tree and why, no_tree or why, failed)


def _window_of(model: Any) -> str | None:
    """That some layers have a window, which is wider than a trial."""
    text = model.config.get_text_config(decoder=True)
    sizes = [f"{key} {getattr(text, key)}" for key in WINDOW_KEYS if isinstance(getattr(text, key, None), int)]
    return f"its layers have windows ({', '.join(sizes)}), and no small twin of it can be made" if sizes else None


def _refusal(error: Exception) -> MsekitError:
    why = str(error) if isinstance(error, NotByEmbeddingsError) else said(error)
    return MsekitError(f"the LLM cannot be given pseudo tokens: {why}", fix="Use an LLM of another architecture.")
