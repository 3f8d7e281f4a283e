"""How much memory a training run takes, by part, from sizes alone. No torch.

The backbone is frozen: its linear layers keep nothing for the backward pass, so what a layer keeps is what its norms,
its attention and its activation function need. Counted from transformers' decoders as they run; on a CPU the kept
tensors were compared with it (`tests/planning/test_plan.py`), on a GPU nothing has been measured yet.

Letters: B samples of a micro-batch, S tokens of a sequence, d width, a attention width (heads x head size), f MLP
width, e bytes of a value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from msekit.backbones.holding import FOUR_BIT_BLOCK, NESTED_BLOCK, PACKED_MOST
from msekit.backbones.shape import Shape

EVALUATION_BATCH = {"cpu": 32, "cuda": 128}
"""Larger batches are not quicker: measured on a CPU (RESULTS.md, Speed); on a GPU an assumption, to be measured."""
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
CUDA_RESERVE = 800 << 20
"""CUDA's own context, kernels and what the allocator cannot use: an assumption, to be measured on a GPU."""
CPU_RESERVE = 400 << 20
"""Interpreter, torch and the other libraries: what a run on `tiny-llama` takes."""


@dataclass(frozen=True)
class Workload:
    """What one micro-batch puts through the model; with several seeds at once, all of theirs."""

    samples: int
    tokens: int
    """Longest sequence: pseudo tokens, text, tags, prompt and answer."""
    answers: int
    """Columns whose logits are computed in training: an answer's, or the trie's where the loss scores every label."""
    scored_samples: int
    """Batch of a validation or test."""
    scored_answers: int
    """Columns whose logits are computed there: the label trie's inner nodes."""
    trainable: int
    """Parameters of the adapters."""
    encoders: tuple[tuple[int, int, int], ...]
    """(frames, width, LSTM state) of each modality."""


