"""What may be handed over as audio or vision: arrays, lists, files; everything else is refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from msekit.errors import MsekitError
from msekit.inference import given_features
from msekit.inference.given_features import frames_of

FRAMES = np.arange(12, dtype=np.float64).reshape(4, 3) / 7


class Bomb:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def read(value: object, width: int = 3) -> np.ndarray:
    return frames_of(value, "audio", width, "float32").values


def refused(value: object, match: str, width: int = 3) -> None:
    with pytest.raises(MsekitError, match=match) as caught:
        read(value, width)
    assert "\n" not in str(caught.value)


def test_the_same_frames_in_every_form(tmp_path: Path):
    np.save(tmp_path / "a.npy", FRAMES)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(FRAMES))
    np.savez(tmp_path / "one.npz", anything=FRAMES)
    np.savez_compressed(tmp_path / "two.npz", audio=FRAMES, vision=np.zeros((1, 9)))
    save_file({"audio": FRAMES.copy(), "other": np.zeros(1)}, tmp_path / "s.safetensors")
    expected = FRAMES.astype(np.float32)
    files = [tmp_path / name for name in ("a.npy", "fortran.npy", "one.npz", "two.npz", "s.safetensors")]
    for value in (FRAMES, FRAMES.tolist(), torch.from_numpy(FRAMES), str(files[0]), *files):
        assert np.array_equal(read(value), expected), value
    save_torch({"audio": torch.from_numpy(FRAMES).bfloat16()}, tmp_path / "b.safetensors")
    assert np.allclose(read(tmp_path / "b.safetensors"), expected, rtol=0.01)
    assert read(FRAMES[0]).shape == (1, 3), "a single frame"
    assert np.array_equal(read(FRAMES[None]), expected), "a batch of one"
    assert read([[1, 2, 3]]).dtype == np.float32


def test_non_finite_values_are_marked_as_in_training():
    spoilt = FRAMES.copy()
    spoilt[0, 0], spoilt[1, 1], spoilt[2, 2] = np.nan, np.inf, 1e300
    frames = frames_of(spoilt, "audio", 3, "float32")
    assert frames.replaced == 2
    assert np.isnan(frames.values[0, 0])
    assert np.isnan(frames.values[1, 1])
    assert frames.values[2, 2] == np.finfo(np.float32).max, "too large a value is cut to the range, as in the cache"


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.full((4, 3), np.nan), "no finite number"),
        (np.zeros((4, 2)), "2 features per frame, the plug-in was trained on 3"),
        (np.zeros((0, 3)), "has no frames"),
        (np.zeros((2, 4, 3)), "shape"),
        (np.zeros(5), "shape"),
        (7, "shape"),
        (np.zeros((4, 3), complex), "complex128, not numbers"),
        (np.array([[None] * 3]), "object, not numbers"),
        ([["a", "b", "c"]], "not numbers"),
        ([[1, 2, 3], [1, 2]], "not an array"),
        ([[10**400, 1, 2]], "not numbers"),
        ({"audio": 1}, "not numbers"),
        (np.broadcast_to(np.float32(0), (given_features.MOST_FRAMES + 1, 3)), "frames, more than"),
        (np.broadcast_to(np.float32(0), (1 << 28, 3)), "too much"),
    ],
)
def test_unusable_arrays(value, match: str):
    refused(value, match)


def test_unusable_files(tmp_path: Path):
    bomb = Bomb(tmp_path / "executed")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(bomb))
    np.save(tmp_path / "object.npy", np.array([bomb], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "object.npz", audio=np.array([bomb], dtype=object))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "cut.npy", FRAMES)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    with (tmp_path / "boast.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 3)})
        file.write(FRAMES.tobytes())
    (tmp_path / "header.npy").write_bytes((tmp_path / "boast.npy").read_bytes().replace(b"}", b" "))
    np.savez(tmp_path / "many.npz", x=FRAMES, y=FRAMES)
    np.save(tmp_path / "plain.npy", FRAMES)
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    (tmp_path / "feature.pkl").write_bytes(pickle.dumps(FRAMES))
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    for name, match in {
        "pickle.npy": "Python objects .* not executed",
        "object.npy": "Python objects .* not executed",
        "object.npz": "Python objects .* not executed",
        "text.npy": "cannot be read",
        "empty.npy": "cannot be read",
        "cut.npy": "cannot be read",
        "boast.npy": "cannot be read",
        "header.npy": "cannot be read",
        "many.npz": "holds x, y, none of them 'audio'",
        "plain.npz": "not an .npz archive",
        "feature.pkl": r"'\.pkl' is not a feature file",
        "bad.safetensors": "cannot be read",
        "missing.npy": "no such audio file",
        ".": "no such audio file",
        "a\0b.npy": "audio file",
    }.items():
        refused(str(tmp_path / name), match)
    refused("/dev/zero", "no such audio file")
    assert not (tmp_path / "executed").exists()
