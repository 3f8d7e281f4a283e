"""MemoryPlan: the memory of a training run in bytes, part by part, from sizes alone. No torch.

The backbone is frozen: its linear layers keep nothing for the backward pass, so a layer keeps only what its norms, its
attention and its activation function need. The counts are of transformers' decoders; a test compares them with the
tensors that a CPU keeps (`tests/planning/test_plan.py`), and on a GPU nothing has been measured yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from msekit.backbones.holding import FOUR_BIT_BLOCK, LAID_OUT_ON, NESTED_BLOCK, PACKED_MOST, cpu_vendor
from msekit.backbones.shape import Shape

EVALUATION_BATCH = {"cpu": 32, "cuda": 128}
"""Samples of a validation batch. Larger ones are not quicker: measured on a CPU; on a GPU an assumption."""
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
CUDA_RESERVE = 800 << 20
"""Bytes of CUDA's context, its kernels and what the allocator cannot use: an assumption, to be measured on a GPU."""
CPU_RESERVE = 400 << 20
"""Bytes of the interpreter, torch and the other libraries: measured as the memory of a run on `tiny-llama`."""


@dataclass(frozen=True)
class Workload:
    """Sizes of one micro-batch; where several seeds train at once, of all their batches together."""

    samples: int
    tokens: int
    """Longest sequence, without the prefix: pseudo tokens, text, closing tag and answer."""
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
    prefix: int = 0
    """Tokens before every sequence that the backbone reads once: only their keys and values stand in a batch."""


@dataclass(frozen=True)
class Holding:
    """In what form the backbone lies in memory, and how its attention is computed."""

    dtype: str
    quantization: str
    double: bool = False
    eager: bool = False
    """Whether attention is computed by plain products, as on a CPU, which keep its scores too."""
    cuda: bool = True
    lean: bool = True
    """Whether the pass takes the way `lean-parts`."""
    written_out: bool = True
    """Whether it may take the way `written-out`."""


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of a run in bytes, part by part."""

    weights: int
    """Parameters in their form in memory."""
    quantization_state: int
    """Scales and code tables of quantised weights."""
    copies: int
    """Weights of a small LLM laid out for their products on a CPU, once and transposed (`cpu/packed_products.py`)."""
    activations: int
    """What all layers keep for the backward pass, and what one layer needs while it is computed."""
    activations_recomputed: int
    """The same with gradient checkpointing."""
    logits: int
    optimizer: int
    """The adapters' parameters and gradients, AdamW's two moments."""
    lstm: int
    """Features, and what the LSTMs keep for the backward pass."""
    scoring: int
    """Bytes of a validation batch, which has neither activations nor the training's logits."""
    reserve: int

    def total(self, checkpointing: bool) -> int:
        """Largest memory during training, in bytes."""
        kept = self.activations_recomputed if checkpointing else self.activations
        return self.standing + max(kept + self.logits, self.scoring)

    @property
    def standing(self) -> int:
        """What lies in memory all the time."""
        return self.weights + self.quantization_state + self.copies + self.optimizer + self.lstm + self.reserve


def memory_plan(shape: Shape, work: Workload, holding: Holding) -> MemoryPlan:
    """Plan a run's memory.

    Args:
        shape: Sizes of the backbone.
        work: Sizes of the micro-batch.
        holding: Precision, quantisation and kernels.
    """
    weights, state = weight_bytes(shape, holding)
    layer, boundary = layer_bytes(shape, work, holding)
    depth, value = shape.architecture.layers, BYTES[holding.dtype]
    sequence = work.samples * work.tokens * shape.architecture.hidden_size * value
    # the sequence as it is put together (parts, joined, gathered, with answers), its gradient, the last norm in fp32
    inputs = 6 * sequence + 4 * work.samples * work.tokens * shape.architecture.hidden_size
    moving = layer + _expanded(shape, holding)  # one layer's gradients and its expanded weights
    scored = work.scored_samples * work.tokens * shape.architecture.hidden_size * value
    return MemoryPlan(
        weights=weights,
        quantization_state=state,
        copies=copied_bytes(shape, holding),
        activations=depth * layer + inputs + moving,
        activations_recomputed=depth * boundary + layer + inputs + moving,
        logits=_logit_bytes(work.samples * work.answers, shape, value),
        optimizer=16 * work.trainable,
        lstm=sum(work.samples * frames * 4 * (2 * width + 12 * size) for frames, width, size in work.encoders),
        scoring=_logit_bytes(work.scored_samples * work.scored_answers, shape, value)
        + 12 * scored
        + sum(work.scored_samples * frames * 4 * (width + 6 * size) for frames, width, size in work.encoders),
        reserve=CUDA_RESERVE if holding.cuda else CPU_RESERVE,
    )


