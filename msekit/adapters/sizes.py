"""ADAPTERS: one entry per adapter, and how many parameters each trains, from sizes alone (the paper's Table 1 rounds
them). Adding an adapter is a module that makes it and one entry here. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msekit.adapters.ablations import WHOLE, Ablation, AdapterParts, parts_of
from msekit.added import Table

SCALES = (8, 16, 32)
"""k of the Multi-Scale Fusion: MLP i goes h → d_t/k → h (the paper prints h/k; Table 1 needs d_t/k)."""

MEMBERS = 4
"""M of `mse-states`: members of its ensemble."""
STATISTICS = 7
"""Numbers per feature in a summary of the frames (`data/batches/preprocess.py`)."""

WIDE, WIDE_RANK = 256, 16
"""Features a frame above which `mse-states` takes frames for an encoder's states and reads their summary alone, and the
width that all members project it to."""

AdapterName = Literal["mse", "mse-states", "mag", "chfn", "linear", "mlp", "prompt"]
"""The paper's plug-in, the one guided by the LLM's hidden states, the paper's rivals in Table 5, and three plain ones:
msekit's own names in ADAPTERS, for type checkers."""
Conditioning = Literal["paper", "unit", "centred"]
"""What makes the pseudo tokens depend on the features from the start: see `adapters/mse.py`."""


@dataclass(frozen=True)
class AdapterSpec:
    """All that an adapter is made from: sizes and switches. An adapter reads those that concern it."""

    text_dim: int
    """Width of the backbone's embeddings, d_t."""
    audio_dim: int
    """Features per audio frame; 0 for data without audio (no encoder is built)."""
    vision_dim: int
    """Features per vision frame; 0 for data without vision."""
    audio_hidden: int
    """State size of the audio LSTM."""
    vision_hidden: int
    """State size of the vision LSTM."""
    pseudo_tokens: int
    """Embeddings put before the text, n."""
    hidden: int = 256
    """Width that every modality is projected to before the mix, h."""
    learned_absent: bool = False
    """Train a vector of width h for each of the two modalities, which stands in where it is absent."""
    parts: AdapterParts = WHOLE
    """What is built of the paper's plug-in."""
    conditioning: Conditioning = "paper"
    text_scale: float = 1.0
    """RMS of the backbone's embeddings; it decides first weights, no size."""
    state_layers: int = 0
    """S, layers whose hidden states are read."""
    classes: int = 0
    """K, labels that an opinion is about; 0 for intensities."""
    values: tuple[float, ...] = ()
    """The intensities that an opinion is about; empty for classes."""
    questions: tuple[tuple[int, tuple[float, ...]], ...] = ()
    """Of several targets: classes and intensities of each question, in place of the two above."""
    dropout: float = 0.0
    noise: float = 0.0
    """Deviation of the noise on summaries in training."""

    @property
    def opinions(self) -> tuple[tuple[int, tuple[float, ...]], ...]:
        """Classes and intensities of every question."""
        return self.questions or ((self.classes, self.values),)

    @property
    def widths(self) -> list[int]:
        """Features per frame of the modalities that there are."""
        return [width for width in (self.audio_dim, self.vision_dim) if width]


def linear(inputs: int, outputs: int) -> int:
    """Weights and biases of a linear layer."""
    return inputs * outputs + outputs


def lstm(width: int, hidden: int) -> int:
    """A single-layer, one-direction LSTM: four gates over input and state, each with torch's two bias vectors."""
    return 4 * hidden * (width + hidden + 2)


def modality_encoder(width: int, lstm_hidden: int, hidden: int) -> int:
    """LSTM and projection (W_a or W_v) of one modality; nothing for a modality that the set does not have."""
    return lstm(width, lstm_hidden) + linear(lstm_hidden, hidden) if width else 0


def _mse(spec: AdapterSpec) -> int:
    """Trainable parameters of the MSE-Adapter (the paper's Figure 2), or of one of its ablations (Table 4)."""
    parts, hidden, total = spec.parts, spec.hidden, 0
    for source, width, state in (
        (parts.audio, spec.audio_dim, spec.audio_hidden),
        (parts.vision, spec.vision_dim, spec.vision_hidden),
    ):
        if source == "features":
            total += modality_encoder(width, state, hidden)
        elif source == "random" and width:  # a random state in the LSTM's place; the projection stays
            total += linear(state, hidden)
    if parts.tgm:
        total += linear(spec.text_dim, hidden)  # W_t
    if parts.msf:
        total += _fusion(spec)
    total += linear(hidden, spec.text_dim) + linear(1, spec.pseudo_tokens)  # W_3 and W_4
    return total + (2 * hidden if spec.learned_absent else 0)


def _mse_states(spec: AdapterSpec) -> int:
    """Trainable parameters of `mse-states`."""
    hidden, rank = spec.hidden, states_rank(spec.text_dim, spec.state_layers)
    total = MEMBERS * (linear(spec.state_layers * 2 * spec.text_dim, rank) + linear(rank, hidden))
    total += linear(MEMBERS * rank, hidden)  # the guide
    for width, state in ((spec.audio_dim, spec.audio_hidden), (spec.vision_dim, spec.vision_hidden)):
        if width > WIDE:
            total += linear(STATISTICS * width, WIDE_RANK) + MEMBERS * linear(WIDE_RANK, hidden)
        elif width:
            low = summary_rank(width)
            total += MEMBERS * (linear(STATISTICS * width, low) + linear(low, hidden))
            total += modality_encoder(width, state, hidden)
    total += MEMBERS * (1 + len(spec.widths)) * linear(hidden, opinion_width(spec.opinions))
    total += _fusion(spec) + linear(hidden, spec.text_dim) + linear(1, spec.pseudo_tokens)
    return total + 1  # the gain


