"""MAG, CHFN and the plain adapters: their equations in NumPy, their counts, and the promises every adapter keeps."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from msekit.adapters.ablations import ABLATIONS, Ablation
from msekit.adapters.mag import aligned
from msekit.adapters.sizes import ADAPTERS, AdapterName, parameter_count
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.make_adapter import make_adapter
from msekit.settings.config import AdapterConfig

WIDTH = 32
FROM_THE_TEXT = [name for name, entry in ADAPTERS.items() if not entry.has_opinion]
"""Those that read the text's embeddings and the frames alone; test_mse_states.py has the other."""


def made(name, audio=10, vision=7, ablate=None, conditioning="paper"):
    torch.manual_seed(0)
    config = AdapterConfig(
        name=name, audio_hidden=12, vision_hidden=5, hidden=16, ablate=ablate, conditioning=conditioning
    )
    return make_adapter(config, WIDTH, audio, vision, answers=DATASETS["meld"], text_scale=0.1)


def inputs(batch=3, text=6, audio=9, vision=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([text, 2, 4])[:batch]
    return {
        "text_embeddings": torch.randn(batch, text, WIDTH, generator=generator),
        "text_mask": (torch.arange(text)[None] < lengths[:, None]).long(),
        "audio": torch.randn(batch, audio, 10, generator=generator),
        "audio_lengths": torch.tensor([audio, 1, 4][:batch]),
        "vision": torch.randn(batch, vision, 7, generator=generator),
        "vision_lengths": torch.tensor([2, vision, 1][:batch]),
    }


def real_text(outputs, batch):
    """What a rewriting adapter gives at real tokens; pseudo tokens as they are."""
    if outputs.shape[1] != batch["text_mask"].shape[1]:
        return outputs
    return outputs * batch["text_mask"][..., None]


def test_the_tables_hold_the_names_that_settings_accept():
    assert set(ADAPTERS) == set(get_args(AdapterName))
    assert set(ABLATIONS) == set(get_args(Ablation))


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_table_tells_what_the_module_does(name):
    adapter, entry = made(name), ADAPTERS[name]
    assert entry.reads_features == (adapter.audio_dim > 0 and adapter.vision_dim > 0)
    assert entry.adds_tokens == (not adapter.rewrites_text) == (adapter.pseudo_tokens > 0)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(("audio", "vision"), [(10, 7), (10, 0), (0, 7), (0, 0)])
def test_the_count_without_torch_equals_the_module(name, audio, vision):
    built = sum(p.numel() for p in made(name, audio, vision).parameters())
    layers = len(AdapterConfig().depths)
    assert parameter_count(name, WIDTH, audio, vision, 12, 5, 4, 16, state_layers=layers, classes=7) == built


@pytest.mark.parametrize("ablate", ABLATIONS)
@pytest.mark.parametrize(("audio", "vision"), [(10, 7), (10, 0)])
def test_the_count_of_an_ablation_equals_the_module(ablate, audio, vision):
    built = sum(p.numel() for p in made("mse", audio, vision, ablate).parameters())
    assert parameter_count("mse", WIDTH, audio, vision, 12, 5, 4, 16, ablate) == built


@pytest.mark.parametrize("name", FROM_THE_TEXT)
def test_padding_changes_nothing(name):
    adapter, batch = made(name), inputs()
    padded = dict(batch)
    for key, amount in (("audio", 4), ("vision", 3), ("text_embeddings", 2)):
        noise = torch.full((3, amount, batch[key].shape[2]), 7.0)
        padded[key] = torch.cat([batch[key], noise], dim=1)
    padded["text_mask"] = torch.cat([batch["text_mask"], torch.zeros(3, 2, dtype=torch.long)], dim=1)
    plain, more = (real_text(adapter(**inputs_), inputs_) for inputs_ in (batch, padded))
    assert torch.allclose(plain, more[:, : plain.shape[1]], atol=1e-6)


@pytest.mark.parametrize("name", FROM_THE_TEXT)
def test_each_sample_alone_gives_the_same(name):
    adapter, batch = made(name), inputs()
    together = adapter(**batch)
    for row in range(3):
        alone = adapter(**{key: tensor[row : row + 1] for key, tensor in batch.items()})
        assert torch.allclose(together[row : row + 1], alone, atol=1e-6)


@pytest.mark.parametrize("name", FROM_THE_TEXT)
def test_an_absent_modality_drops_out(name):
    adapter, batch = made(name), inputs()
    batch["audio_lengths"] = torch.zeros(3, dtype=torch.long)
    without = adapter(**(batch | {"audio": None, "audio_lengths": None}))
    assert torch.allclose(adapter(**batch), without, atol=1e-7)
    assert torch.allclose(adapter(**(batch | {"audio": torch.zeros(3, 0, 10)})), without, atol=1e-7)


@pytest.mark.parametrize("name", ["mag", "chfn", "linear", "mlp"])
@pytest.mark.parametrize("modality", ["audio", "vision"])
def test_both_modalities_are_heard_and_give_gradients(name, modality):
    adapter, batch = made(name), inputs()
    changed = adapter(**(batch | {modality: batch[modality] + 1}))
    assert (changed - adapter(**batch)).abs().max() > 1e-3
    changed.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())