def with_evaluation_batch(shape: Shape, work: Workload, holding: Holding, memory_bytes: int) -> Workload:
    """The workload with the largest useful evaluation batch that takes at most half of the remaining memory.

    The batch follows from the memory that a machine has, not from what is free at the moment, so that two runs with the
    same seed give the same numbers.
    """
    size = EVALUATION_BATCH["cuda" if holding.cuda else "cpu"]
    while size > 1:
        tried = replace(work, scored_samples=size)
        memory = memory_plan(shape, tried, holding)
        if memory.scoring <= (memory_bytes - memory.standing) / 2:
            return tried
        size //= 2
    return replace(work, scored_samples=1)


def weight_bytes(shape: Shape, holding: Holding) -> tuple[int, int]:
    """Bytes of the parameters, and of what quantised ones need beside them."""
    value = BYTES[holding.dtype]
    inside = sum(layer.inputs * layer.outputs * layer.count for layer in shape.linears)
    rows = sum(layer.outputs * layer.count for layer in shape.linears)
    layers = sum(layer.count for layer in shape.linears)
    others = shape.others * value
    if holding.quantization == "none":
        return inside * value + others, 0
    if holding.quantization == "int8":
        return inside + others, 4 * rows  # one fp32 scale per row
    blocks = inside // FOUR_BIT_BLOCK
    tables = 64 * layers  # the 16 code words of every layer
    if holding.double:  # 8-bit scales, which have fp32 scales, an offset and a code table of 256 of their own
        return inside // 2 + others, tables + blocks + 4 * -(-blocks // NESTED_BLOCK) + (4 + 1024) * layers
    return inside // 2 + others, tables + 4 * blocks


def copied_bytes(shape: Shape, holding: Holding) -> int:
    """Bytes of the weight copies that this CPU multiplies with: an upper bound, as only the layers that
    `backbones/cpu/decoder_layer.py` knows get copies."""
    if holding.cuda or holding.quantization != "none" or not holding.written_out or cpu_vendor() != LAID_OUT_ON:
        return 0
    copies = 2 * BYTES[holding.dtype] * sum(layer.inputs * layer.outputs * layer.count for layer in shape.linears)
    return copies if copies <= PACKED_MOST else 0


def layer_bytes(shape: Shape, work: Workload, holding: Holding) -> tuple[int, int]:
    """Bytes that a decoder layer keeps for its backward pass, and those that it keeps if it is recomputed: its input.

    An upper bound for the layers that are written out on a CPU (`backbones/cpu/decoder_layer.py`): they never repeat
    keys and values, and keep less.
    """
    figures, value = shape.architecture, BYTES[holding.dtype]
    width, attention, mlp = figures.hidden_size, figures.heads * figures.head_dim, figures.intermediate_size
    # bytes per token, counted tensor by tensor
    # both norms: their input and a scale (`backbones/passes/lean_mlp_norm.py`); left to autograd, the input in fp32
    token = 2 * width * (value if holding.lean else 4) + 2 * 4
    token += 3 * attention * value  # queries, and keys and values repeated for every head
    token += (2 if holding.lean else 3) * mlp * value  # gate and up; left to autograd, silu(gate) too
    if holding.eager:
        scores = figures.heads * (work.prefix + work.tokens)
        token += scores * (4 + (value if value < 4 else 0))  # the softmax in fp32, and cast for the product
    else:
        token += attention * value + 4 * figures.heads  # the output and its log-normaliser
    if holding.quantization == "int8":  # bitsandbytes keeps what its layers are given
        token += (2 * width + attention + mlp) * value
    count = work.samples * work.tokens
    prefix = work.samples * work.prefix * 2 * attention * value  # its keys and values, repeated for every sample
    return count * token + prefix, count * width * value


def _expanded(shape: Shape, holding: Holding) -> int:
    """Bytes of the largest layer's weights in full: quantised ones are expanded one layer at a time."""
    if holding.quantization == "none":
        return 0
    return max(layer.inputs * layer.outputs for layer in shape.linears) * BYTES[holding.dtype]


def _logit_bytes(columns: int, shape: Shape, value: int) -> int:
    """Bytes of the logits, their fp32 copy, the log-probabilities, and the gradients of the first two."""
    return columns * shape.architecture.vocab_size * (2 * value + 12)
