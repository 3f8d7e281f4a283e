"""Hidden states of the frozen LLM: what it makes of a text by itself, read in a pass that ends at a middle layer.

A text is read as bos, the text and a cue ("Emotion of the speaker:"), after which the LLM has gathered what the cue
asks for. The pass is the model's own, ended by a hook as soon as the highest wanted layer is done; weights in shards
(ZeRO-3) are gathered layer by layer by hooks that must see every layer, so there it goes to the end.

Texts of like length are read together and padded on the right, where no token of a causal LLM looks. Whoever shares a
backbone between threads holds its `lock` around these calls.

Shapes: N texts, B of them read together, S columns, L wanted layers, d width of the hidden states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msekit.backbones.backbone import Backbone
from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.plain import masks_for, windows_of
from msekit.backbones.quantise import quantised_layers
from msekit.backbones.sequence import Sequence as Laid
from msekit.errors import MsekitError

ROWS, TOKENS = 64, 2048
"""Most texts, and most columns of them all, that are read together."""


@dataclass(frozen=True)
class StatesWanted:
    """Which hidden states."""

    layers: tuple[int, ...]
    """k for the output of decoder layer k, 0 for what the first layer reads; the last one too is taken before the
    final norm."""
    cue: tuple[int, ...] = ()
    """Tokens behind the text."""


def depth(backbone: Backbone) -> int:
    """How many decoder layers a backbone has.

    Raises:
        MsekitError: Its architecture does not mark them.
    """
    if layers := decoder_layers(backbone.model):
        return len(layers)
    raise MsekitError(
        f"{type(backbone.model).__name__} does not mark its decoder layers, so their outputs cannot be read",
        where=backbone.name,
        fix="Use --recipe kit, whose plug-in reads none.",
    )


def precision_of(backbone: Backbone) -> str:
    """How a backbone is held, as far as its hidden states depend on it: `torch.bfloat16`, `torch.float32 8-bit`."""
    kinds = {_kind(layer) for _, layer in quantised_layers(backbone.model)}
    return " ".join([str(backbone.model.dtype), *sorted(kinds)])


def _kind(layer: Any) -> str:
    if hasattr(layer, "state"):
        return "8-bit"
    return "4-bit, scales in 8 bit" if layer.weight.quant_state.nested else "4-bit"


def computes_in_fp32(backbone: Backbone) -> bool:
    """Whether nothing of a backbone is held in less than fp32."""
    return precision_of(backbone) == str(torch.float32)


def batches_by_length(texts: Sequence[Sequence[int]], wanted: StatesWanted) -> list[list[int]]:
    """Positions of texts that are read together, the longest first."""
    batches: list[list[int]] = []
    columns = 0
    for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
        if not batches or len(batches[-1]) == ROWS or (len(batches[-1]) + 1) * columns > TOKENS:
            columns = max(len(texts[place]) + len(wanted.cue) + 1, 1)
            batches.append([])
        batches[-1].append(place)
    return batches


def read_states(
    backbone: Backbone, texts: Sequence[Sequence[int]], contexts: Sequence[int] | None, wanted: StatesWanted
) -> Tensor:
    """What the LLM makes of each text.

    Args:
        backbone: The frozen LLM, in any precision, on any device.
        texts: Tokens of each, without special tokens.
        contexts: How many of each text's first tokens are earlier utterances of its dialogue: they are read, but not
            averaged. None for none.
        wanted: Layers and cue.

    Returns:
        (N, L, 2, d) float32 on the CPU: the state of the last token, and the mean over the text and the cue,
        without bos and context.

    Raises:
        MsekitError: No such layer, or states that are not finite.
    """
    return _finite(backbone, states_there(backbone, texts, contexts, wanted).cpu())


def states_there(
    backbone: Backbone, texts: Sequence[Sequence[int]], contexts: Sequence[int] | None, wanted: StatesWanted
) -> Tensor:
    """The same where the LLM is, without waiting for it: whether they are finite has not been looked at."""
    rows: list[Tensor] = [torch.empty(0)] * len(texts)
    for batch in batches_by_length(texts, wanted):
        some = [texts[place] for place in batch]
        states = _batch_there(backbone, some, contexts and [contexts[place] for place in batch], wanted)
        for place, state_L2d in zip(batch, states, strict=True):
            rows[place] = state_L2d
    return torch.stack(rows) if rows else torch.zeros(0, len(wanted.layers), 2, 0)


def read_batch(
    backbone: Backbone, texts: Sequence[Sequence[int]], contexts: Sequence[int] | None, wanted: StatesWanted
) -> Tensor:
    """The same of texts that are read in one pass: (B, L, 2, d) float32 on the CPU."""
    return _finite(backbone, _batch_there(backbone, texts, contexts, wanted).cpu())


def _batch_there(
    backbone: Backbone, texts: Sequence[Sequence[int]], contexts: Sequence[int] | None, wanted: StatesWanted
) -> Tensor:
    first_B, _, end_B = _places(backbone, texts, contexts, wanted)
    taken: dict[int, Tensor] = {}

    def take(layer: int, x_BSd: Tensor) -> None:
        column_S = torch.arange(x_BSd.shape[1], device=x_BSd.device)
        own_BS1 = ((column_S >= first_B[:, None]) & (column_S <= end_B[:, None]))[..., None]
        # what lies behind a text may be anything
        total_Bd = torch.where(own_BS1, x_BSd, 0).float().sum(dim=1)
        mean_Bd = total_Bd / own_BS1.sum(dim=1).clamp(min=1)
        end_Bd = x_BSd[torch.arange(len(x_BSd), device=x_BSd.device), end_B].float()
        taken[layer] = torch.stack([end_Bd, mean_Bd], dim=1)

    _partial_pass(backbone, texts, wanted, take)
    return torch.stack([taken[layer] for layer in wanted.layers], dim=1)


def token_states(
    backbone: Backbone, texts: Sequence[Sequence[int]], contexts: Sequence[int] | None, wanted: StatesWanted
) -> list[Tensor]:
    """The state of every token of a text's own; arguments and errors as for `read_states`.

    Returns:
        For each text (its own tokens, L, d) float32 on the CPU.
    """
    rows: list[Tensor] = [torch.empty(0)] * len(texts)
    for batch in batches_by_length(texts, wanted):
        some = [texts[place] for place in batch]
        first_B, last_B, _ = _places(backbone, some, contexts and [contexts[place] for place in batch], wanted)
        taken: dict[int, Tensor] = {}
        _partial_pass(backbone, some, wanted, taken.__setitem__)
        states_BSLd = torch.stack([taken[layer] for layer in wanted.layers], dim=2).float().cpu()
        for place, states_SLd, first, last in zip(batch, states_BSLd, first_B.tolist(), last_B.tolist(), strict=True):
            rows[place] = _finite(backbone, states_SLd[first:last].clone())
    return rows


def _places(
    backbone: Backbone, texts: Sequence[Sequence[int]], contexts: Sequence[int] | None, wanted: StatesWanted
) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) the first column of each text's own tokens, the one behind its last, and the last one that is read."""
    opening = len(backbone.bos)
    first = torch.tensor([opening + context for context in contexts or [0] * len(texts)])
    behind = torch.tensor([opening + len(text) for text in texts])
    end = (behind + len(wanted.cue) - 1).clamp(min=0)
    return backbone.there(first), backbone.there(behind), backbone.there(end)


