"""Speech and vision encoders of a published kind with a few thousand random weights.

python -m msekit.testing.tiny_encoders hubert FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from msekit.backbones.checkpoints.quiet import quiet_transformers

_SIDE = 32
_TOWER = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
_PICTURES = {"image_size": _SIDE, "patch_size": 16, "num_hidden_layers": 3}


def _hubert(seed: int) -> tuple[Any, Any]:
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    config = HubertConfig(num_hidden_layers=3, **_TOWER, **convolutions)
    torch.manual_seed(seed)
    return HubertModel(config), Wav2Vec2FeatureExtractor(do_normalize=True)


def _whisper(seed: int) -> tuple[Any, Any]:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        d_model=16,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    torch.manual_seed(seed)
    return WhisperModel(config), WhisperFeatureExtractor()


def _clip(seed: int) -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    text = {**_TOWER, "num_hidden_layers": 1, "vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2}
    config = CLIPConfig(text_config=text, vision_config={**_TOWER, **_PICTURES}, projection_dim=12)
    size = {"height": _SIDE, "width": _SIDE}
    torch.manual_seed(seed)
    return CLIPModel(config), CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size=size)


def _videomae(seed: int) -> tuple[Any, Any]:
    from transformers import VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel

    config = VideoMAEConfig(num_frames=16, tubelet_size=2, **_TOWER, **_PICTURES)
    size = {"height": _SIDE, "width": _SIDE}
    torch.manual_seed(seed)
    return VideoMAEModel(config), VideoMAEImageProcessor(size={"shortest_edge": _SIDE}, crop_size=size)


KINDS = {"hubert": _hubert, "whisper": _whisper, "clip": _clip, "videomae": _videomae}


def write_tiny_encoder(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write an encoder with its preprocessing; returns the folder.

    Args:
        folder: Where to; made if needed.
        kind: `hubert`, `whisper`, `clip` or `videomae`.
        seed: Of the weights; the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        for part in KINDS[kind](seed):
            part.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(write_tiny_encoder(arguments.folder, arguments.kind))
