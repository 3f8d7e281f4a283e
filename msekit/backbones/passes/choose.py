"""The one door to the frozen pass: which shorter ways a backbone uses is decided here, once, and composed here.

Whether a way is for an architecture and a machine, its structure tells. Whether it then computes what transformers
does, a trial tells: values and gradient, in fp32, on a small twin of the LLM (`twin.py`). A way that structure speaks
against does not apply; one that fails its trial was expected to work, and a warning says so.

The ways (`holding.WAYS`), and what each puts over the model's modules, from the inside to the outside:

- `prefix`: keys and values of what every sequence begins with are read once. Overwrites nothing.
- `lean-parts`: MLPs and norms whose gradient is written out (`lean_mlp_norm.py`); on for whoever calls the model.
- `last-layer`: the last layer at the columns that are read (`last_layer.py`); on within a pass.
- (gradient checkpointing, which is no shorter way but asked for: layers recomputed, `recompute.py`; always on.)
- `written-out`: on a CPU whole layers, values and gradient (`cpu/decoder_layers.py`); on within a pass. They do what
  `last-layer` does and keep their input alone where layers are recomputed.
- `compiled`: transformers' layers as one program (`compiled.py`), where a run asks for it.
"""

from __future__ import annotations

import inspect
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
from msekit.backbones.passes.agree import decoder_layers, difference, said, value_and_gradient
from msekit.backbones.passes.compiled import CompiledPass
from msekit.backbones.passes.last_layer import LastLayer
from msekit.backbones.passes.lean_mlp_norm import find_parts, leaner
from msekit.backbones.passes.prefix import read_prefix
from msekit.backbones.passes.recompute import recomputed, recomputing
from msekit.backbones.passes.switch import Switch, put_over
from msekit.backbones.passes.twin import NoTwinError, small_twin
from msekit.backbones.sequence import Pass, Sequence
from msekit.errors import MsekitError

_LOGGER = logging.getLogger("msekit")
_TRIED = ("prefix", "last-layer", "written-out")
"""What a trial on the twin decides, in its order; a prefix that works is tried with the others too."""
_COLUMNS, _READ, _ANSWERS = 9, 3, 2
"""Of a trial's sequences: all, those of the prefix, those whose logits are read."""


@dataclass(frozen=True)
class PassSettings:
    """What is asked of a backbone's pass."""

    ways: str | tuple[str, ...] = "auto"
    """`auto` for every way that works, `plain` for none, or the names of some of `WAYS`, which then must work."""
    compiled: bool = False
    """The way `compiled` besides, which `auto` alone does not take."""
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
        return "only where model.compile asks for it" if way == "compiled" else None


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
    """

    run: Pass
    """Sequence → next-token logits of its last `answers` columns, (B, answers, V)."""
    uses: tuple[str, ...]
    """The ways that it takes."""

    def __init__(
        self, model: Any, settings: PassSettings, usable: tuple[str, ...], refused: dict[str, str], lean: Forwards
    ) -> None:
        layers, self._usable, plain = decoder_layers(model), usable, plain_pass(model)
        # over the modules from the inside to the outside
        self._lean = put_over(leaner(lean))
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
        self._take(usable)
        within = {way: "written-out layers do it themselves" for way in usable if way not in self.uses}
        self.refused = refused | within

    def _take(self, ways: Iterable[str]) -> None:
        ways = set(ways) - ({"last-layer"} if "written-out" in ways else set())
        self._lean.on = "lean-parts" in ways
        self.uses = tuple(way for way in WAYS if way in ways)
        self.run = self._passes[tuple(way for way in self.uses if way not in ("prefix", "lean-parts"))]

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
        "lean-parts": None if lean else "no gated MLP and no RMS norm of a kind that is written out here",
        "written-out": "a compiled pass is of transformers' layers"
        if settings.refusal("compiled") is None
        else written_out.obstacle(decoder_layers(model)),
    }
    refused = {way: reason for way, reason in obstacles.items() if reason} | refused
    failed = _trials(model, [way for way in _TRIED if way not in refused])
    usable = tuple(way for way in WAYS if way not in refused | failed)
    for way in settings.required:
        if way not in usable:
            raise MsekitError(
                f"the way '{way}' through the LLM cannot be used: {(refused | failed)[way]}",
                where="model.passes",
                fix="Leave it out, or use model.passes=auto.",
            )
    _warn(failed)
    refused |= failed | {f"lean-parts of {kind}": reason for kind, reason in unlike.items()}
    return Chosen(model, settings, usable, refused, lean)


def _warn(failed: dict[str, str]) -> None:
    """One line for each way that was expected to work, from one process of a run alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
        return
    for way, reason in failed.items():
        _LOGGER.warning("the LLM's pass does without '%s': %s", way, reason)