@dataclass(frozen=True)
class Holding:
    """How the backbone is held and computed."""

    dtype: str
    quantization: str
    double: bool = False
    eager: bool = False
    """Attention by plain products, as on a CPU: its scores are kept too."""
    cuda: bool = True


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part."""

    weights: int
    """Parameters as they are held."""
    quantization_state: int
    """Scales and code tables of quantised weights."""
    copies: int
    """Weights of a small LLM laid out for their products on a CPU, once and transposed (`cpu/packed_products.py`)."""
    activations: int
    """Kept for the backward pass, with what one layer needs while it is computed."""
    activations_recomputed: int
    """The same with gradient checkpointing."""
    logits: int
    optimizer: int
    """The adapters' parameters and gradients, AdamW's two moments."""
    lstm: int
    """Features and what the LSTMs keep."""
    scoring: int
    """What a validation batch needs instead of activations and logits."""
    reserve: int

    def total(self, checkpointing: bool) -> int:
        """Largest memory during training, in bytes."""
        kept = self.activations_recomputed if checkpointing else self.activations
        return self.standing + max(kept + self.logits, self.scoring)

    @property
    def standing(self) -> int:
        """What is held all the time."""
        return self.weights + self.quantization_state + self.copies + self.optimizer + self.lstm + self.reserve


def memory_plan(shape: Shape, work: Workload, held: Holding) -> MemoryPlan:
    """Plan a run's memory.

    Args:
        shape: Sizes of the backbone.
        work: Sizes of a micro-batch.
        held: Precision and kernels.
    """
    weights, state = weight_bytes(shape, held)
    layer, boundary = layer_bytes(shape, work, held)
    depth, value = shape.architecture.layers, BYTES[held.dtype]
    sequence = work.samples * work.tokens * shape.architecture.hidden_size * value
    # the sequence as it is put together (parts, joined, gathered, with answers), its gradient, the last norm in fp32
    inputs = 6 * sequence + 4 * work.samples * work.tokens * shape.architecture.hidden_size
    moving = layer + _expanded(shape, held)  # one layer's gradients and its expanded weights
    scored = work.scored_samples * work.tokens * shape.architecture.hidden_size * value
    return MemoryPlan(
        weights=weights,
        quantization_state=state,
        copies=copied_bytes(shape, held),
        activations=depth * layer + inputs + moving,
        activations_recomputed=depth * boundary + layer + inputs + moving,
        logits=_logit_bytes(work.samples * work.answers, shape, value),
        optimizer=16 * work.trainable,
        lstm=sum(work.samples * frames * 4 * (2 * width + 12 * size) for frames, width, size in work.encoders),
        scoring=_logit_bytes(work.scored_samples * work.scored_answers, shape, value)
        + 12 * scored
        + sum(work.scored_samples * frames * 4 * (width + 6 * size) for frames, width, size in work.encoders),
        reserve=CUDA_RESERVE if held.cuda else CPU_RESERVE,
    )


def with_evaluation_batch(shape: Shape, work: Workload, held: Holding, memory_bytes: int) -> Workload:
    """The workload with the largest useful evaluation batch that takes at most half of the memory that is left.

    It follows from what a machine has, not from what is free on it: two runs with one seed get the same numbers.
    """
    size = EVALUATION_BATCH["cuda" if held.cuda else "cpu"]
    while size > 1:
        tried = replace(work, scored_samples=size)
        memory = memory_plan(shape, tried, held)
        if memory.scoring <= (memory_bytes - memory.standing) / 2:
            return tried
        size //= 2
    return replace(work, scored_samples=1)


def weight_bytes(shape: Shape, held: Holding) -> tuple[int, int]:
    """Bytes of the parameters, and of what quantised ones need beside them."""
    value = BYTES[held.dtype]
    inside = sum(layer.inputs * layer.outputs * layer.count for layer in shape.linears)
    rows = sum(layer.outputs * layer.count for layer in shape.linears)
    layers = sum(layer.count for layer in shape.linears)
    others = shape.others * value
    if held.quantization == "none":
        return inside * value + others, 0
    if held.quantization == "int8":
        return inside + others, 4 * rows  # one fp32 scale per row
    blocks = inside // FOUR_BIT_BLOCK
    tables = 64 * layers  # the 16 code words of every layer
    if held.double:  # 8-bit scales, which have fp32 scales, an offset and a code table of 256 of their own
        return inside // 2 + others, tables + blocks + 4 * -(-blocks // NESTED_BLOCK) + (4 + 1024) * layers
    return inside // 2 + others, tables + 4 * blocks


def copied_bytes(shape: Shape, held: Holding) -> int:
    """Bytes of the copies that a CPU multiplies with; a layer of another kind than `decoder_layer.py`'s makes none."""
    if held.cuda or held.quantization != "none":
        return 0
    copies = 2 * BYTES[held.dtype] * sum(layer.inputs * layer.outputs * layer.count for layer in shape.linears)
    return copies if copies <= PACKED_MOST else 0


def layer_bytes(shape: Shape, work: Workload, held: Holding) -> tuple[int, int]:
    """What a decoder layer keeps for its backward pass, and what it keeps if it is recomputed: its input.

    Layers that are written out on a CPU (`backbones/cpu/decoder_layer.py`) never repeat keys and values and keep less.
    """
    figures, value = shape.architecture, BYTES[held.dtype]
    width, attention, mlp = figures.hidden_size, figures.heads * figures.head_dim, figures.intermediate_size
    token = 2 * width * value + 2 * 4  # both norms: their input and a scale (`backbones/passes/lean_mlp_norm.py`)
    token += 3 * attention * value  # queries, and keys and values repeated for every head
    token += 2 * mlp * value  # gate and up (`backbones/passes/lean_mlp_norm.py`)
    if held.eager:
        scores = figures.heads * work.tokens
        token += scores * (4 + (value if value < 4 else 0))  # the softmax in fp32, and cast for the product
    else:
        token += attention * value + 4 * figures.heads  # the output and its log-normaliser
    if held.quantization == "int8":  # bitsandbytes keeps what its layers are given
        token += (2 * width + attention + mlp) * value
    count = work.samples * work.tokens
    return count * token, count * width * value


def _expanded(shape: Shape, held: Holding) -> int:
    """Quantised weights are expanded one layer at a time: the largest of them."""
    if held.quantization == "none":
        return 0
    return max(layer.inputs * layer.outputs for layer in shape.linears) * BYTES[held.dtype]


def _logit_bytes(columns: int, shape: Shape, value: int) -> int:
    """Logits, their fp32 copy, log-probabilities, and the gradients of the first two."""
    return columns * shape.architecture.vocab_size * (2 * value + 12)
