"""The one door to the frozen pass: which shorter ways a backbone uses is decided here, once, and composed here.

Whether a way is for an architecture and a machine, its structure tells. Whether it then computes what transformers
does of single samples and single labels, a trial tells (`trial.py`): values and gradient, in fp32, on a small twin of
the LLM (`twin.py`). What is nowhere near the plain pass by the LLM's own weights, as they are held, is left out too. A
way that structure speaks against does not apply; one that fails was expected to work, and a warning says so.

The plain pass itself is tried so: where a padded batch or a label trie's mask is read otherwise than one by one, it
goes one by one (`one_by_one.py`), and a warning says so.

The ways (`holding.WAYS`), and what each puts over the model's modules, from the inside to the outside:

- `prefix`: keys and values of what every sequence begins with are read once. Overwrites nothing.
- `joined`: queries, keys and values by one product, gate and up by another (`joined.py`), where a run asks for it.
- `triton`: on a GPU, norms, residuals, rotary positions and gated activations by kernels of one launch each
  (`gpu/fused_layers.py`), where a run asks for it.
- `lean-parts`: MLPs and norms whose gradient is written out (`lean_mlp_norm.py`). Both on for whoever calls the model.
- `last-layer`: the last layer at the columns that are read (`last_layer.py`); on within a pass.
- (gradient checkpointing, which is no shorter way but asked for: layers recomputed, `recompute.py`; always on.)
- `written-out`: on a CPU whole layers, values and gradient (`cpu/decoder_layers.py`); on within a pass. They do what
  `last-layer` does and keep their input alone where layers are recomputed.
- `compiled`: transformers' layers as one program (`compiled.py`), where a run asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from msekit.backbones.cpu import decoder_layers as written_out
from msekit.backbones.cpu.decoder_layers import FrozenLayers
from msekit.backbones.holding import WAYS
from msekit.backbones.passes import last_layer
from msekit.backbones.passes import prefix as read_before
from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.compiled import CompiledPass
from msekit.backbones.passes.findings import Findings, try_out
from msekit.backbones.passes.last_layer import LastLayer
from msekit.backbones.passes.lean_mlp_norm import find_parts, leaner
from msekit.backbones.passes.plain import plain_pass
from msekit.backbones.passes.recompute import recomputed, recomputing
from msekit.backbones.passes.switch import Over, Switch, put_over
from msekit.backbones.passes.trial import around, far_apart, logits_as_loaded
from msekit.backbones.sequence import Pass, Sequence
from msekit.errors import MsekitError

_LOGGER = logging.getLogger("msekit")
_TRIED = ("prefix", "last-layer", "joined", "triton", "written-out")
"""What a trial on the twin decides, in its order; a prefix that works is tried with the others too."""


_WHOEVER_CALLS = ("lean-parts", "joined", "triton")
"""Ways that are on whoever calls the model."""
_ASKED_FOR = {
    "compiled": "only where model.compile asks for it",
    "joined": "only where model.passes asks for it: what it gives has not been measured",
    "triton": "only where model.passes asks for it: its kernels have not been measured on a GPU",
}
"""Ways that `auto` does not take → why."""


@dataclass(frozen=True)
class PassSettings:
    """What is asked of a backbone's pass."""

    ways: str | tuple[str, ...] = "auto"
    """`auto` for every way that works and is not left to be asked for, `plain` for none, or the names of some of
    `WAYS`, which then must work."""
    compiled: bool = False
    """The way `compiled` besides."""
    recompute: bool = False
    """Gradient checkpointing."""

    @property
    def required(self) -> tuple[str, ...]:
        """The ways that must work."""
        named = () if isinstance(self.ways, str) else self.ways
        return (*named, "compiled") if self.compiled and "compiled" not in named else named

    def refusal(self, way: str) -> str | None:
        """Why a way is not wanted."""
        if way in self.required:
            return None
        if self.ways != "auto":
            return "model.passes leaves it out"
        return _ASKED_FOR.get(way)


Forwards = dict[nn.Module, Callable[..., Tensor]]
"""Module → its leaner forward."""


