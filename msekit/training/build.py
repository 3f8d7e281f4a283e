"""A config → everything a run works with: cached data, frozen backbone, label space, layout, adapter, collators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from msekit.adapters.interface import Adapter, OpinionatedAdapter
from msekit.adapters.mse import MSEAdapter
from msekit.adapters.sizes import reads_summary_alone
from msekit.backbones.backbone import Backbone
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.load import load_backbone
from msekit.backbones.precision import DTYPES, default_device, run_dtype
from msekit.data.batches.batch import Batch, Collator, Noise
from msekit.data.batches.dialogue import in_context, in_dialogues, refuse_without_dialogues
from msekit.data.batches.kept_frames import KeptFrames
from msekit.data.batches.missing import complete, refuse_incomplete, training_positions
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.cache.cache import Cache
from msekit.data.cache.split_table import SplitTable
from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.open_data import open_data
from msekit.distributed.zero import (
    Zero,
    check_sharding,
    check_unscaled,
    gather_when_used,
    gathered,
    held_share,
    loading_in_shards,
)
from msekit.evaluation.metrics import metrics_of
from msekit.evaluation.of_targets import refuse_unanswered
from msekit.gpu import sent
from msekit.model.assemble import assemble, text_scale
from msekit.model.labels import LabelSpace, check_estimate
from msekit.model.losses import objective_of
from msekit.model.make_adapter import make_adapter
from msekit.model.mse_model import MSEModel, evidence
from msekit.model.stored_states import states_table
from msekit.model.text_states import cue_of, states_wanted
from msekit.reporter import Reporter
from msekit.settings.config import BackboneConfig, Modality, RunConfig
from msekit.settings.data_of import spec_of
from msekit.training.checkpoint import saved_dtype
from msekit.training.features import make_preprocessors
from msekit.training.fit import planned


@dataclass
class Parts:
    """What a run works with."""

    spec: DatasetSpec
    cache: Cache
    model: MSEModel
    preprocessors: dict[str, Preprocessor | None]
    """Of `audio` and `vision`; None where the modality is absent or withheld."""
    collators: dict[str, Collator]
    """One per split."""
    text_limit: int
    """Longest text in tokens."""
    truncated: int
    """Texts cut to the limit, over all splits."""
    evaluation_batch: int
    """Sequences that a process scores at a time."""
    cue: str | None = None
    """What stands behind a text when hidden states are read; None for an adapter that reads none."""
    checkpointing: bool = False
    """Whether layers are recomputed in the backward pass."""

    @property
    def backbone(self) -> Backbone:
        """The frozen LLM."""
        return self.model.backbone

    @property
    def labels(self) -> LabelSpace:
        """The label space of the one target; several are refused."""
        return self.model.labels

    @property
    def modalities(self) -> list[str]:
        """What the adapter is fed: neither absent from the whole set nor withheld."""
        return [name for name, way in self.preprocessors.items() if way is not None]

    @property
    def widths(self) -> dict[Modality, int]:
        """Features per frame that the adapter reads; 0 for a modality it does not read."""
        return {"audio": self.model.adapter.audio_dim, "vision": self.model.adapter.vision_dim}

    def incomplete(self, split: str) -> int:
        """Samples of a split that lack one of the modalities."""
        return int((~complete(self.cache.split(split), self.modalities)).sum())

    def truths(self, split: str) -> np.ndarray:
        """(N,) true class numbers or intensities."""
        return self.collators[split].split.labels


def build(
    config: RunConfig,
    reporter: Reporter,
    splits: tuple[str, ...] = SPLITS,
    seeds: int = 1,
    heed: Callable[[], None] = lambda: None,
) -> Parts:
    """Open the data, load the backbone and make a freshly initialised adapter (from the run's seed).

    Args:
        config: The run.
        reporter: Where notices go.
        splits: Splits to open.
        seeds: How many runs will share a pass through the backbone.
        heed: Called again and again while hidden states are read; it raises where that is to stop.

    Raises:
        MsekitError: Anything in the data, the backbone or the settings that cannot work.
    """
    spec = spec_of(config)
    check_estimate(spec.task, config.evaluation.estimate)
    metrics_of(spec)  # it is refused here or not at all
    spec, cache = open_data(spec, config.data.dtype, reporter)
    preprocessors = make_preprocessors(config, cache)
    _refuse_unusable(config, spec.name, cache, splits, [name for name in MODALITIES if preprocessors[name]])
    if {"train", "valid"} <= {*splits}:
        refuse_unanswered(spec, cache.split("train").labels, cache.split("valid").labels)
    with reporter.status(f"loading {config.backbone}"):
        recompute, evaluation_batch = planned(config, reporter, seeds, training="train" in splits)
        backbone = load_frozen(config.backbone, in_saved_precision(config), recompute)
    if (share := held_share(backbone)) is not None:
        reporter.note(f"ZeRO-3: each process holds {share[0]:,} of the backbone's {share[1]:,} parameters")
    widths: dict[Modality, int] = {
        "audio": cache.info.audio.width if preprocessors["audio"] else 0,
        "vision": cache.info.vision.width if preprocessors["vision"] else 0,
    }
    limit = config.data.text_limit or spec.text_limit
    adapter = fresh_adapter(config, backbone, spec, widths)
    for name in MODALITIES:
        if not getattr(adapter, f"{name}_dim"):  # an adapter may read less than the set has
            preprocessors[name] = None
    model = assemble(backbone, adapter, spec, config.layout, limit)
    collators, truncated = {}, 0
    for split in splits:
        read, cut, said = _collator(config, cache.split(split), model, preprocessors, limit)
        truncated += cut
        if said:
            reporter.note(f"{split}: {said}")
        collators[split] = completed(read, config, model, spec, reporter, heed)
    cue = cue_of(config.adapter, spec) if isinstance(adapter, OpinionatedAdapter) else None
    parts = Parts(spec, cache, model, preprocessors, collators, limit, truncated, evaluation_batch, cue, recompute)
    if "train" in collators:
        fit_to_training(parts, config)
        _say_how_it_is_read(parts, config, widths, reporter)
    _ = backbone.passes  # decided here, in every process
    if truncated:
        reporter.note(f"{truncated} texts are longer than {limit} tokens and were cut")
    return parts


def _say_how_it_is_read(parts: Parts, config: RunConfig, widths: dict[Modality, int], reporter: Reporter) -> None:
    """What a user may not expect of how the data are read, or could ask for."""
    for name, width in widths.items():
        if reads_summary_alone(config.adapter.name, width):
            reporter.note(f"{name}: {width} features a frame are read by their statistics alone, without an LSTM")
    if parts.cue is not None and not config.data.context and in_dialogues(parts.cache.split("train")):
        reporter.note("the utterances are of dialogues; --context 3 lets the LLM read what was said before each")


def _collator(
    config: RunConfig, table: SplitTable, model: MSEModel, preprocessors: dict[str, Preprocessor | None], limit: int
) -> tuple[Collator, int, str]:
    """A split as the adapter reads it, how many of its texts were cut, and what is to be said of its context."""
    texts, cut = encode_texts(table, model.backbone, limit)
    if not config.adapter.parts.text:
        texts, cut = [[] for _ in texts], 0
    ways, kept = (preprocessors["audio"], preprocessors["vision"]), KeptFrames(table, preprocessors)
    whole = Collator(table, texts, model.answers.indices(table.labels), *ways, kept=kept)
    if not (config.data.context and config.adapter.parts.text):
        return whole, cut, ""
    conversations = in_context(table, texts, model.backbone.encode, limit, config.data.context)
    whole = replace(whole, text_ids=conversations.ids, context=conversations.lengths)
    return whole, cut, conversations.summary(limit)


def _refuse_unusable(config: RunConfig, name: str, cache: Cache, splits: tuple[str, ...], read: list[str]) -> None:
    """Refuse splits that lack what the settings cannot do without; `read`: the modalities."""
    for split in splits:
        if config.data.on_missing == "error":
            refuse_incomplete(cache.split(split), read)
        if config.data.context:
            refuse_without_dialogues(cache.split(split), name)


def completed(
    collator: Collator,
    config: RunConfig,
    model: MSEModel,
    spec: DatasetSpec,
    reporter: Reporter,
    heed: Callable[[], None],
) -> Collator:
    """A split's collator with what else the adapter reads: noise in the frames' place, or states and summaries."""
    if not config.reads_features:
        collator = replace(collator, noise=Noise(config.noise, config.seed, epoch=0))
    if not isinstance(model.adapter, OpinionatedAdapter):
        return collator
    wanted = states_wanted(config.adapter, spec, model.backbone)
    states = states_table(model.backbone, collator.text_ids, collator.context, wanted, reporter, heed=heed)
    return replace(collator.summarised(), states=states)


def fresh_adapter(config: RunConfig, backbone: Backbone, spec: DatasetSpec, widths: dict[Modality, int]) -> Adapter:
    """A run's adapter before training, from its seed; `widths` are features per frame, 0 for what it does not read."""
    return make_adapter(
        config.adapter,
        backbone.text_dim,
        widths["audio"],
        widths["vision"],
        answers=spec,
        text_scale=text_scale(backbone),
        learned_absent=config.data.on_missing == "learned",
        seed=config.seed,
    )


def in_saved_precision(config: RunConfig) -> BackboneConfig:
    """The settings of a run's LLM; a stopped run goes on in its own precision where they leave it open."""
    if config.model.dtype != "auto":
        return config.model
    names = {str(kind): name for name, kind in DTYPES.items()}
    saved = names.get(f"torch.{saved_dtype(config.output)}", "auto")
    return config.model.model_copy(update={"dtype": saved})


def load_frozen(name: str, settings: BackboneConfig, checkpointing: bool) -> Backbone:
    """Load the backbone: whole, or in shards where the launch configuration asks for ZeRO-3.

    Raises:
        MsekitError: See `load_backbone`; quantised weights or a compiled pass, which do not go with shards; or fp16,
            which does not go with ZeRO.
    """
    zero = Zero.asked_for()
    device = default_device()
    dtype = settings.dtype
    if dtype == "auto":
        dtype = run_dtype(checkpoint_folder(name), settings.quantization, device)  # type: ignore[assignment]
    if zero is not None:
        check_unscaled(dtype)
    if zero is None or zero.stage < 3:
        double = settings.double_quantization
        ways = (settings.passes, settings.compiles)
        return load_backbone(name, settings.quantization, dtype, device, checkpointing, double, *ways)
    check_sharding(settings.quantization, settings.compiles)
    with loading_in_shards(zero, dtype):
        backbone = load_backbone(name, "none", dtype, device, checkpointing, passes=settings.passes)
    gather_when_used(backbone, zero, dtype)
    return backbone


def fit_to_training(parts: Parts, config: RunConfig) -> None:
    """What the train split decides before training: the text's centre, the shares of the labels in the loss."""
    mixer = parts.model.adapter.text_guide_mixer if isinstance(parts.model.adapter, MSEAdapter) else None
    if mixer is not None and mixer.text_center is not None:
        mixer.text_center.copy_(text_center(parts.backbone, parts.collators["train"]))
    opinionated = isinstance(parts.model.adapter, OpinionatedAdapter)
    if isinstance(parts.model.adapter, OpinionatedAdapter):
        parts.model.adapter.fit(
            evidence(batch.to(parts.backbone.device)) for batch in in_order(parts.collators["train"])
        )
    answers = parts.model.answers
    if config.loss.scores_every_label or opinionated or answers.several:
        labels = parts.collators["train"].labels[training_subset(parts, config)]
        parts.model.objective = objective_of(config.loss, answers, labels, parts.backbone.decode)
    parts.model.to(parts.backbone.device)


def in_order(collator: Collator, size: int = 64) -> Iterator[Batch]:
    """A split's samples, in batches."""
    for start in range(0, len(collator.split), size):
        yield collator(range(start, min(start + size, len(collator.split))))


def training_subset(parts: Parts, config: RunConfig) -> np.ndarray:
    """Positions of the samples to train on: those that `data.on_missing` keeps, or `data.limit_train` of them."""
    drop = config.data.on_missing == "drop"
    return training_positions(parts.cache.split("train"), parts.modalities, drop, config.data.limit_train)


def encode_texts(table: SplitTable, backbone: Backbone, limit: int) -> tuple[list[list[int]], int]:
    """Every text in tokens, cut to the limit, and how many were cut."""
    encoded = backbone.encode_all(list(table.texts))
    return [ids[:limit] for ids in encoded], sum(len(ids) > limit for ids in encoded)


def text_center(backbone: Backbone, collator: Collator) -> Tensor:
    """The average over a split's texts, without context, of their mean embedding: (d,) float32."""
    total = torch.zeros(backbone.text_dim, dtype=torch.float64, device=backbone.device)
    with gathered(backbone.model.get_input_embeddings()):
        for whole, context in zip(collator.text_ids, collator.context_lengths.tolist(), strict=True):
            if ids := whole[context:]:
                total += backbone.embed(sent(torch.tensor(ids), backbone.device)).mean(dim=0).double()
    return (total.cpu() / max(len(collator.text_ids), 1)).float()
