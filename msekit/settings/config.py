"""RunConfig: every setting of a run, checked. Unknown keys are errors that name the nearest key.

A run is resolved in layers, each overriding the one before: defaults, the machine's profile, the recipe, the
published settings of the (backbone, data set) pair (recipe `paper`), a run file, the command line, `--set key=value`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from msekit.adapters.ablations import Ablation, AdapterParts, parts_of
from msekit.adapters.sizes import ADAPTERS, Conditioning
from msekit.backbones.holding import Quantization, check_ways
from msekit.data.description_checks import Folds
from msekit.data.targets import Target
from msekit.errors import nearest
from msekit.settings.choices import Estimate, Layout, OnMissing, Recipe, Tracker

Modality = Literal["audio", "vision"]
OF_AN_OPINION = frozenset(
    {
        *("adapter.depths", "adapter.cue", "adapter.dropout", "adapter.noise"),
        *("optim.opinion_samples", "optim.opinion_lr", "optim.opinion_decay", "optim.opinion_share", "loss.alone"),
    }
)
"""Settings that only an adapter with an opinion reads."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _known_adapter(name: str) -> str:
    if name not in ADAPTERS:
        raise ValueError(f"there is no adapter '{name}'. {nearest(name, ADAPTERS.names)}")
    return name


class AdapterConfig(_Section):
    """The plug-in's size and conditioning."""

    name: Annotated[str, AfterValidator(_known_adapter)] = "mse"
    """The paper's plug-in, the one guided by the LLM's hidden states (`mse-states`), a rival of the paper's Table 5,
    a plain one (`linear`, `mlp`, `prompt`), or one that a package adds."""
    ablate: Ablation | None = None
    """What is left out, a row of the paper's Table 4."""
    pseudo_tokens: int = Field(4, ge=1)
    """Embeddings put before the text."""
    audio_hidden: int = Field(64, ge=1)
    """State size of the audio LSTM; `mse-states` has none for frames of more than 256 features."""
    vision_hidden: int = Field(32, ge=1)
    """State size of the vision LSTM; see `adapter.audio_hidden`."""
    hidden: int = Field(256, ge=1)
    """Width of the mixture (the paper's h)."""
    conditioning: Conditioning = "unit"
    """What makes the pseudo tokens depend on the features from the start (`adapters/mse.py`)."""
    depths: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] = (0.533, 0.733)
    """mse-states: where in the LLM hidden states are read, as shares of its layers (0 are the embeddings)."""
    cue: str | None = None
    """mse-states: words put after the text when hidden states are read; None for those of the task and language."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """mse-states: share of the states' and vectors' numbers that training leaves out; frames lose .6 of that."""
    noise: float = Field(0.5, ge=0)
    """mse-states: deviation of the noise that training adds to the standardised statistics of frames of at most 256
    features; the frames themselves get `data.noise`."""

    @property
    def parts(self) -> AdapterParts:
        """What the ablation leaves of the paper's plug-in."""
        return parts_of(self.ablate)

    @model_validator(mode="after")
    def _only_the_paper_has_ablations(self) -> AdapterConfig:
        if self.ablate and self.name != "mse":
            raise ValueError(f"the ablations of Table 4 are of the adapter mse, not of {self.name}")
        return self


class DataConfig(_Section):
    """What is fed to the adapter."""

    standardise: bool = True
    """Scale every feature by its mean and deviation over the train split's frames."""
    trim: float = Field(0.3, ge=0, lt=1)
    """Cut the still beginning and end of a sequence: frames within this share of its largest change; 0 for not."""
    max_frames: int | None = Field(16, ge=1)
    """Average longer sequences down to this many frames; None for not."""
    noise: float = Field(0.3, ge=0)
    """Deviation of Gaussian noise added to the features in training."""
    text_limit: int | None = Field(None, ge=1)
    """Longest text in tokens; None for the data set's own limit."""
    limit_train: int | None = Field(None, ge=1)
    """Train on this many samples, drawn by a fixed seed; None for all."""
    without: tuple[Modality, ...] = ()
    """Modalities withheld from training and testing alike."""
    on_missing: OnMissing = "zero"
    """What becomes of samples that lack a modality: see `data/batches/missing.py`."""
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    """Chance that a modality is withheld from a sample in training, for each by itself; treated as `on_missing` says
    (under `drop` and `error` as by `zero`)."""
    context: int = Field(0, ge=0)
    """Previous utterances of the dialogue put before the text, as far as the text limit allows."""
    dtype: Literal["float32", "float16"] = "float32"
    """Precision of the features in the cache."""


