"""`msekit plan`: will this run fit this machine, before anything is loaded. From configurations alone; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from msekit.adapters.sizes import ADAPTERS, parameter_count, reads_summary_alone
from msekit.backbones.holding import KINDS, MULTIPLE, check_kind
from msekit.backbones.shape import Shape, shape_of
from msekit.data.catalogue import MODALITIES, DatasetSpec
from msekit.data.readers import synthetic
from msekit.data.targets import opinions_of
from msekit.errors import MsekitError
from msekit.model.answers import Answers
from msekit.model.labels import Encode
from msekit.model.wording import constant_parts
from msekit.planning.at_hand import beyond_card, divisions, fitted_line, in_parts, leaves_parts_open
from msekit.planning.memory import Holding, MemoryPlan, Workload, memory_plan, with_evaluation_batch
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of
from msekit.settings.profiles import Profile, profile_of
from msekit.words import reason

ASSUMED_FRAMES, ASSUMED_WIDTH = 500, 128
"""Of a set of one's own, whose files are not opened here; they weigh little."""
BYTES_PER_TOKEN = 3
"""Of text in a tokenizer that is not at hand: an English token is longer, a Chinese character is 3 bytes."""


@dataclass(frozen=True)
class Plan:
    """Whether a run fits, and why."""

    config: RunConfig
    profile: Profile
    work: Workload
    memory: MemoryPlan
    checkpointing: bool
    steps_per_epoch: int | None
    """None where the number of training samples is not known without reading them."""
    advice: tuple[str, ...]
    """What to change, where it does not fit."""
    notes: tuple[str, ...]
    """What was assumed."""

    @property
    def total(self) -> int:
        """Largest memory in bytes."""
        return self.memory.total(self.checkpointing)

    @property
    def dtype(self) -> str:
        """The precision that the backbone is held in."""
        return holding_of(self.config, self.profile).dtype

    @property
    def fits(self) -> bool:
        """Within the profile's memory."""
        return self.total <= self.profile.memory_bytes

    def as_json(self) -> dict[str, Any]:
        """The answer for programs; sizes in bytes."""
        model, optim = self.config.model, self.config.optim
        steps = None if self.steps_per_epoch is None else self.steps_per_epoch * optim.epochs
        return {
            "backbone": self.config.backbone,
            "dataset": self.config.dataset,
            "profile": self.profile.name,
            "dtype": self.dtype,
            "quantization": model.quantization,
            "batch_size": optim.batch_size,
            "accumulation": optim.accumulation,
            "sequence_tokens": self.work.tokens,
            "prefix_tokens": self.work.prefix,
            "evaluation_batch_size": self.work.scored_samples,
            "checkpointing": "on" if self.checkpointing else "off",
            "memory": asdict(self.memory),
            "total_bytes": self.total,
            "card_bytes": self.profile.memory_bytes,
            "fits": self.fits,
            "steps_per_epoch": self.steps_per_epoch,
            "steps": steps,
            "advice": list(self.advice),
            "notes": list(self.notes),
        }


def plan_run(config: RunConfig, seeds: int = 1) -> Plan:
    """Plan a resolved run.

    Where no profile is named, a batch that does not fit the card at hand is computed in as many parts as it needs;
    the plan's config has them.

    Args:
        config: The run; its profile says what the machine holds.
        seeds: How many of it train at once, their batches in one pass (`--parallel-seeds`).

    Raises:
        MsekitError: The backbone's configuration is not at hand or cannot be understood; no such data set.
    """
    profile = profile_of(config.profile)
    spec = spec_of(config)
    shape = shape_of(config.backbone)
    encode, guessed = tokenizer_of(shape)
    plan = _planned(config, spec, shape, encode, profile, seeds)
    if not plan.fits and leaves_parts_open(config, profile):
        tried = (_planned(in_parts(config, parts), spec, shape, encode, profile, seeds) for parts in divisions(config))
        plan = next((better for better in tried if better.fits), plan)
    notes = [line for line in (fitted_line(plan), *beyond_card(plan)) if line] + [*plan.notes]
    if guessed:
        notes.append(f"the tokenizer is not at hand: {BYTES_PER_TOKEN} bytes of text are taken for a token")
    if plan.steps_per_epoch is None:
        notes.append("the number of training samples is not known before the files are read")
    if profile.device == "cuda":
        notes.append("activations and reserve have not been checked against a GPU")
    advice = () if plan.fits else advice_for(config, shape, spec, profile, seeds)
    return replace(plan, notes=tuple(notes), advice=advice)


