"""Speech and vision encoders as extractors: what they give is a plain loop's, whatever company a clip is in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("imageio_ffmpeg", reason="the extra msekit[media] is not installed")

from transformers import AutoModel

from msekit.data.extractor import Extractor, check_extractor, other_language
from msekit.errors import MsekitError
from msekit.media import encode_clips, encoder_names
from msekit.media.decode import SAMPLE_RATE, pictures, sound
from msekit.media.encoders import chunks_of, encoder_extractor
from msekit.media.extract import ExtractionPlan, extract, extractor_of, features_of, write_samples
from msekit.media.table import Clip
from msekit.reporter import Reporter
from msekit.testing.drawn_clips import face, voice, write_mp4, write_wav
from msekit.testing.tiny_encoders import write_tiny_encoder

QUIET = Reporter(quiet=True)
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random encoders by their kind."""
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: write_tiny_encoder(folder / kind, kind) for kind in ("hubert", "whisper", "clip", "videomae")}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Clips of different lengths; one is longer than a chunk."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = (0.6, 11.4, 0.6, 0.9)
    made = []
    for number, seconds in enumerate(lengths):
        shown = [face(0.5, x=140 + number)] * max(round(10 * seconds), 6)
        path = write_mp4(folder / f"c{number}.mp4", shown, voice(seconds, rising=True, seed=number))
        made.append(Clip(f"c{number}", path))
    return made


def test_chunks_are_of_ten_seconds_and_a_short_rest_stays_with_the_last() -> None:
    for seconds, lengths in ((4.0, [4.0]), (10.5, [10.5]), (11.0, [10.0, 1.0]), (30.2, [10.0, 10.0, 10.2])):
        chunks = chunks_of(np.zeros(int(seconds * SAMPLE_RATE), np.float32))
        assert [len(chunk) / SAMPLE_RATE for chunk in chunks] == pytest.approx(lengths)


def plain_hubert(path: Path, folder: Path, layers: tuple[int, ...]) -> np.ndarray:
    """What the model gives one chunk after the other, written out."""
    model, rows = AutoModel.from_pretrained(folder).eval(), []
    for chunk in chunks_of(sound(path)):
        scaled = (chunk - chunk.mean()) / np.sqrt(chunk.var() + 1e-7)
        with torch.no_grad():
            states = model(torch.from_numpy(scaled)[None], output_hidden_states=True).hidden_states
        rows.append(sum(states[layer][0] for layer in layers) / len(layers))
    return torch.cat(rows).numpy()


@pytest.mark.parametrize(
    ("layers", "chosen"), [("last4", (0, 1, 2, 3)), ("mean", (1, 2, 3)), ("1-2", (1, 2)), ("3", (3,))]
)
def test_a_speech_encoder_is_a_plain_loop(
    encoders: dict[str, Path], clips: list[Clip], layers: str, chosen: tuple[int, ...]
) -> None:
    extractor = encoder_extractor(str(encoders["hubert"]), "audio", layers)
    for clip in clips[:2]:
        expected_LD = plain_hubert(clip.path, encoders["hubert"], chosen)
        np.testing.assert_allclose(features_of(clip.path, "audio", extractor), expected_LD, **TOLERANCE)