class DescriptionConfig(_Section):
    """What a data set of one's own is, or what is otherwise than its catalogue entry or YAML says; None: as there."""

    labels: tuple[str, ...] | None = None
    """Class names in the order of their numbers (erc)."""
    range: tuple[float, float] | None = None
    """Lowest and highest intensity (msa)."""
    targets: dict[str, Target] | None = None
    """Several things that a sample is asked, by name, in place of labels or range: `{mood: {classes: [a, b]}}`."""
    language: str | None = None
    """Of the prompt: an ISO 639 code; others than `en` and `zh` need a prompt of their own."""
    prompt: str | None = None
    """The task prompt in one's own words."""
    encoding: str | None = None
    """Of a CSV's text."""
    delimiter: str | None = None
    """What stands between a CSV's cells."""
    columns: dict[str, str] | None = None
    """What a row holds → the column that holds it."""
    validation: float | None = Field(None, gt=0, lt=1)
    """Share of train's rows that is set apart as valid, where the tables have no such split."""
    folds: Folds | None = None
    """How the rows are parted for cross-validation: `{by: speaker, k: 5}`."""
    fold: int | None = Field(None, ge=1)
    """The fold that is tested; `--folds` chooses it."""
    metrics: Literal["general", "mosi", "sims"] | tuple[str, ...] | None = None
    """The metrics by name, or the family that defines those of intensities."""
    key_metric: str | None = None
    """The validation metric that selects the best epoch."""


class OptimConfig(_Section):
    """AdamW on the adapter; warm-up, then cosine to zero."""

    lr: float = Field(2e-3, gt=0)
    """Peak learning rate."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, decoupled."""
    batch_size: int = Field(16, ge=1)
    """Samples of a global batch, whatever the number of processes."""
    accumulation: int = Field(1, ge=1)
    """Parts that each process's share of a batch is computed in, to save memory."""
    epochs: int = Field(15, ge=1)
    """Length of the schedule; training ends there at the latest."""
    patience: int = Field(5, ge=1)
    """Epochs without improvement on validation after which training ends."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest gradient norm; None leaves gradients as they are."""
    opinion_samples: int = Field(0, ge=0)
    """Adapters with an opinion: samples on which the opinion trains alone, without the LLM, before the schedule; in
    whole epochs, at least 8 and at most 60. 0 for none."""
    opinion_lr: float = Field(1e-3, gt=0)
    """Peak learning rate of these epochs."""
    opinion_decay: float = Field(0.1, ge=0)
    """Their weight decay."""
    opinion_share: float = Field(0.1, ge=0, le=1)
    """What the opinion's learning rate is multiplied with once it trains with the LLM."""
    deterministic: bool = False
    """On a GPU: only kernels that add in the same order every time, which are slower; a CPU has no others."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of a moving average of the adapter over the steps, which is then what is tested and saved; 0 for none."""


class LossConfig(_Section):
    """What training minimises; the defaults are the paper's L_task."""

    balance: Literal["none", "class-balanced", "logit-adjusted"] = "none"
    """Emotions only: weigh rare classes up, or raise frequent ones' scores in training (Menon et al. 2021)."""
    tau: float = Field(1.0, gt=0)
    """Strength of either: the power of a class's share that weights it, or the factor of its logarithm."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """Emotions only: share of the loss that is with the uniform distribution over the labels (label smoothing)."""
    expected: float = Field(0.0, ge=0)
    """Intensities only: weight of the L1 distance of the label distribution's mean from the truth."""
    number_token: float = Field(0.0, ge=0)
    """Intensities only: weight of the distance of the answer's digits from the true ones (Zausinger et al. 2025)."""
    alone: float = Field(0.0, ge=0)
    """Adapters with an opinion: weight of the loss of the LLM without the opinion, and of the opinion without it."""

    @property
    def scores_every_label(self) -> bool:
        """Whether it looks at more than the true label's tokens, which are all that the paper's loss needs."""
        return self.balance != "none" or bool(self.expected or self.number_token or self.smoothing)