def plain_pass(model: Any) -> Pass:
    """A model's pass as transformers computes it."""
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    cache_argument = read_before.cache_argument(model)

    def run(sequence: Sequence) -> Tensor:
        options: dict[str, Any] = {"logits_to_keep": sequence.answers} if keeps else {}
        if sequence.prefix is not None:
            assert cache_argument is not None
            options[cache_argument] = sequence.prefix
        logits = model(
            inputs_embeds=sequence.embeddings,
            attention_mask=sequence.mask,
            position_ids=sequence.positions,
            use_cache=False,
            **options,
        ).logits
        return logits[:, -sequence.answers :]

    return run


Case = tuple[Sequence, tuple[Tensor, Tensor]]
"""What a trial reads, and the logits and the gradient of transformers' own pass."""


def _trials(model: Any, ways: list[str]) -> dict[str, str]:
    """Ways that do not compute on the model's twin what transformers does → why."""
    if not ways:
        return {}
    failed: dict[str, str] = {}
    behind: list[Case] = []
    try:
        twin = small_twin(model)
        plain = plain_pass(twin)
        cases = [(sequence, value_and_gradient(plain, sequence)) for sequence in _sequences(twin)]
    except Exception as error:  # whatever an architecture raises that does not take what a trial reads
        why = str(error) if isinstance(error, NoTwinError) else f"it cannot be tried ({said(error)})"
        return dict.fromkeys(ways, why)
    for way in ways:
        reason: str | None
        try:
            if way == "prefix":
                behind = _behind_prefix(twin, cases)
                reason = _difference(plain, behind)
            else:
                reason = _difference(_run_of(way, twin, plain), cases + behind)
        except Exception as error:  # whatever an architecture raises that is asked for what it does not do
            reason = said(error)
        if reason:
            failed[way] = reason
            behind = [] if way == "prefix" else behind
    return failed


def _run_of(way: str, twin: Any, plain: Pass) -> Pass:
    layers = decoder_layers(twin)
    tried = LastLayer(twin) if way == "last-layer" else FrozenLayers(layers, [False] * len(layers))
    return partial(_within, tried, put_over(tried.forwards), plain)


def _within(way: LastLayer | FrozenLayers, switch: Switch, compute: Pass, sequence: Sequence) -> Tensor:
    """A pass in which a way's forwards are used, its last layer at the columns that are read."""
    way.columns, switch.on = sequence.answers, True
    try:
        return compute(sequence)
    finally:
        switch.on = False


def _difference(run: Pass, cases: list[Case]) -> str | None:
    pairs = ((value_and_gradient(run, sequence), exact) for sequence, exact in cases)
    return next(filter(None, (difference(mine, exact) for mine, exact in pairs)), None)


def _sequences(twin: Any) -> list[Sequence]:
    """Two samples, one with a column of padding behind what may be a prefix: under a mask of columns (B, S), and under
    one of scores (B, 1, S, S) in which the last column does not see the one before, as branches of a label trie."""
    generator = torch.Generator().manual_seed(0)
    x_BSd = torch.randn(2, _COLUMNS, twin.get_input_embeddings().embedding_dim, generator=generator)
    x_BSd[1, :_READ] = x_BSd[0, :_READ]
    mask_BS = torch.ones(2, _COLUMNS, dtype=torch.long)
    mask_BS[1, _READ] = 0
    positions_BS = (mask_BS.cumsum(dim=1) - 1).clamp(min=0)
    seen_B1SS = torch.ones(_COLUMNS, _COLUMNS).tril().bool() & mask_BS[:, None, None, :].bool()
    seen_B1SS[..., -1, -2] = False
    unseen_B1SS = torch.where(seen_B1SS, 0.0, torch.finfo(torch.float32).min)
    tree_BS = positions_BS.clone()
    tree_BS[:, -1] -= 1
    return [
        Sequence(x_BSd, mask_BS, positions_BS, _ANSWERS),
        Sequence(x_BSd, unseen_B1SS, tree_BS, _ANSWERS),
    ]


def _behind_prefix(twin: Any, cases: list[Case]) -> list[Case]:
    """The same sequences, what they begin with read before."""
    cache = read_prefix(twin, cases[0][0].embeddings[:1, :_READ])
    behind = []
    for whole, (logits, gradient_BSd) in cases:
        mask = whole.mask[:, _READ:] if whole.mask.ndim == 2 else whole.mask[:, :, _READ:, _READ:]
        rest = Sequence(whole.embeddings[:, _READ:], mask, whole.positions[:, _READ:] - _READ, whole.answers)
        behind.append((rest.behind(cache), (logits, gradient_BSd[:, _READ:])))
    return behind
