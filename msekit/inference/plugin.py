"""PlugIn: a trained adapter on a loaded backbone, ready to predict one sample or many.

    run = msekit.load_run("runs/meld6-smollm2-135m")
    run.predict("Oh my God, you came!", audio="clip.npy").prediction

Batches hold samples of like length, are padded and masked, and give what each sample gives alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from msekit.adapters.interface import Adapter, OpinionatedAdapter
from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import beyond_its_range
from msekit.data.batches.batch import Collator, evaluation_batches
from msekit.data.catalogue import MODALITIES
from msekit.data.targets import refuse_several
from msekit.errors import MsekitError
from msekit.inference.prediction import Prediction, Timing
from msekit.inference.samples import Prepared, PreparedSamples, column_of, prepare_sample
from msekit.model.answers import records_of
from msekit.model.assemble import assemble
from msekit.model.labels import LabelSpace, check_estimate
from msekit.model.text_states import FreshStates, states_wanted
from msekit.runs.description import Description

if TYPE_CHECKING:
    from msekit.gpu import OnItsWay
    from msekit.model.embedded import EmbeddedPrompt

BATCH_SIZE = 16


class _Launched(NamedTuple):
    """A batch that the device may still be computing."""

    positions: list[int]
    scores: OnItsWay
    """Log-probabilities of the trie's edges; behind them, of an opinionated adapter, whether what it read is finite."""
    seconds: float