class _EnoughError(Exception):
    """Ends a pass whose wanted layers are done."""


Take = Callable[[int, Tensor], object]
"""Called with a layer's number and its states (B, S, d), as soon as they are there."""


@torch.no_grad()
def _partial_pass(backbone: Backbone, texts: Sequence[Sequence[int]], wanted: StatesWanted, take: Take) -> None:
    """Let the LLM read texts up to the highest wanted layer."""
    opening, cue = backbone.bos, wanted.cue
    # a sequence of nothing at all is read as one token of padding
    rows = [[*opening, *text, *cue] or [0] for text in texts]
    longest = max(map(len, rows))
    lengths_B = backbone.there(torch.tensor([len(row) for row in rows]))
    ids_BS = backbone.there(torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]))
    column_S = torch.arange(longest, device=backbone.device)
    mask_BS = (column_S < lengths_B[:, None]).long()
    laid = Laid(backbone.embed(ids_BS), mask_BS, column_S.expand(len(rows), -1), 1)
    if backbone.on_gpu:  # a mask of columns is read back by transformers, to see whether anything is masked
        laid = backbone.with_own_mask(laid)
    windows = windows_of(backbone.model.config)
    keeps = "logits_to_keep" in inspect.signature(backbone.model.forward).parameters  # where it goes to the end
    with _taking(backbone, wanted.layers, take):
        try:
            backbone.model(
                inputs_embeds=laid.embeddings,
                attention_mask=masks_for(windows, laid) if windows else laid.mask,
                position_ids=laid.positions,
                use_cache=False,
                **({"logits_to_keep": 1} if keeps else {}),
            )
        except _EnoughError:
            return


@contextmanager
def _taking(backbone: Backbone, layers: Sequence[int], take: Take) -> Iterator[None]:
    """Within, a pass gives the states of some layers away, and ends behind the highest where its weights are whole."""
    decoder, highest = decoder_layers(backbone.model), max(layers)
    if not 0 <= min(layers) <= highest <= depth(backbone):
        raise MsekitError(f"there are hidden states 0 to {depth(backbone)}, not {list(layers)}", where=backbone.name)
    sharded = any(hasattr(parameter, "ds_id") for parameter in backbone.model.parameters())

    def give(layer: int, x: Any) -> None:
        states = x[0] if isinstance(x, tuple) else x
        if states.ndim != 3:
            raise MsekitError(
                f"the layers of {type(backbone.model).__name__} give {tuple(states.shape)}, not a vector a token",
                where=backbone.name,
            )
        take(layer, states)
        if layer == highest and not sharded:
            raise _EnoughError

    handles = [
        decoder[layer - 1].register_forward_hook(lambda _, args, output, layer=layer: give(layer, output))
        for layer in set(layers) - {0}
    ]
    if 0 in layers:
        handles.append(
            decoder[0].register_forward_pre_hook(
                lambda _, args, kwargs: give(0, args[0] if args else kwargs["hidden_states"]), with_kwargs=True
            )
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def beyond_its_range(backbone: Backbone) -> MsekitError:
    """What to raise where hidden states are not finite."""
    return MsekitError(
        f"hidden states are beyond the range of {precision_of(backbone)}",
        where=backbone.name,
        fix="Hold the LLM in bf16 or fp32.",
    )


def _finite(backbone: Backbone, states: Tensor) -> Tensor:
    if not torch.isfinite(states).all():
        raise beyond_its_range(backbone)
    return states
