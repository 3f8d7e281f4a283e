"""Sound → audio features, one vector per 10 ms, by one of two extractors.

`egemaps`: the 25 low-level descriptors of eGeMAPS v02 (Eyben et al. 2016) by openSMILE, the kind that SIMS-V2 uses:
loudness, spectral slope, MFCC 1-4, pitch, jitter, shimmer, formants. openSMILE's licence is for research use.
`logmel`: 64 log-mel energies, windows of 25 ms.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from msekit.data.extractor import Extractor
from msekit.errors import MsekitError, needs_extra
from msekit.media.added_extractors import added_extractor
from msekit.media.decode import SAMPLE_RATE

EXTRACTORS = ("egemaps", "logmel")
"""Names of the extractors that are no encoders; packages may add others."""
_MELS = 64
_SHORTEST = SAMPLE_RATE // 10  # a tenth of a second: below it no descriptor has a whole window


def audio_extractor(name: str) -> Extractor:
    """The record of an audio extractor: its name, release and settings.

    Raises:
        MsekitError: A package that it needs is missing, or there is no such extractor.
    """
    if name == "egemaps":
        return Extractor(name=name, version=_opensmile().__version__, settings={"set": "eGeMAPSv02", "step_ms": 10})
    if name not in EXTRACTORS:
        return added_extractor(name, "audio", EXTRACTORS).record
    return Extractor(name=name, version="1", settings={"bands": _MELS, "window_ms": 25, "step_ms": 10})


def audio_features(samples_S: np.ndarray, name: str) -> np.ndarray:
    """(S,) sound at 16 kHz → (L, 25) or (L, 64) float32, or what an added extractor makes of it.

    Raises:
        MsekitError: The sound is shorter than a tenth of a second.
    """
    check_long_enough(samples_S)
    own = {"egemaps": _egemaps, "logmel": _log_mel}
    frames_LD = (own[name] if name in own else added_extractor(name, "audio", EXTRACTORS).features)(samples_S)
    return np.ascontiguousarray(frames_LD, dtype=np.float32)


def check_long_enough(samples_S: np.ndarray) -> np.ndarray:
    """The sound itself.

    Raises:
        MsekitError: It is shorter than a tenth of a second.
    """
    if len(samples_S) < _SHORTEST:
        raise MsekitError(f"{len(samples_S) / SAMPLE_RATE:.3f} s of sound are too little")
    return samples_S


def _opensmile() -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise needs_extra("eGeMAPS needs opensmile", "media", "use --audio logmel") from error
    return opensmile


@lru_cache(maxsize=1)
def _smile() -> Any:
    opensmile = _opensmile()
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.LowLevelDescriptors
    )


def _egemaps(samples_S: np.ndarray) -> np.ndarray:
    frames_LD: np.ndarray = _smile().process_signal(samples_S, SAMPLE_RATE).to_numpy()
    return frames_LD


def _log_mel(samples_S: np.ndarray) -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    window, step, bins = SAMPLE_RATE // 40, SAMPLE_RATE // 100, 257
    filters = mel_filter_bank(bins, _MELS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    log_DL = spectrogram(
        samples_S,
        window_function(window, "hann"),
        frame_length=window,
        hop_length=step,
        fft_length=(bins - 1) * 2,
        power=2.0,
        mel_filters=filters,
        log_mel="log",
    )
    return log_DL.T
