"""PlugInHost: several plug-ins on one loaded backbone, beside the LLM's own abilities.

    host = msekit.PlugInHost("smollm2-135m")
    host.add("emotion", "runs/meld6-smollm2-135m")
    host.add("sentiment", "user/mosi-plug-in")
    host.predict("emotion", "Oh my God, you came!", audio="clip.npy")
    host.generate("The capital of France is")            # the LLM as it is: no plug-in in the way

Safe to call from several threads: the backbone computes one batch at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.errors import MsekitError, nearest
from msekit.inference.plugin import BATCH_SIZE, PlugIn
from msekit.inference.restore import read_plug_in
from msekit.runs.folder import fetch_run


class PlugInHost:
    """Plug-ins by name on one backbone.

    Args:
        backbone: A loaded backbone, or what `load_backbone` takes.
    """

    def __init__(self, backbone: Backbone | str) -> None:
        self.backbone = load_backbone(backbone) if isinstance(backbone, str) else backbone
        self._plug_ins: dict[str, PlugIn] = {}
        self._registry = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Of the plug-ins, in the order they were added."""
        with self._registry:
            return list(self._plug_ins)

    def add(self, name: str, run: str | Path, *, revision: str | None = None, force: bool = False) -> PlugIn:
        """Add a plug-in.

        Args:
            name: What to call it.
            run: A run's or exported folder, or a hub repository.
            revision: Of the hub repository.
            force: Accept a backbone whose fingerprint differs from the one trained on.

        Raises:
            MsekitError: The name is taken, no plug-in there, or it does not fit the backbone.
        """
        plug_in = read_plug_in(fetch_run(run, revision), self.backbone, force)
        with self._registry:
            if name in self._plug_ins:
                raise MsekitError(f"a plug-in named '{name}' is there already", fix="Remove it, or choose a name.")
            self._plug_ins[name] = plug_in
        return plug_in

    def remove(self, name: str) -> None:
        """Take a plug-in away; predictions under way are finished.

        Raises:
            MsekitError: No such plug-in.
        """
        self.plug_in(name)
        with self._registry:
            self._plug_ins.pop(name, None)

    def plug_in(self, name: str) -> PlugIn:
        """A plug-in by its name.

        Raises:
            MsekitError: No such plug-in (the nearest names are offered).
        """
        with self._registry:
            if name in self._plug_ins:
                return self._plug_ins[name]
            names = list(self._plug_ins)
        raise MsekitError(f"no plug-in named '{name}'", fix=nearest(name, names) if names else "Add one first.")

    def predict(
        self,
        name: str,
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
        """Predict with one of the plug-ins; see `PlugIn.predict`.

        Raises:
            MsekitError: No such plug-in, or a sample that cannot be used.
        """
        said = {"history": history, "speaker": speaker}
        return self.plug_in(name).predict(
            text, audio, vision, **said, ids=ids, estimate=estimate, batch_size=batch_size
        )

    def generate(self, prompt: str, max_new_tokens: int = 64) -> str:
        """Ordinary text from the LLM alone, greedily: what it would write if there were no plug-ins.

        Args:
            prompt: Read as the tokenizer reads any text, with its own special tokens.
            max_new_tokens: Longest answer.

        Returns:
            The continuation, without the prompt and without special tokens.

        Raises:
            MsekitError: A prompt without tokens.
        """
        with self.backbone.lock, torch.no_grad():
            tokens = self.backbone.tokenizer(prompt, return_tensors="pt")["input_ids"].to(self.backbone.device)
            if not tokens.shape[1]:
                raise MsekitError("the prompt is empty")
            answer = self.backbone.model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=self.backbone.end,
            )
            return self.backbone.tokenizer.decode(answer[0, tokens.shape[1] :], skip_special_tokens=True)