class Chosen:
    """A backbone's pass, and which ways it takes.

    Args:
        model: The model; the ways are put over its modules for good, behind switches.
        settings: What is asked.
        usable: Ways that work.
        refused: Way, or part of one → why it is not used.
        lean: Modules of `lean-parts`.
        findings: What is read one by one.
    """

    run: Pass
    """Sequence → next-token logits of its last `answers` columns, (B, answers, V)."""
    uses: tuple[str, ...]
    """The ways that it takes."""

    def __init__(
        self,
        model: Any,
        settings: PassSettings,
        usable: tuple[str, ...],
        refused: dict[str, str],
        lean: Forwards,
        findings: Findings,
    ) -> None:
        layers, plain = decoder_layers(model), plain_pass(model)
        # over the modules from the inside to the outside
        self._joined = put_over(_joined(model)) if "joined" in usable else Switch()
        self._lean = put_over(leaner(lean))
        self._fused = put_over(_fused(model)) if "triton" in usable else Switch()
        last = LastLayer(model) if "last-layer" in usable else None
        last_switch = put_over(last.forwards) if last else Switch()
        again = recomputed(layers) if settings.recompute else [False] * len(layers)
        if settings.recompute:
            put_over(recomputing(layers), on=True)
        frozen = FrozenLayers(layers, again) if "written-out" in usable else None
        frozen_switch = put_over(frozen.forwards) if frozen else Switch()
        if frozen and frozen.not_laid_out:
            refused = refused | {"written-out with weights laid out": frozen.not_laid_out}
        device = model.get_input_embeddings().weight.device.type
        whole = CompiledPass(plain, device) if "compiled" in usable else plain
        self._passes = {(): plain, ("compiled",): whole}
        if last:
            self._passes[("last-layer",)] = partial(_within, last, last_switch, plain)
            self._passes["last-layer", "compiled"] = partial(_within, last, last_switch, whole)
        if frozen:
            self._passes[("written-out",)] = partial(_within, frozen, frozen_switch, plain)
        for ways, run in self._passes.items():
            self._passes[ways] = around(run, findings.padding, findings.tree)
        self._settle(usable, refused)

    def _settle(self, usable: tuple[str, ...], refused: dict[str, str]) -> None:
        self._usable = usable
        self._take(usable)
        within = {way: "written-out layers do it in their own way" for way in usable if way not in self.uses}
        self.refused = refused | within

    def drop_wrong(self, model: Any) -> dict[str, str]:
        """Leave out ways whose logits by the model's own weights are nowhere near the plain pass's → why."""
        tried = [way for way in self._usable if way != "compiled"]  # which would compile it here
        with self.limited(()):
            plain = logits_as_loaded(model, self.run)
        wrong = {}
        if far := self._far(model, tried, plain):
            alone = {way: reason for way in tried if (reason := self._far(model, [way], plain))}
            wrong = alone or dict.fromkeys(tried, far)
            usable = tuple(way for way in self._usable if way not in wrong)
            self._settle(usable, {way: reason for way, reason in self.refused.items() if way not in usable} | wrong)
        return wrong

    def _far(self, model: Any, ways: list[str], plain: Tensor) -> str | None:
        if not ways:
            return None
        with self.limited(ways):
            return far_apart(logits_as_loaded(model, self.run, "prefix" in ways), plain)

    def _take(self, ways: Iterable[str]) -> None:
        ways = set(ways) - ({"last-layer", "joined", "triton"} if "written-out" in ways else set())
        self._lean.on, self._joined.on, self._fused.on = (way in ways for way in _WHOEVER_CALLS)
        self.uses = tuple(way for way in WAYS if way in ways)
        self.run = self._passes[tuple(way for way in self.uses if way not in ("prefix", *_WHOEVER_CALLS))]

    @contextmanager
    def limited(self, ways: Iterable[str]) -> Iterator[None]:
        """Within, of the ways that work only these are used: to compare one with another.

        Raises:
            MsekitError: One of them does not work.
        """
        before, ways = self.uses, tuple(ways)
        for way in ways:
            if way not in self._usable:
                raise MsekitError(f"the pass cannot take the way '{way}': {self.refused.get(way, 'no such way')}")
        self._take(ways)
        try:
            yield
        finally:
            self._take(before)


def choose(model: Any, settings: PassSettings) -> Chosen:
    """Decide which ways a frozen model's pass takes, and put them over its modules.

    Args:
        model: A frozen transformers model, which no way was put over yet.
        settings: What is asked.

    Raises:
        MsekitError: A way that was asked for by name cannot be used, or layers cannot be recomputed.
    """
    # whatever the caller is within, trials take gradients, in fp32
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        return _choose(model, settings)