@pytest.mark.parametrize("name", FROM_THE_TEXT)
def test_an_empty_text_and_no_features_are_finite(name):
    adapter, batch = made(name), inputs()
    batch |= {"audio_lengths": torch.zeros(3, dtype=torch.long), "vision_lengths": torch.zeros(3, dtype=torch.long)}
    outputs = adapter(**batch)
    outputs.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in adapter.parameters())
    empty = batch | {"text_embeddings": torch.zeros(3, 0, WIDTH), "text_mask": torch.zeros(3, 0, dtype=torch.long)}
    assert adapter(**empty).isfinite().all()


def numpy_windows(frames: np.ndarray, tokens: int) -> np.ndarray:
    """Token i of n takes the frames in [i L/n, (i+1) L/n), at least one."""
    edges = [
        (i * len(frames) // tokens, max((i + 1) * len(frames) // tokens, i * len(frames) // tokens + 1))
        for i in range(tokens)
    ]
    return np.stack([frames[start:stop].mean(axis=0) for start, stop in edges])


def test_frames_are_shared_out_over_the_tokens():
    batch = inputs(audio=17)
    batch["audio_lengths"] = torch.tensor([17, 1, 3])
    frames = aligned(batch["audio"], batch["audio_lengths"], batch["text_mask"]).numpy()
    for row, (length, tokens) in enumerate(((17, 6), (1, 2), (3, 4))):
        expected = numpy_windows(batch["audio"][row, :length].numpy(), tokens)
        assert np.abs(frames[row, :tokens] - expected).max() <= 1e-6
        assert not frames[row, tokens:].any()


def test_frames_are_shared_out_over_the_utterance_that_stands_behind_its_context():
    batch = inputs(audio=4)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    frames = aligned(batch["audio"], torch.tensor([4, 3, 4]), mask).numpy()
    for row, (length, own) in enumerate(((4, slice(2, 6)), (3, slice(1, 3)), (4, slice(0, 5)))):
        expected = numpy_windows(batch["audio"][row, :length].numpy(), own.stop - own.start)
        assert np.abs(frames[row, own] - expected).max() <= 1e-6
        assert not frames[row, : own.start].any()
        assert not frames[row, own.stop :].any()


def bounded(shift: np.ndarray, word: np.ndarray) -> np.ndarray:
    return shift * min(1.0, np.linalg.norm(word) / max(np.linalg.norm(shift), 1e-6))


def test_mag_equals_its_equations_in_numpy():
    adapter, batch = made("mag"), inputs()
    weights = {name: tensor.double().numpy() for name, tensor in adapter.state_dict().items()}
    outputs = adapter(**batch).detach().numpy()
    for row in range(3):
        tokens = int(batch["text_mask"][row].sum())
        windows = {
            name: numpy_windows(batch[name][row, : batch[f"{name}_lengths"][row]].double().numpy(), tokens)
            for name in ("audio", "vision")
        }
        for position in range(tokens):
            word = batch["text_embeddings"][row, position].double().numpy()
            shift = np.zeros(WIDTH)
            for name, frames in windows.items():
                joined = np.concatenate([word, frames[position]])
                gate = np.maximum(weights[f"{name}.gate.weight"] @ joined + weights[f"{name}.gate.bias"], 0)
                moved = weights[f"{name}.displacement.weight"] @ frames[position]
                shift = shift + gate * (moved + weights[f"{name}.displacement.bias"])
            summed = word + bounded(shift, word)
            normal = (summed - summed.mean()) / np.sqrt(summed.var() + 1e-5)
            expected = normal * weights["norm.weight"] + weights["norm.bias"]
            assert np.abs(outputs[row, position] - expected).max() <= 1e-5


def test_chfn_equals_its_equations_in_numpy():
    adapter, batch = made("chfn"), inputs()
    weights = {name: tensor.double().numpy() for name, tensor in adapter.state_dict().items()}
    outputs = adapter(**batch).detach().numpy()
    for row in range(3):
        frames = [np.zeros((1, WIDTH))]
        for name in ("audio", "vision"):
            real = batch[name][row, : batch[f"{name}_lengths"][row]].double().numpy()
            frames.append(real @ weights[f"{name}_projection.weight"].T + weights[f"{name}_projection.bias"])
        joined = np.concatenate(frames)
        for position in range(int(batch["text_mask"][row].sum())):
            word = batch["text_embeddings"][row, position].double().numpy()
            match = (joined @ weights["key.weight"].T) @ (weights["query.weight"] @ word) / np.sqrt(WIDTH)
            share = np.exp(match - match.max())
            shift = (share / share.sum()) @ (joined @ weights["value.weight"].T)
            assert np.abs(outputs[row, position] - word - bounded(shift, word)).max() <= 1e-5


@pytest.mark.parametrize("name", ["mag", "chfn"])
def test_a_shift_is_at_most_as_long_as_its_word(name):
    adapter, batch = made(name), inputs()
    adapter.norm = torch.nn.Identity()
    batch["audio"] = batch["audio"] * 1000
    shift = adapter(**batch) - batch["text_embeddings"]
    assert (shift.norm(dim=-1) <= batch["text_embeddings"].norm(dim=-1) * 1.0001).all()


def test_mag_starts_at_the_size_of_the_backbones_words():
    assert made("mag", conditioning="unit").norm.weight[0].item() == pytest.approx(0.1)
    assert made("mag", conditioning="paper").norm.weight[0] == 1


def test_the_pooled_adapters_read_the_average_frame():
    batch = inputs()
    for name in ("linear", "mlp"):
        adapter = made(name)
        means = [batch[m][0, : batch[f"{m}_lengths"][0]].mean(dim=0) for m in ("audio", "vision")]
        summed = adapter.audio(means[0]) + adapter.vision(means[1])
        if name == "mlp":
            token = adapter.projector.to_text_dim(torch.nn.functional.gelu(summed))
            expected = adapter.projector.expand(token[:, None]).T
        else:
            expected = summed.view(4, WIDTH)
        assert torch.allclose(adapter(**batch)[0], expected, atol=1e-6)


# ---- ablations of Table 4 ----


def test_without_tgm_the_projected_modalities_are_added():
    adapter, batch = made("mse", ablate="no-tgm"), inputs()
    assert adapter.text_guide_mixer is None
    vectors = [getattr(adapter, f"{m}_encoder")(batch[m], batch[f"{m}_lengths"]) for m in ("audio", "vision")]
    expected = adapter.projector(adapter.multi_scale_fusion(vectors[0] + vectors[1]))
    assert torch.allclose(adapter(**batch), expected, atol=1e-6)


def test_without_text_nothing_depends_on_it():
    adapter, batch = made("mse", ablate="no-text"), inputs()
    empty = batch | {"text_embeddings": torch.zeros(3, 0, WIDTH), "text_mask": torch.zeros(3, 0, dtype=torch.long)}
    assert torch.equal(adapter(**batch), adapter(**empty))


def test_without_msf_the_mix_goes_to_the_projector():
    adapter, batch = made("mse", ablate="no-msf"), inputs()
    guide = adapter.text_guide_mixer.guide(batch["text_embeddings"], batch["text_mask"])
    vectors = [getattr(adapter, f"{m}_encoder")(batch[m], batch[f"{m}_lengths"]) for m in ("audio", "vision")]
    assert torch.allclose(adapter(**batch), adapter.projector((vectors[0] + vectors[1]) * guide), atol=1e-6)


@pytest.mark.parametrize(("ablate", "kept"), [("no-audio", "vision"), ("no-vision", "audio")])
def test_without_a_modality_there_is_no_encoder(ablate, kept):
    adapter = made("mse", ablate=ablate)
    encoders = {name.split("_")[0] for name, _ in adapter.named_parameters() if "encoder" in name}
    assert encoders == {kept}
    assert getattr(adapter, f"{kept}_dim") > 0


def test_without_audio_and_vision_random_states_are_projected():
    adapter, batch = made("mse", ablate="no-audio-vision"), inputs()
    assert (adapter.audio_dim, adapter.vision_dim) == (12, 5)
    states = {"audio": torch.randn(3, 1, 12), "vision": torch.randn(3, 1, 5)}
    ones = torch.ones(3, dtype=torch.long)
    batch |= states | {"audio_lengths": ones, "vision_lengths": ones}
    guide = adapter.text_guide_mixer.guide(batch["text_embeddings"], batch["text_mask"])
    mixed = sum(getattr(adapter, f"{m}_encoder").projection(states[m][:, 0]) * guide for m in states)
    assert torch.allclose(adapter(**batch), adapter.projector(adapter.multi_scale_fusion(mixed)), atol=1e-6)


def test_rivals_have_no_ablations():
    from msekit.settings.resolve import resolve

    settings = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": "x", "adapter": {"name": "mag"}}
    with pytest.raises(MsekitError, match="Table 4"):
        resolve(settings, task="erc", overrides=["adapter.ablate=no-tgm"])