class PlugIn:
    """A trained adapter on a loaded backbone.

    Args:
        description: Its `adapter.json`.
        adapter: With its trained weights.
        backbone: The frozen LLM; may be shared with other plug-ins.
        notices: In what the backbone differs from the one trained on.
    """

    def __init__(
        self, description: Description, adapter: Adapter, backbone: Backbone, notices: tuple[str, ...] = ()
    ) -> None:
        self.description, self.backbone, self.notices = description, backbone, notices
        adapter.requires_grad_(False).eval()
        self.model = assemble(backbone, adapter, description.dataset, description.layout, description.text_limit)
        self.answers = self.model.answers
        self._states_wanted = None
        if isinstance(adapter, OpinionatedAdapter):
            self._states_wanted = states_wanted(description.adapter, description.dataset, backbone)
        if self.model.layout.sha256 != description.prompt_sha256:
            raise MsekitError("the plug-in was trained with another prompt", fix="Use the msekit that trained it.")

    @property
    def labels(self) -> LabelSpace:
        """The label space of the one target.

        Raises:
            MsekitError: There are several; `answers` has each one's.
        """
        return self.answers.space

    @classmethod
    def from_pretrained(cls, run: str | Path, **settings: Any) -> PlugIn:
        """`msekit.load_run`, with its arguments and errors, under the name that other libraries have for it."""
        from msekit.inference.load import load_run

        return load_run(run, **settings)

    def predict(
        self,
        text: str | Sequence[str],
        audio: Any = None,
        vision: Any = None,
        *,
        history: Any = None,
        speaker: Any = None,
        ids: Sequence[str] | None = None,
        estimate: str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Any:
        """Predict one sample (a text) or many (a list of texts).

        Args:
            text: What was said.
            audio: (L, D) array, tensor or nested lists, or the path of a .npy, .npz or .safetensors file, or of a clip
                where training's features came from `msekit extract`; None where it is missing. For many samples a
                list of these, or None.
            vision: Likewise.
            history: What was said before in the dialogue, the oldest first: pairs of speaker (or None) and text. For
                many samples a list of these, or None. Read by plug-ins trained with `--context`.
            speaker: Who says the text, as training's data named speakers; likewise.
            ids: Names of the samples; None to number them.
            estimate: `greedy`, `argmax`, `mean` or `median`; None for the one the run was trained with.
            batch_size: Most samples computed together.

        Returns:
            One Prediction for a text, a list of them for a list, in its order.

        Raises:
            MsekitError: A sample that cannot be used, with its position.
        """
        single = isinstance(text, str)
        texts = [text] if single else list(text)
        columns = {"audio": audio, "vision": vision, "history": history, "speaker": speaker}
        lists = {key: [value] if single else column_of(value, len(texts), key) for key, value in columns.items()}
        names = [str(number) for number in range(len(texts))] if ids is None else list(map(str, ids))
        if len(names) != len(texts):
            raise MsekitError(f"{len(names)} ids for {len(texts)} texts")
        samples = [
            prepare_sample(
                self.description,
                names[number],
                sample_text,
                {key: lists[key][number] for key in MODALITIES},
                None if single else f"sample {number}",
                history=lists["history"][number],
                speaker=lists["speaker"][number],
            )
            for number, sample_text in enumerate(texts)
        ]
        predictions = self.predict_prepared(samples, estimate, batch_size)
        return predictions[0] if single else predictions

    def predict_prepared(
        self, samples: Sequence[Prepared], estimate: str | None = None, batch_size: int = BATCH_SIZE
    ) -> list[Prediction]:
        """Predict samples that `prepare_sample` made, in their order.

        Raises:
            MsekitError: An estimate that does not fit the task, or a batch size below 1.
        """
        estimate = estimate or self.description.estimate
        check_estimate(self.description.dataset.task, estimate)
        if batch_size < 1:
            raise MsekitError(f"a batch size is at least 1, not {batch_size}")
        answers: dict[int, Prediction] = {}
        for positions, edges_BE, cut_B, seconds in self._scored(samples, batch_size):
            for row, position in enumerate(positions):
                sample = samples[position]
                timing = Timing(sample.seconds, seconds, len(positions))
                notes = sample.notes + self._cut_note(cut_B[row])
                answers[position] = self._answer(sample.id, edges_BE[row : row + 1], estimate, timing, notes)
        return [answers[position] for position in range(len(samples))]

    def write(
        self,
        text: str,
        audio: Any = None,
        vision: Any = None,
        *,
        history: Any = None,
        speaker: Any = None,
        **options: Any,
    ) -> str:
        """The answer to one sample as the LLM writes it, token by token, held to the labels and to the opinion.

        Greedily it is what `predict` says with the estimate `greedy`; options such as `do_sample` and `num_beams` let
        the LLM decode otherwise.

        Args:
            text: What was said.
            audio: See `predict`.
            vision: See `predict`.
            history: See `predict`.
            speaker: See `predict`.
            options: Of transformers' `generate`.

        Raises:
            MsekitError: A sample that cannot be used.
        """
        from msekit.model.decoding import write_answers

        refuse_several(self.description.dataset, "writing an answer token by token")
        features = {"audio": audio, "vision": vision}
        sample = prepare_sample(self.description, "0", text, features, history=history, speaker=speaker)
        with self.backbone.lock:
            batch = self._collator([sample], [self.backbone.encode(sample.text)])([0]).to(self.backbone.device)
            (answer,) = write_answers(self.model, batch, **options)
        return answer

    def prompt_embeds(
        self, text: str, audio: Any = None, vision: Any = None, *, history: Any = None, speaker: Any = None
    ) -> EmbeddedPrompt:
        """One sample's whole input as embeddings, for another engine that holds the same LLM.

        Arguments as for `predict`. `from_logprobs` takes the engine's answers.

        Raises:
            MsekitError: A sample that cannot be used.
        """
        from msekit.model.embedded import embedded

        refuse_several(self.description.dataset, "an answer by another engine")
        features = {"audio": audio, "vision": vision}
        sample = prepare_sample(self.description, "0", text, features, history=history, speaker=speaker)
        with self.backbone.lock:
            own = self.backbone.encode(sample.text)
            batch = self._collator([sample], [own])([0]).to(self.backbone.device)
            notes = sample.notes + self._cut_note(len(own) > self.description.text_limit)
            return embedded(self.model, batch, sample.id, notes)

    def from_logprobs(
        self, prompt: EmbeddedPrompt, logprobs: Sequence[Mapping[int, float]], estimate: str | None = None
    ) -> Prediction:
        """The prediction that an engine's answers to `prompt_embeds` come to.

        Args:
            prompt: What was asked.
            logprobs: For each query token → log-probability over the whole vocabulary; others than asked may be there.
            estimate: As in `predict`.

        Raises:
            MsekitError: A query without an answer, a token without a log-probability, an estimate that does not fit.
        """
        from msekit.model.embedded import edges_of_queries

        estimate = estimate or self.description.estimate
        check_estimate(self.description.dataset.task, estimate)
        edges_1E = edges_of_queries(self.model, prompt, logprobs).numpy()
        return self._answer(prompt.id, edges_1E, estimate, Timing(0.0, 0.0, 1), prompt.notes)

    def _answer(
        self, id: str, edges_1E: np.ndarray, estimate: str, timing: Timing, notes: tuple[str, ...]
    ) -> Prediction:
        ((value, scores),) = records_of(self.answers, edges_1E, estimate)  # type: ignore[arg-type]
        return Prediction(id, value, scores, estimate, timing, notes)

    def _cut_note(self, cut: bool) -> tuple[str, ...]:
        return (f"the text was cut to {self.description.text_limit} tokens",) if cut else ()

    def _collator(self, samples: Sequence[Prepared], encoded: list[list[int]]) -> Collator:
        """Samples as the adapter reads them; the caller has the backbone's lock."""
        ways, texts = self.description.features, [ids[: self.description.text_limit] for ids in encoded]
        contexts = [self._context(sample, own) for sample, own in zip(samples, texts, strict=True)]
        texts = [context + own for context, own in zip(contexts, texts, strict=True)]
        lengths = np.array([len(context) for context in contexts], np.int64)
        labels = np.zeros(len(samples), np.int64)
        collator = Collator(PreparedSamples(samples), texts, labels, ways["audio"], ways["vision"], lengths)
        if self._states_wanted is None:
            return collator
        states = FreshStates(self.backbone, texts, lengths, self._states_wanted)
        return replace(collator.summarised(), states=states)

    def _context(self, sample: Prepared, own: list[int]) -> list[int]:
        """Tokens of the earlier utterances and the speaker before a text, as training put them."""
        if not self.description.context:
            return []
        from msekit.data.batches.dialogue import context_of, line_of, opening_of

        encode = self.backbone.encode
        earlier = (encode(line_of(speaker, text)) for speaker, text in reversed(sample.history))
        return context_of(own, opening_of(sample.speaker, encode), earlier, self.description.text_limit)[0]

    def _scored(
        self, samples: Sequence[Prepared], batch_size: int
    ) -> Iterator[tuple[list[int], np.ndarray, list[bool], float]]:
        """Batches of like length: positions, edge log-probabilities (B, E), texts that were cut, seconds."""
        limit = self.description.text_limit
        with self.backbone.lock:
            encoded = [self.backbone.encode(sample.text) for sample in samples]
            start = time.perf_counter()
            collator = self._collator(samples, encoded)
            each = (time.perf_counter() - start) / max(len(samples), 1)  # the LLM's pass for hidden states
        before: _Launched | None = None
        for positions in [*evaluation_batches(*collator.lengths(), batch_size, 0, 1), None]:
            # a batch is waited for, once, when the next one is on its way
            launched = None if positions is None else self._launch(collator, positions)
            if before is not None:
                edges_BE, waited = self._arrived(before)
                cut_B = [len(encoded[position]) > limit for position in before.positions]
                yield before.positions, edges_BE, cut_B, before.seconds + waited + each * len(before.positions)
            before = launched

    def _launch(self, collator: Collator, positions: list[int]) -> _Launched:
        from msekit.gpu import OnItsWay  # read by who computes, not by who loads

        start, device = time.perf_counter(), self.backbone.device
        batch = collator(positions).pinned_for(device)
        with self.backbone.lock:
            scores = self.model.score(batch.to(device))
            if isinstance(states := collator.states, FreshStates):
                scores = torch.cat([scores, states.finite(positions)[:, None].to(scores)], dim=1)
        return _Launched(positions, OnItsWay(scores), time.perf_counter() - start)

    def _arrived(self, batch: _Launched) -> tuple[np.ndarray, float]:
        """Edge log-probabilities (B, E), and the seconds that they were waited for."""
        start = time.perf_counter()
        scores = batch.scores.arrived().numpy()
        edges = len(self.answers.edge_token)
        if not scores[:, edges:].all():
            raise beyond_its_range(self.backbone)
        return scores[:, :edges], time.perf_counter() - start

    def tensor_bytes(self) -> int:
        """Bytes of all tensors that this plug-in holds beside the backbone."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