def _choose(model: Any, settings: PassSettings) -> Chosen:
    refused = {way: reason for way in WAYS if (reason := settings.refusal(way))}
    lean, unlike = find_parts(model) if "lean-parts" not in refused else ({}, {})
    obstacles = {
        "prefix": read_before.obstacle(model),
        "last-layer": last_layer.obstacle(model),
        "joined": None if "joined" in refused else _cannot_be_joined(model, settings),
        "triton": None if "triton" in refused else _cannot_be_fused(model, settings),
        "lean-parts": None if lean else "no gated MLP and no RMS norm of a kind that is written out here",
        "written-out": "a compiled pass is of transformers' layers"
        if settings.refusal("compiled") is None
        else written_out.obstacle(decoder_layers(model)),
    }
    refused = {way: reason for way, reason in obstacles.items() if reason} | refused
    tried = [way for way in _TRIED if way not in refused]
    # a GPU's kernels can be tried on it alone
    device = model.get_input_embeddings().weight.device if "triton" in tried else torch.device("cpu")
    findings = try_out(model, tried, _run_of, device)
    failed = findings.failed
    refused |= {f"lean-parts of {kind}": reason for kind, reason in unlike.items()} | failed
    usable = tuple(way for way in WAYS if way not in refused)
    _check_required(settings, refused)
    chosen = Chosen(model, settings, usable, refused | findings.one_by_one, lean, findings)
    if not any(hasattr(weight, "ds_id") for weight in model.parameters()):  # all processes would have to take part
        failed |= chosen.drop_wrong(model)
        _check_required(settings, failed)
    _warn(failed, findings.one_by_one)
    return chosen


def _cannot_be_joined(model: Any, settings: PassSettings) -> str | None:
    """Why a model's products cannot be joined."""
    from msekit.backbones.passes.joined import obstacle  # read by who asks for the way alone

    if settings.refusal("compiled") is None:
        return "a compiled pass joins products itself"
    return "written-out layers have products of their own" if "written-out" in settings.required else obstacle(model)


def _joined(model: Any) -> list[Over]:
    from msekit.backbones.passes.joined import Joined

    return Joined(model).forwards


def _cannot_be_fused(model: Any, settings: PassSettings) -> str | None:
    """Why a model's layers cannot be computed by a GPU's kernels."""
    from msekit.backbones.gpu.fused_layers import obstacle  # read by who asks for the way alone

    if settings.refusal("compiled") is None:
        return "a compiled pass has kernels of its own"
    if "written-out" in settings.required:
        return "written-out layers are a CPU's"
    return obstacle(model, decoder_layers(model))


def _fused(model: Any) -> list[Over]:
    from msekit.backbones.gpu.fused_layers import fused

    return fused(decoder_layers(model))


def _check_required(settings: PassSettings, refused: dict[str, str]) -> None:
    for way in settings.required:
        if way in refused:
            raise MsekitError(
                f"the way '{way}' through the LLM cannot be used: {refused[way]}",
                where="model.passes",
                fix="Leave it out, or use model.passes=auto.",
            )


_SLOWER = {"padded-batch": "samples are read one at a time", "label-tree": "labels are scored one at a time"}


def _warn(failed: dict[str, str], one_by_one: dict[str, str]) -> None:
    """One line for each thing that was expected to work, from one process of a run alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
        return
    for way, reason in failed.items():
        _LOGGER.warning("the LLM's pass does without '%s': %s", way, reason)
    for what, reason in one_by_one.items():
        _LOGGER.warning("%s, which is slower: %s", _SLOWER[what], reason)


def _run_of(way: str, twin: Any) -> Pass:
    layers = decoder_layers(twin)
    if way in ("joined", "triton"):
        over = _joined(twin) if way == "joined" else _fused(twin)
        return partial(_switched, put_over(over), plain_pass(twin))
    tried = LastLayer(twin) if way == "last-layer" else FrozenLayers(layers, [False] * len(layers))
    return partial(_within, tried, put_over(tried.forwards), plain_pass(twin))


def _within(way: LastLayer | FrozenLayers, switch: Switch, compute: Pass, sequence: Sequence) -> Tensor:
    """A pass in which a way's forwards are used, its last layer at the columns that are read."""
    way.columns = sequence.answers
    return _switched(switch, compute, sequence)


def _switched(switch: Switch, compute: Pass, sequence: Sequence) -> Tensor:
    """A pass in which what is behind a switch is used."""
    switch.on = True
    try:
        return compute(sequence)
    finally:
        switch.on = False