def test_whisper_gives_the_frames_of_the_sound_and_not_of_its_padding(
    encoders: dict[str, Path], clips: list[Clip]
) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    extractor = encoder_extractor(str(encoders["whisper"]), "audio", "last")
    features_LD = features_of(clips[0].path, "audio", extractor)
    samples_S = sound(clips[0].path)
    inputs = WhisperFeatureExtractor.from_pretrained(encoders["whisper"])(
        samples_S, sampling_rate=SAMPLE_RATE, return_tensors="pt"
    )
    model = WhisperModel.from_pretrained(encoders["whisper"]).eval()
    with torch.no_grad():
        expected_TD = model.encoder(inputs["input_features"]).last_hidden_state[0]
    assert len(features_LD) == -(-len(samples_S) // 320)  # 50 a second
    np.testing.assert_allclose(features_LD, expected_TD[: len(features_LD)], **TOLERANCE)


def test_a_vision_encoder_is_a_plain_loop(encoders: dict[str, Path], clips: list[Clip]) -> None:
    from transformers import AutoImageProcessor, CLIPModel

    pooled = encoder_extractor(str(encoders["clip"]), "vision")
    mean = encoder_extractor(str(encoders["clip"]), "vision", "mean", one_vector=True)
    assert pooled.settings["layers"] == "pooled"
    processor = AutoImageProcessor.from_pretrained(encoders["clip"])
    model = CLIPModel.from_pretrained(encoders["clip"]).eval()
    shown = list(pictures(clips[0].path, 4.0))
    expected, states = [], []
    for picture in shown:
        inputs = processor(images=picture, return_tensors="pt")
        with torch.no_grad():
            output = model.vision_model(**inputs, output_hidden_states=True)
            expected.append(model.visual_projection(output.pooler_output)[0].numpy())
        states.append(torch.stack(output.hidden_states[1:]).mean(dim=(0, 2))[0].numpy())
    np.testing.assert_allclose(features_of(clips[0].path, "vision", pooled), expected, **TOLERANCE)
    np.testing.assert_allclose(features_of(clips[0].path, "vision", mean), [np.mean(states, axis=0)], **TOLERANCE)


def test_moving_pictures_are_read_in_windows(encoders: dict[str, Path], clips: list[Clip]) -> None:
    extractor = encoder_extractor(str(encoders["videomae"]), "vision")
    assert extractor.settings["layers"] == "last4"
    frames = [len(features_of(clip.path, "vision", extractor)) for clip in clips[:2]]
    shown = [len(list(pictures(clip.path, 4.0))) for clip in clips[:2]]
    assert frames == [-(-count // 16) for count in shown]
    with pytest.raises(MsekitError, match="moving pictures"):
        encoder_extractor(str(encoders["videomae"]), "vision", crop="largest")


@pytest.mark.parametrize(("modality", "kind"), [("audio", "hubert"), ("audio", "whisper"), ("vision", "clip")])
def test_a_batch_of_many_gives_what_each_clip_gives_alone(
    encoders: dict[str, Path], clips: list[Clip], modality: str, kind: str
) -> None:
    import threading

    extractor = encoder_extractor(str(encoders[kind]), modality, "mean")
    some = clips if kind != "whisper" else clips[2:]
    together = dict(encode_clips.encoded_clips(some, modality, extractor, 2, threading.Event()))
    assert [clip.id for clip in together] == [clip.id for clip in some]
    for clip, features_LD in together.items():
        np.testing.assert_allclose(features_LD, features_of(clip.path, modality, extractor), **TOLERANCE)


def folder_of(output: Path) -> dict[str, bytes]:
    """Every feature file and the samples' table by name."""
    files = [*output.rglob("*.safetensors"), output / "samples.jsonl"]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_killed_and_resumed_is_undisturbed_and_bad_clips_are_named(
    encoders: dict[str, Path], clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    silent = Clip("silent", write_mp4(tmp_path / "silent.mp4", [face(0.5)] * 6, None))
    some = [clips[0], Clip("broken", broken), silent, clips[2], clips[3]]
    plan = ExtractionPlan(
        encoder_extractor(str(encoders["hubert"]), "audio", "mean"), encoder_extractor(str(encoders["clip"]), "vision")
    )
    whole = extract(some, plan, tmp_path / "whole", 2, QUIET)
    assert write_samples(some, whole, tmp_path / "whole") == 4
    assert [result.id for result in whole if result.problems] == ["broken", "silent"]
    assert whole[2].problems == {"audio": "the clip has no sound"}

    decoded = encode_clips.decoded

    def dies(path: Path, modality: str, extractor: Extractor) -> list[object]:
        if path == some[4].path and modality == "vision":
            raise KeyboardInterrupt
        return decoded(path, modality, extractor)

    monkeypatch.setattr(encode_clips, "decoded", dies)
    with pytest.raises(KeyboardInterrupt):
        extract(some, plan, tmp_path / "cut", 1, QUIET)
    monkeypatch.undo()
    resumed = extract(some, plan, tmp_path / "cut", 1, QUIET)
    write_samples(some, resumed, tmp_path / "cut")
    assert folder_of(tmp_path / "cut") == folder_of(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "cut" / "samples.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["id", "text", "audio", "vision"]


@pytest.mark.slow
def test_an_encoder_beside_the_pool(encoders: dict[str, Path], clips: list[Clip], tmp_path: Path) -> None:
    pytest.importorskip("mediapipe", reason="no wheel for this Python")
    from msekit.media.vision import vision_extractor

    plan = ExtractionPlan(encoder_extractor(str(encoders["hubert"]), "audio", "mean"), vision_extractor("largest"))
    results = extract([clips[0], clips[2]], plan, tmp_path, 1, QUIET)
    assert [list(result.frames) for result in results] == [["audio", "vision"]] * 2
    record = extractor_of(tmp_path / "audio" / "c0.safetensors")
    assert record is not None
    assert record == plan.audio


def test_the_identity_is_of_weights_layers_and_cuts_and_not_of_the_place(
    encoders: dict[str, Path], clips: list[Clip], tmp_path: Path
) -> None:
    first = encoder_extractor(str(encoders["hubert"]), "audio", "mean")
    shutil.copytree(encoders["hubert"], tmp_path / "hubert")
    moved = encoder_extractor(str(tmp_path / "hubert"), "audio", "mean")
    check_extractor("audio", first, moved)
    with pytest.raises(MsekitError, match="trained on audio features of hubert"):
        check_extractor("audio", first, encoder_extractor(str(encoders["hubert"]), "audio", "last4"))
    weights = tmp_path / "hubert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    encoder_names.digest_of.cache_clear()
    with pytest.raises(MsekitError, match="files are others"):
        features_of(clips[0].path, "audio", moved)
    shutil.rmtree(tmp_path / "hubert")
    with pytest.raises(MsekitError, match="not where it was"):
        features_of(clips[0].path, "audio", moved)
    assert ExtractionPlan(first, None).is_of(json.loads(json.dumps(ExtractionPlan(moved, None).record())))
    assert not ExtractionPlan(first, None).is_of(ExtractionPlan(None, None).record())


@pytest.mark.parametrize(
    ("name", "layers", "complaint"),
    [
        ("hubert-bse", None, "Did you mean hubert-base"),
        ("clip-large", None, "for vision, not for audio"),
        ("{hubert}", "last9", "not among the encoder's 3 layers"),
        ("{hubert}", "2-7", "not among the encoder's 3 layers"),
        ("{hubert}", "pooled", "cannot be read"),
        ("{hubert}", "some", "cannot be read"),
        ("{empty}", None, "no config.json"),
        ("{code}", None, "cannot be loaded"),
    ],
)
def test_what_cannot_be_is_said_before_clips_are_read(
    encoders: dict[str, Path], tmp_path: Path, name: str, layers: str | None, complaint: str
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(encoders["hubert"], tmp_path / "code")
    config = json.loads((tmp_path / "code" / "config.json").read_text())
    config |= {"model_type": "stranger", "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}}
    (tmp_path / "code" / "config.json").write_text(json.dumps(config))
    (tmp_path / "code" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    name = name.format(hubert=encoders["hubert"], empty=tmp_path / "empty", code=tmp_path / "code")
    with pytest.raises(MsekitError, match=complaint):
        encoder_extractor(name, "audio", layers)
    assert not (tmp_path / "ran").exists()


def test_english_ears_on_a_chinese_set_are_warned_of() -> None:
    english = Extractor(name="hubert-large", version="1", settings={"layers": "last4", "speech": "en"})
    many = Extractor(name="whisper-base", version="1", settings={"layers": "last4"})
    assert "English speech alone, and this set is Chinese" in str(other_language({"audio": english}, "zh"))
    assert other_language({"audio": english}, "en") is None
    assert other_language({"audio": many}, "zh") is None


def test_named_encoders_are_pinned() -> None:
    for name, entry in encoder_names.ENCODERS.items():
        assert len(entry.revision) == 40, name
        assert entry.hub.count("/") == 1


def test_an_encoder_from_the_hub_is_fetched_once(hub, encoders: dict[str, Path], clips: list[Clip]) -> None:
    files = {path.name: path.read_bytes() for path in encoders["hubert"].iterdir()}
    hub.add("lab/ears", {**files, "README.md": b"words", "modeling.py": b"code"})
    extractor = encoder_extractor("lab/ears", "audio", "mean")
    assert len(extractor.version) == 40
    asked = len(hub.requests)
    features_LD = features_of(clips[0].path, "audio", extractor)
    assert len(hub.requests) == asked
    local = encoder_extractor(str(encoders["hubert"]), "audio", "mean")
    assert np.array_equal(features_LD, features_of(clips[0].path, "audio", local))


@pytest.mark.slow
def test_a_clip_predicts_what_its_extracted_features_predict(
    encoders: dict[str, Path], clips: list[Clip], tmp_path: Path, tiny
) -> None:
    import yaml
    from typer.testing import CliRunner

    from msekit.cli.main import app
    from msekit.inference.load import load_run

    rows = [
        Clip(f"s{number}", write_wav(tmp_path / f"s{number}.wav", voice(0.5, number % 2 == 0, seed=number)), "Well.",
             "glad" if number % 2 else "sad", ("train", "train", "valid", "test")[number // 2 % 4])
        for number in range(16)
    ]  # fmt: skip
    plan = ExtractionPlan(encoder_extractor(str(encoders["hubert"]), "audio", "mean"), None)
    out = tmp_path / "set"
    write_samples(rows, extract(rows, plan, out, 1, QUIET), out)
    described = {"name": "set", "task": "erc", "layout": "folder", "labels": ["glad", "sad"], "source": "."}
    (out / "set.yaml").write_text(yaml.safe_dump(described | {"extractors": {"audio": plan.record()["audio"]}}))
    options = ["--backbone", "tiny-llama", "--dataset", str(out / "set.yaml"), "--epochs", "1", "--recipe", "kit"]
    done = CliRunner().invoke(
        app, ["train", *options, "--output", str(tmp_path / "run"), "--set", "evaluation.bootstrap=0"]
    )
    assert done.exit_code == 0, done.output
    (config,) = (tmp_path / "run").glob("*/config.yaml")
    assert yaml.safe_load(config.read_text())["data"]["trim"] == 0.0  # nothing stands still in an encoder's states
    plug_in = load_run(tmp_path / "run")
    assert plug_in.description.dataset.extractors["audio"] == plan.audio
    heard = plug_in.predict("Well.", audio=clips[1].path)
    again = extract([clips[1]], plan, tmp_path / "new", 1, QUIET)
    assert again[0].frames["audio"] > 500
    assert heard.scores == plug_in.predict("Well.", audio=tmp_path / "new" / "audio" / "c1.safetensors").scores


@pytest.mark.slow
def test_pictures_are_cut_to_the_face_and_those_without_one_are_masked(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("mediapipe", reason="no wheel for this Python")
    shown = [face(0.5)] * 12 + [np.full_like(face(0.5), 128)] * 12
    film = write_mp4(tmp_path / "film.mp4", shown, None)
    whole = features_of(film, "vision", encoder_extractor(str(encoders["clip"]), "vision"))
    extractor = encoder_extractor(str(encoders["clip"]), "vision", crop="largest")
    assert extractor.settings["crop"].startswith("largest ")
    cut = features_of(film, "vision", extractor)
    assert cut.shape == whole.shape
    assert np.isfinite(cut[0]).all()
    assert np.isnan(cut[-1]).all()
    assert not np.allclose(cut[0], whole[0], atol=1e-3)
    mean = encoder_extractor(str(encoders["clip"]), "vision", crop="largest", one_vector=True)
    found = np.isfinite(cut).all(axis=1)
    np.testing.assert_allclose(features_of(film, "vision", mean)[0], cut[found].mean(axis=0), **TOLERANCE)