def _yaml_switch(value: object) -> object:
    """YAML reads a bare on or off as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class BackboneConfig(_Section):
    """How the frozen LLM is held."""

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 on a GPU that has it, fp16 on one that has not; on a CPU bf16 where it is quicker (AMX), fp32
    otherwise. In fp16 the loss is scaled (`training/loss_scale.py`)."""
    quantization: Quantization = "none"
    """Hold the weights in 8 bit (`int8`) or 4 bit (`nf4`)."""
    double_quantization: bool = False
    """Quantise the scales of nf4 too: 0.4 bit per weight less."""
    checkpointing: Annotated[Literal["auto", "on", "off"], BeforeValidator(_yaml_switch)] = "auto"
    """Recompute layers in the backward pass: less memory, about a third more time. `auto`: where the plan needs it."""
    compile: bool = False
    """Let `torch.compile` make one program of the LLM's pass, on a GPU with CUDA graphs; takes minutes at the start."""
    passes: Annotated[Literal["auto", "plain"] | tuple[str, ...], BeforeValidator(check_ways)] = "auto"
    """Shorter ways through the LLM (`backbones/passes/choose.py`): `auto` for every one that works here, `plain` for
    transformers' own pass, or names (`prefix`, `last-layer`, `lean-parts`, `joined`, `triton`, `written-out`,
    `compiled`), which then must work. Values are those of the plain pass up to rounding."""

    @model_validator(mode="after")
    def _one_pass_alone(self) -> BackboneConfig:
        if self.compile and self.passes == "plain":
            raise ValueError("model.compile asks for a compiled pass, model.passes for the plain one")
        if self.compiles and "written-out" in self.passes:
            raise ValueError("a compiled pass is of transformers' layers: it does not go with the way written-out")
        return self

    @property
    def compiles(self) -> bool:
        """Whether the pass is compiled: `compile`, or `compiled` among the ways by name."""
        return self.compile or "compiled" in self.passes


class EvaluationConfig(_Section):
    """How scores become predictions and metrics."""

    estimate: Estimate = "greedy"
    """How label scores become one answer: as the LLM writes it, the likeliest, or mean or median of intensities."""
    batch_size: int | None = Field(None, ge=1)
    """Sequences that a process scores at a time; None for what the plan has room for (`planning/memory.py`)."""
    bootstrap: int = Field(1000, ge=0)
    """Resamples behind the 95 % intervals; 0 for none."""
    integrity: bool = True
    """Test once more with audio and vision shuffled between samples: what the score loses is heard and seen."""


class TrackingConfig(_Section):
    """Where a run is shown while it trains, beside `steps.jsonl` and `metrics.jsonl`."""

    trackers: tuple[Tracker, ...] = ()
    """`tensorboard`, `wandb`, `mlflow`, `trackio`, `comet`, `swanlab`: any of them; each is a package of its own."""
    project: str = "msekit"
    """Under which name they file it; TensorBoard's files lie in the run's folder."""


class RunConfig(_Section):
    """One run: one backbone, one data set, one seed, one folder."""

    backbone: str
    """Catalogue name, folder or hub id of a causal LM."""
    dataset: str
    """Catalogue name, or the path of a YAML that describes one's own."""
    source: Path | None = None
    """Folder or file of the published features."""
    description: DescriptionConfig = DescriptionConfig()
    recipe: Recipe
    """The settings that the run starts from."""
    profile: str | None = None
    """Name of a machine's profile, or the path of one (`msekit.settings.profiles`); None for the machine at hand."""
    layout: Layout = "paper"
    """Where the task prompt stands: after the content, or before it, where the backbone reads it but once."""
    seed: int = Field(1111, ge=0)
    """Decides weights, order, noise and dropout."""
    output: Path
    """The seed's folder."""
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    loss: LossConfig = LossConfig()
    model: BackboneConfig = BackboneConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    save_minutes: float = Field(5.0, gt=0)
    """A state to resume from is saved at every epoch's end, and this often in between."""
    timeout_minutes: float = Field(10.0, gt=0)
    """How long processes of a distributed run wait for one another before they give up."""

    @property
    def withheld(self) -> set[str]:
        """Modalities that the adapter does not read: `data.without`, an ablation, an adapter that reads none."""
        if not ADAPTERS[self.adapter.name].reads_features:
            return {"audio", "vision"}
        return {*self.data.without, *self.adapter.parts.absent}

    @property
    def reads_features(self) -> bool:
        """Whether the features themselves reach the adapter, not random vectors in their place."""
        return not self.adapter.parts.random

    @property
    def noise(self) -> float:
        """Deviation of the noise on features in training; where random vectors replace them, the vectors' own."""
        return self.data.noise if self.reads_features else 1.0