def reads_summary_alone(adapter: str, width: int) -> bool:
    """Whether an adapter reads frames of so many features by their statistics, and not one after the other."""
    return adapter == "mse-states" and width > WIDE


def opinion_width(opinions: tuple[tuple[int, tuple[float, ...]], ...]) -> int:
    """Outputs that an opinion is made of: one a class; a bell over intensities has a centre and a width."""
    return sum(classes or 2 for classes, _ in opinions)


def states_rank(text_dim: int, layers: int) -> int:
    """r of a member's projection of S layers' states: 32, and less where the LLM is wide."""
    return max(4, min(32, 2**19 // (MEMBERS * layers * 2 * text_dim)))


def summary_rank(width: int) -> int:
    """Width that a member projects a summary of at most WIDE features a frame to: 16, and down to 9 above 146."""
    return min(16, 2**16 // (MEMBERS * STATISTICS * width))


def _fusion(spec: AdapterSpec) -> int:
    """Multi-Scale Fusion: the MLPs, and the 1×1 convolution over the stacked scales."""
    hidden, widths = spec.hidden, [spec.text_dim // k for k in SCALES]
    return sum(linear(hidden, width) + linear(width, hidden) for width in widths) + linear(len(SCALES), 1)


def _mag(spec: AdapterSpec) -> int:
    """Per modality a gate over text and modality and a displacement map, and one layer norm: 34,471,936 on
    ChatGLM3-6B and MOSEI, the paper's 34.47M."""
    d = spec.text_dim
    return sum(linear(width + d, d) + linear(width, d) for width in spec.widths) + 2 * d


def _chfn(spec: AdapterSpec) -> int:
    """Three d x d maps without biases and a projection per modality: 50,786,304 on ChatGLM3-6B and MOSEI, the paper's
    50.79M."""
    return 3 * spec.text_dim**2 + sum(linear(width, spec.text_dim) for width in spec.widths)


def _linear(spec: AdapterSpec) -> int:
    return sum(linear(width, spec.pseudo_tokens * spec.text_dim) for width in spec.widths)


def _mlp(spec: AdapterSpec) -> int:
    encoders = sum(linear(width, spec.hidden) for width in spec.widths)
    return encoders + linear(spec.hidden, spec.text_dim) + linear(1, spec.pseudo_tokens)


def _prompt(spec: AdapterSpec) -> int:
    return spec.pseudo_tokens * spec.text_dim


@dataclass(frozen=True)
class AdapterEntry:
    """One adapter."""

    made_by: str
    """`module:function` from an AdapterSpec to the module; imported where one is made, so that this table needs no
    torch."""
    count: Callable[[AdapterSpec], int]
    """Its trainable parameters."""
    reads_features: bool = True
    """Whether it reads audio and vision at all."""
    adds_tokens: bool = True
    """Whether it puts pseudo tokens before the text; otherwise it changes the text's own embeddings."""
    has_opinion: bool = False
    """Whether it reads hidden states and summaries, and says by itself how likely every label is."""


ADAPTERS: Table[AdapterEntry] = Table(
    "adapters",
    AdapterEntry,
    {
        "mse": AdapterEntry("msekit.adapters.mse:make_mse", _mse),
        "mse-states": AdapterEntry("msekit.adapters.mse_states:make_mse_states", _mse_states, has_opinion=True),
        "mag": AdapterEntry("msekit.adapters.mag:make_mag", _mag, adds_tokens=False),
        "chfn": AdapterEntry("msekit.adapters.chfn:make_chfn", _chfn, adds_tokens=False),
        "linear": AdapterEntry("msekit.adapters.simple:make_linear", _linear),
        "mlp": AdapterEntry("msekit.adapters.simple:make_mlp", _mlp),
        "prompt": AdapterEntry("msekit.adapters.simple:make_prompt", _prompt, reads_features=False),
    },
)


def parameter_count(
    name: str,
    text_dim: int,
    audio_width: int,
    vision_width: int,
    audio_hidden: int,
    vision_hidden: int,
    pseudo_tokens: int,
    hidden: int = 256,
    ablate: Ablation | None = None,
    state_layers: int = 0,
    classes: int = 0,
    questions: tuple[tuple[int, tuple[float, ...]], ...] = (),
) -> int:
    """Trainable parameters of any adapter, or of an ablation of the paper's.

    Args:
        name: The adapter.
        text_dim: See `AdapterSpec`.
        audio_width: Features per audio frame.
        vision_width: Features per vision frame.
        audio_hidden: See `AdapterSpec`.
        vision_hidden: See `AdapterSpec`.
        pseudo_tokens: See `AdapterSpec`.
        hidden: See `AdapterSpec`.
        ablate: A row of Table 4.
        state_layers: See `AdapterSpec`; of `mse-states`.
        classes: See `AdapterSpec`; of `mse-states`.
        questions: See `AdapterSpec`; of `mse-states`.

    Returns:
        The exact number.
    """
    sizes = (text_dim, audio_width, vision_width, audio_hidden, vision_hidden, pseudo_tokens, hidden)
    spec = AdapterSpec(*sizes, parts=parts_of(ablate), state_layers=state_layers, classes=classes, questions=questions)
    return ADAPTERS[name].count(spec)
