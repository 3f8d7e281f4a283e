"""RivalData: a data set as baselines read it: batches of samples, or of whole dialogues with their speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from msekit.baselines.catalogue import Entry
from msekit.baselines.rival_batch import RivalBatch, Sizes
from msekit.baselines.texts import Texts
from msekit.data.batches.batch import Collator, Noise, global_batches
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.cache.cache import Cache
from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.readers.beside import modality_labels
from msekit.evaluation.scoring import SHUFFLE_SEED
from msekit.settings.config import DataConfig


def cannot_serve(entry: Entry, spec: DatasetSpec, cache: Cache) -> str | None:
    """What a baseline needs and a data set lacks, in words; None where it can be run."""
    train = cache.split("train")
    if "frames" in entry.needs and not any(getattr(cache.info, name).width for name in MODALITIES):
        return "the set has neither audio nor vision"
    if "intensities" in entry.needs and spec.range is None:
        return "it is defined for intensities, and the set has classes"
    if "labels by modality" in entry.needs and modality_labels(spec, "train", len(train)) is None:
        return "the set has no labels of single modalities"
    if "dialogues" in entry.needs:
        for split in SPLITS:
            table = cache.split(split)
            if None in table.dialogues or None in table.speakers:
                return f"the set does not say the dialogue and speaker of every utterance ({split})"
    return None


class RivalData:
    """A data set as a baseline reads it.

    Args:
        spec: The data set.
        cache: Its cache.
        chosen: Positions of the training samples.
        entry: The baseline.
        texts: Every split's texts.
    """

    def __init__(self, spec: DatasetSpec, cache: Cache, chosen: np.ndarray, entry: Entry, texts: Texts) -> None:
        self.spec, self.chosen, self.entry, self.texts = spec, chosen, entry, texts
        settings = DataConfig.model_validate({})
        infos = {name: getattr(cache.info, name) for name in MODALITIES}
        ways = {
            name: Preprocessor.of(info, True, settings.trim, entry.frames) if info.width else None
            for name, info in infos.items()
        }
        self.noise = settings.noise
        self.collators = {
            split: Collator(
                cache.split(split), texts.ids[split], cache.split(split).labels, ways["audio"], ways["vision"]
            )
            for split in SPLITS
        }
        self.labels_by_modality = {split: modality_labels(spec, split, len(cache.split(split))) for split in SPLITS}
        self._in_dialogues = "dialogues" in entry.needs
        self._dialogues, self._speakers = dict[str, np.ndarray](), dict[str, np.ndarray]()
        self._parties = dict[str, np.ndarray]()
        speakers: dict[str | None, int] = {}
        if self._in_dialogues:
            names = cache.split("train").speakers
            speakers = {name: n for n, name in enumerate(sorted({str(names[place]) for place in chosen}), 1)}
            for split in SPLITS:
                table = cache.split(split)
                self._dialogues[split] = _numbered(table.dialogues)
                self._parties[split] = _numbered(table.speakers)
                self._speakers[split] = np.array([speakers.get(str(name), 0) for name in table.speakers])
        self.sizes = Sizes(
            vocabulary=texts.vocabulary,
            widths={name: info.width for name, info in infos.items() if info.width},
            outputs=len(spec.labels) if spec.labels else 1,
            text_width=texts.width,
            samples=len(cache.split("train")),
            speakers=len(speakers),
            span=spec.range,
        )

    def shuffle_test(self) -> None:
        """From now on every test sample has the audio and vision of another."""
        self.collators["test"] = self.collators["test"].shuffled(SHUFFLE_SEED)

    def batch(self, split: str, positions: Sequence[int], noise: Noise | None = None) -> RivalBatch:
        """The samples at these positions of a split."""
        places = list(positions)
        collator = self.collators[split]
        collated = (replace(collator, noise=noise) if noise else collator)(places)
        labels = torch.from_numpy(collator.split.labels[places]).float()
        by_modality = self.labels_by_modality[split]
        batch = RivalBatch.of(collated, labels)
        batch.truths = None if by_modality is None else torch.from_numpy(by_modality[places])
        if self.texts.tokens:
            batch.tokens = self.texts.tokens[split](places)
        if self.texts.sentence:
            batch.sentence = self.texts.sentence[split](places)
        if self._in_dialogues:
            batch.dialogue = torch.from_numpy(self._dialogues[split][places])
            batch.turn = torch.tensor(places)
            batch.speaker = torch.from_numpy(self._speakers[split][places])
            batch.party = torch.from_numpy(self._parties[split][places])
        return batch

    def order(self, seed: int, epoch: int) -> list[list[int]]:
        """Positions of an epoch's training batches; the seed and the epoch decide them."""
        if self._in_dialogues:
            dialogues = self._whole_dialogues("train", self.chosen)
            shuffled = np.random.default_rng((seed, epoch)).permutation(len(dialogues))
            return self._joined([dialogues[place] for place in shuffled])
        tokens, frames = self.collators["train"].lengths()
        batches = global_batches(tokens[self.chosen], frames[self.chosen], self.entry.batch, seed, epoch)
        return [[int(self.chosen[place]) for place in batch] for batch in batches]

    def evaluation(self, split: str) -> list[list[int]]:
        """Positions of a split's batches; together they are in an order of their own."""
        size = len(self.collators[split].split)
        if self._in_dialogues:
            return self._joined(self._whole_dialogues(split, np.arange(size)))
        return [list(range(start, min(start + self.entry.batch, size))) for start in range(0, size, self.entry.batch)]

    def _whole_dialogues(self, split: str, places: np.ndarray) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for place in places.tolist():
            found.setdefault(int(self._dialogues[split][place]), []).append(place)
        return list(found.values())

    def _joined(self, dialogues: list[list[int]]) -> list[list[int]]:
        starts = range(0, len(dialogues), self.entry.batch)
        return [list(chain(*dialogues[start : start + self.entry.batch])) for start in starts]


def _numbered(names: Sequence[str | None]) -> np.ndarray:
    """(N,) int64: each name's number, in the order in which they come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)