def _planned(config: RunConfig, spec: DatasetSpec, shape: Shape, encode: Encode, profile: Profile, seeds: int) -> Plan:
    """The plan of a run as it is divided, without advice."""
    work, assumed = workload(config, spec, shape, encode, profile, seeds)
    memory = memory_plan(shape, work, holding_of(config, profile))
    samples = sample_count(config, spec)
    return Plan(
        config=config,
        profile=profile,
        work=work,
        memory=memory,
        checkpointing=needs_checkpointing(config, memory, profile),
        steps_per_epoch=None if samples is None else -(-samples // config.optim.batch_size),
        advice=(),
        notes=tuple(assumed),
    )


def needs_checkpointing(config: RunConfig, memory: MemoryPlan, profile: Profile) -> bool:
    """Whether layers are recomputed: as asked, or where they would not fit otherwise."""
    if config.model.checkpointing == "auto":
        return memory.total(checkpointing=False) > profile.memory_bytes
    return config.model.checkpointing == "on"


def holding_of(config: RunConfig, profile: Profile) -> Holding:
    """How a run on the profile's machine holds its backbone."""
    cuda = profile.device == "cuda"
    check_kind(config.model.quantization)
    default = ("bf16" if profile.bf16 else "fp16") if cuda else "fp32"
    dtype = default if config.model.dtype == "auto" else config.model.dtype
    passes = config.model.passes
    return Holding(
        dtype,
        config.model.quantization,
        config.model.double_quantization,
        eager=not cuda,
        cuda=cuda,
        lean=passes == "auto" or "lean-parts" in passes,
        written_out=not config.model.compiles and (passes == "auto" or "written-out" in passes),
    )


def tokenizer_of(shape: Shape) -> tuple[Encode, bool]:
    """Text → tokens by the checkpoint's own tokenizer if it is at hand, else a guess; and whether it is one."""
    file = shape.folder / "tokenizer.json" if shape.folder else None
    if file is not None and file.is_file():
        from tokenizers import Tokenizer

        from msekit.backbones.checkpoints.tokenizer_growth import refuse_growth

        refuse_growth(file.parent)
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the tokenizers library raises plain Exception
            raise MsekitError(f"the tokenizer cannot be loaded: {reason(error)}", where=file) from error
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, False

    def guess(text: str) -> list[int]:
        if len(text) <= 5:  # a label: digits, signs and points are tokens of their own
            return [ord(letter) for letter in text]
        return [0] * -(-len(text.encode()) // BYTES_PER_TOKEN)

    return guess, True


def workload(
    config: RunConfig, spec: DatasetSpec, shape: Shape, encode: Encode, profile: Profile, seeds: int = 1
) -> tuple[Workload, list[str]]:
    """Sizes of a full micro-batch of the longest samples, every seed's, and what was assumed about them."""
    asked = Answers.of(spec, encode, shape.architecture.vocab_size, config.layout)
    inner, behind = asked.nodes.scored, len(asked.nodes.token)
    every_label = config.loss.scores_every_label or ADAPTERS[config.adapter.name].has_opinion or asked.several
    answers = inner if every_label else asked.longest
    constant = constant_parts(spec.task_prompt, config.layout, asked.several)
    opening, closing = (len(encode(text)) for text in constant)
    text = config.data.text_limit or spec.text_limit
    pseudo = config.adapter.pseudo_tokens if ADAPTERS[config.adapter.name].adds_tokens else 0
    encoders, trainable, notes = adapter_sizes(config, spec, shape.architecture.hidden_size)
    front = 2 + opening  # 2: bos, or gMASK and sop
    read_once = config.model.passes == "auto" or "prefix" in config.model.passes
    tokens = pseudo + text + closing + (behind if every_label else answers - 1) + (0 if read_once else front)
    if profile.device == "cuda" or config.model.compiles:  # as the keys of a batch are padded
        tokens += -(tokens + (front if read_once else 0)) % MULTIPLE
    work = Workload(
        samples=seeds * -(-config.optim.batch_size // config.optim.accumulation),
        tokens=tokens,
        answers=answers,
        scored_samples=config.evaluation.batch_size or 1,
        scored_answers=inner,
        trainable=seeds * trainable,
        encoders=encoders,
        prefix=front if read_once else 0,
    )
    if config.evaluation.batch_size is None:
        work = with_evaluation_batch(shape, work, holding_of(config, profile), profile.memory_bytes)
    return work, notes


def adapter_sizes(
    config: RunConfig, spec: DatasetSpec, text_dim: int
) -> tuple[tuple[tuple[int, int, int], ...], int, list[str]]:
    """(frames, width, LSTM state) of each modality that is read, the adapter's parameters, and what was assumed."""
    frames, widths = feature_sizes(spec)
    notes = []
    if frames is None:
        notes.append(f"sequences of {ASSUMED_FRAMES} frames are assumed; the files are not opened")
        frames = (ASSUMED_FRAMES, ASSUMED_FRAMES)
    adapter, limit = config.adapter, config.data.max_frames or max(frames)
    audio, vision = (0 if name in config.withheld else width for name, width in zip(MODALITIES, widths, strict=True))
    states = (adapter.audio_hidden, adapter.vision_hidden)
    encoders = tuple(
        (1, width, 0) if reads_summary_alone(adapter.name, width) else (min(longest, limit), width, state)
        for longest, width, state in zip(frames, (audio, vision), states, strict=True)
        if width
    )
    if not config.reads_features:  # a random state per sample stands where an LSTM's last state would
        encoders = tuple((1, state, 0) for _, _, state in encoders)
    trainable = parameter_count(
        adapter.name,
        text_dim,
        audio,
        vision,
        *states,
        adapter.pseudo_tokens,
        adapter.hidden,
        adapter.ablate,
        state_layers=len(adapter.depths),
        classes=len(spec.labels or ()),
        questions=opinions_of(spec),
    )
    return encoders, trainable, notes


def feature_sizes(spec: DatasetSpec) -> tuple[tuple[int, int] | None, tuple[int, int]]:
    """The longest audio and vision sequence, None where it is not known, and the features per frame, 0 for none."""
    if spec.layout == "synthetic":
        longest = (synthetic.AUDIO_FRAMES[1], synthetic.VISION_FRAMES[1])
        return longest, (synthetic.AUDIO_WIDTH, synthetic.VISION_WIDTH)
    audio, vision = (ASSUMED_WIDTH if size is None else size for size in (spec.audio_width, spec.vision_width))
    return spec.frames, (audio, vision)


def sample_count(config: RunConfig, spec: DatasetSpec) -> int | None:
    """Training samples, as far as the description says."""
    size = synthetic.SIZES["train"] if spec.layout == "synthetic" else spec.split_sizes and spec.split_sizes[0]
    limit = config.data.limit_train
    if size is None:
        return None
    return size if limit is None else min(size, limit)


def advice_for(config: RunConfig, shape: Shape, spec: DatasetSpec, profile: Profile, seeds: int = 1) -> tuple[str, ...]:
    """The least change that makes a run fit: recomputed layers, then smaller parts of a batch, then fewer bits."""
    encode, _ = tokenizer_of(shape)
    divided = [config.optim.accumulation, *divisions(config)]
    wanted = config.evaluation.batch_size
    scored = [None] if wanted is None else sorted({1, wanted}, reverse=True)
    for changes in product(KINDS[KINDS.index(config.model.quantization) :], divided, scored):
        tried = changed(config, *changes)
        work, _ = workload(tried, spec, shape, encode, profile, seeds)
        if memory_plan(shape, work, holding_of(tried, profile)).total(checkpointing=True) <= profile.memory_bytes:
            return tuple(differences(config, tried))
    return ("a smaller backbone, or a card with more memory", *(["fewer seeds at once"] if seeds > 1 else []))


def changed(config: RunConfig, quantization: str, accumulation: int, scored: int | None) -> RunConfig:
    """The same run, with layers recomputed, held and divided otherwise."""
    values = {
        "model": {"quantization": quantization, "checkpointing": "on"},
        "optim": {"accumulation": accumulation},
        "evaluation": {"batch_size": scored},
    }
    return config.model_copy(update={name: getattr(config, name).model_copy(update=v) for name, v in values.items()})


def differences(config: RunConfig, other: RunConfig) -> Iterator[str]:
    """Options that turn one run into the other; `auto` needs none."""
    for section in ("model", "optim", "evaluation"):
        before = getattr(config, section).model_dump()
        for key, value in getattr(other, section).model_dump().items():
            if before[key] not in (value, "auto"):
                yield f"--set {section}.{key}={value}"
