"""The adapter against the authors' outputs, an independent NumPy statement of the equations, and its own promises."""

from __future__ import annotations

from math import erf
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from msekit.adapters.mse import MSEAdapter
from msekit.adapters.sizes import ADAPTERS, AdapterSpec, parameter_count

TOLERANCE = 1e-5


def small(conditioning="paper", audio=10, vision=7, seed=0):
    torch.manual_seed(seed)
    adapter = MSEAdapter(96, audio, vision, 12, 5, 4, conditioning=conditioning)
    if conditioning == "centred":
        adapter.text_guide_mixer.text_center.normal_()
    return adapter


def inputs(batch=3, text=6, audio=9, vision=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        "text_embeddings": torch.randn(batch, text, 96, generator=generator),
        "text_mask": torch.ones(batch, text, dtype=torch.long),
        "audio": torch.randn(batch, audio, 10, generator=generator),
        "audio_lengths": torch.tensor([audio, 1, 4][:batch]),
        "vision": torch.randn(batch, vision, 7, generator=generator),
        "vision_lengths": torch.tensor([2, vision, 1][:batch]),
    }


@pytest.fixture
def fixture_tensors(test_data: Path):
    return load_file(test_data / "adapter" / "expected.safetensors")


def published_adapter(tensors) -> MSEAdapter:
    """The fixture's weights, named by the paper's symbols, in our parameter tree."""
    names = {}
    for modality in ("audio", "vision"):
        for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            names[f"{modality}_encoder.lstm.{part}"] = tensors[f"{modality}_lstm.{part}"]
        names[f"{modality}_encoder.projection.weight"] = tensors[f"W_{modality}"]
        names[f"{modality}_encoder.projection.bias"] = tensors[f"b_{modality}"]
    names["text_guide_mixer.text_projection.weight"] = tensors["W_text"]
    names["text_guide_mixer.text_projection.bias"] = tensors["b_text"]
    for number, scale in enumerate((8, 16, 32)):
        for layer, symbol in ((0, "1"), (2, "2")):
            names[f"multi_scale_fusion.mlps.{number}.{layer}.weight"] = tensors[f"msf.k{scale}.W{symbol}"]
            names[f"multi_scale_fusion.mlps.{number}.{layer}.bias"] = tensors[f"msf.k{scale}.b{symbol}"]
    k8, k32, k16 = tensors["msf.conv.weight_k8_k32_k16"]
    names["multi_scale_fusion.mix.weight"] = torch.stack([k8, k16, k32]).reshape(1, 3, 1)
    names["multi_scale_fusion.mix.bias"] = tensors["msf.conv.bias"]
    for part, symbol in (("to_text_dim", "3"), ("expand", "4")):
        names[f"projector.{part}.weight"] = tensors[f"W{symbol}"]
        names[f"projector.{part}.bias"] = tensors[f"b{symbol}"]
    adapter = MSEAdapter(96, 10, 7, 12, 5, 4)
    adapter.load_state_dict(names)
    return adapter


def fixture_inputs(tensors):
    batch = {name[3:]: tensor for name, tensor in tensors.items() if name.startswith("in.")}
    return batch | {"text_mask": torch.ones(batch["text_embeddings"].shape[:2], dtype=torch.long)}


def test_equals_the_authors_modules(fixture_tensors):
    adapter = published_adapter(fixture_tensors)
    batch = fixture_inputs(fixture_tensors)
    audio = adapter.audio_encoder(batch["audio"], batch["audio_lengths"])
    vision = adapter.vision_encoder(batch["vision"], batch["vision_lengths"])
    guide = adapter.text_guide_mixer.guide(batch["text_embeddings"], batch["text_mask"])
    mixed = adapter.text_guide_mixer(audio, guide) + adapter.text_guide_mixer(vision, guide)
    for computed, name in ((audio, "audio_projected"), (vision, "vision_projected"), (mixed, "tgm_sum")):
        assert (computed - fixture_tensors[f"out.{name}"]).abs().max() <= TOLERANCE, name
    assert (adapter(**batch) - fixture_tensors["out.pseudo_tokens"]).abs().max() <= TOLERANCE


def numpy_adapter(weights: dict[str, np.ndarray], batch: dict[str, np.ndarray], conditioning: str) -> np.ndarray:
    """The paper's equations, sample by sample and step by step, in float64."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def lstm_state(prefix, frames):
        size = weights[f"{prefix}.weight_hh_l0"].shape[1]
        state, cell = np.zeros(size), np.zeros(size)
        for frame in frames:
            gates = weights[f"{prefix}.weight_ih_l0"] @ frame + weights[f"{prefix}.bias_ih_l0"]
            gates = gates + weights[f"{prefix}.weight_hh_l0"] @ state + weights[f"{prefix}.bias_hh_l0"]
            i, f, g, o = np.split(gates, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(cell)
        return state

    def linear(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    gelu = np.vectorize(lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))))
    outputs = []
    for row in range(len(batch["audio"])):
        text = batch["text_embeddings"][row][batch["text_mask"][row] == 1].mean(axis=0)
        if conditioning == "centred":
            text = text - weights["text_guide_mixer.text_center"]
        if conditioning != "paper":
            text = text / np.sqrt((text**2).mean())
        guide = linear("text_guide_mixer.text_projection", text)
        mixed = np.zeros_like(guide)
        for modality in ("audio", "vision"):
            frames = batch[modality][row][: batch[f"{modality}_lengths"][row]]
            vector = linear(f"{modality}_encoder.projection", lstm_state(f"{modality}_encoder.lstm", frames))
            mixed = mixed + vector * guide
        if conditioning != "paper":
            mixed = (mixed - mixed.mean()) / np.sqrt(mixed.var() + 1e-5)
        scales = [
            linear(f"multi_scale_fusion.mlps.{i}.2", gelu(linear(f"multi_scale_fusion.mlps.{i}.0", mixed)))
            for i in range(3)
        ]
        kernel = weights["multi_scale_fusion.mix.weight"].reshape(3)
        fused = sum(k * m for k, m in zip(kernel, scales, strict=True)) + weights["multi_scale_fusion.mix.bias"]
        token = linear("projector.to_text_dim", fused)
        expand = weights["projector.expand.weight"].reshape(-1)
        outputs.append(expand[:, None] * token[None] + weights["projector.expand.bias"][:, None])
    return np.stack(outputs)


@pytest.mark.parametrize("conditioning", ["paper", "unit", "centred"])
def test_equals_the_equations_in_numpy(conditioning):
    adapter, batch = small(conditioning), inputs()
    weights = {name: tensor.double().numpy() for name, tensor in adapter.state_dict().items()}
    expected = numpy_adapter(weights, {name: tensor.numpy() for name, tensor in batch.items()}, conditioning)
    assert np.abs(adapter(**batch).detach().numpy() - expected).max() <= TOLERANCE


@pytest.mark.parametrize("conditioning", ["paper", "unit", "centred"])
def test_padding_changes_nothing(conditioning):
    adapter, batch = small(conditioning), inputs()
    padded = dict(batch)
    for name, amount in (("audio", 4), ("vision", 3), ("text_embeddings", 2)):
        noise = torch.full((3, amount, batch[name].shape[2]), 7.0)
        padded[name] = torch.cat([batch[name], noise], dim=1)
    padded["text_mask"] = torch.cat([batch["text_mask"], torch.zeros(3, 2, dtype=torch.long)], dim=1)
    assert torch.allclose(adapter(**batch), adapter(**padded), atol=1e-6)


def test_each_sample_alone_gives_the_same():
    adapter, batch = small("unit"), inputs()
    together = adapter(**batch)
    for row in range(3):
        alone = adapter(**{name: tensor[row : row + 1] for name, tensor in batch.items()})
        assert torch.allclose(together[row : row + 1], alone, atol=1e-6)


def test_sequences_of_length_one():
    adapter, batch = small(), inputs(audio=1, vision=1, text=1)
    batch["audio_lengths"] = batch["vision_lengths"] = torch.ones(3, dtype=torch.long)
    assert adapter(**batch).shape == (3, 4, 96)


@pytest.mark.parametrize("conditioning", ["paper", "unit", "centred"])
def test_an_absent_modality_drops_out_of_the_mix(conditioning):
    adapter, batch = small(conditioning), inputs()
    batch["audio_lengths"] = torch.zeros(3, dtype=torch.long)
    without = adapter(**(batch | {"audio": None, "audio_lengths": None}))
    assert torch.equal(adapter(**batch), without)
    no_frames = adapter(**(batch | {"audio": torch.zeros(3, 0, 10)}))
    assert torch.equal(no_frames, without)


def test_no_modality_at_all_is_finite_and_trains():
    adapter, batch = small("unit"), inputs()
    batch["audio_lengths"] = batch["vision_lengths"] = torch.zeros(3, dtype=torch.long)
    tokens = adapter(**batch)
    assert tokens.isfinite().all()
    tokens.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in adapter.parameters())


def test_an_empty_text_is_finite():
    for conditioning in ("paper", "unit", "centred"):
        adapter, batch = small(conditioning), inputs()
        batch["text_mask"] = torch.zeros(3, 6, dtype=torch.long)
        assert adapter(**batch).isfinite().all()


def test_a_set_without_a_modality_builds_no_encoder():
    adapter = MSEAdapter(96, 10, 0, 12, 5, 4)
    assert adapter.vision_encoder is None
    assert not any(name.startswith("vision") for name, _ in adapter.named_parameters())
    batch = inputs() | {"vision": None, "vision_lengths": None}
    assert adapter(**batch).shape == (3, 4, 96)


@pytest.mark.parametrize(
    "sizes", [(2048, 74, 35, 64, 32, 4), (4096, 25, 177, 64, 64, 4), (576, 40, 0, 64, 32, 4), (64, 0, 0, 8, 8, 2)]
)
def test_the_count_without_torch_equals_the_module(sizes):
    adapter = MSEAdapter(*sizes)
    assert sum(p.numel() for p in adapter.parameters()) == parameter_count("mse", *sizes)
    assert all(p.requires_grad for p in adapter.parameters())


def test_unit_conditioning_makes_the_pseudo_tokens_hear_the_audio():
    """At initialisation, text means as small as an LLM's drown the audio under `paper` and do not under `unit`."""
    batch = inputs()
    batch["text_embeddings"] = batch["text_embeddings"] * 0.05
    spread = {}
    for conditioning in ("paper", "unit"):
        adapter = small(conditioning)
        tokens = adapter(**batch)
        spread[conditioning] = (tokens - tokens.mean(dim=0)).square().mean().sqrt().item()
    assert spread["unit"] > 20 * spread["paper"]


def test_the_text_center_is_saved_but_never_trained():
    adapter = small("centred")
    assert "text_guide_mixer.text_center" in adapter.state_dict()
    assert not any(name.endswith("text_center") for name, _ in adapter.named_parameters())
    assert "text_guide_mixer.text_center" not in small("unit").state_dict()


def learned(seed=0):
    torch.manual_seed(seed)
    adapter = MSEAdapter(96, 10, 7, 12, 5, 4, conditioning="unit", learned_absent=True)
    for name, vector in adapter.absent.items():
        vector.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    return adapter


def mixed_presence():
    """Three samples: all there, no audio, no vision."""
    batch = inputs()
    batch["audio_lengths"], batch["vision_lengths"] = torch.tensor([9, 0, 4]), torch.tensor([5, 3, 0])
    return batch


def test_learned_vectors_start_as_if_they_were_not_there():
    torch.manual_seed(0)
    plain = MSEAdapter(96, 10, 7, 12, 5, 4, conditioning="unit")
    torch.manual_seed(0)
    adapter = MSEAdapter(96, 10, 7, 12, 5, 4, conditioning="unit", learned_absent=True)
    assert torch.equal(adapter(**mixed_presence()), plain(**mixed_presence()))


def test_a_learned_vector_takes_the_projected_vectors_place():
    adapter, batch = learned(), mixed_presence()
    audio = adapter.audio_encoder(batch["audio"], batch["audio_lengths"])
    vision = adapter.vision_encoder(batch["vision"], batch["vision_lengths"])
    audio[1], vision[2] = adapter.absent["audio"], adapter.absent["vision"]
    guide = adapter.text_guide_mixer.guide(batch["text_embeddings"], batch["text_mask"])
    mixed = torch.nn.functional.layer_norm((audio + vision) * guide, (256,))
    expected = adapter.projector(adapter.multi_scale_fusion(mixed))
    assert torch.allclose(adapter(**batch), expected, atol=1e-6)
    withheld = batch | {"vision": None, "vision_lengths": None}
    absent = batch | {"vision_lengths": torch.zeros(3, dtype=torch.long)}
    assert torch.allclose(adapter(**withheld), adapter(**absent), atol=1e-6)


def test_learned_vectors_leave_padding_and_batches_alone():
    adapter, batch = learned(), mixed_presence()
    together = adapter(**batch)
    for row in range(3):
        alone = adapter(**{name: tensor[row : row + 1] for name, tensor in batch.items()})
        assert torch.allclose(together[row : row + 1], alone, atol=1e-6)
    padded = batch | {"audio": torch.cat([batch["audio"], torch.full((3, 4, 10), 7.0)], dim=1)}
    assert torch.allclose(adapter(**padded), together, atol=1e-6)


@pytest.mark.parametrize("audio", [[9, 9, 9], [0, 0, 0], [9, 0, 9]])
@pytest.mark.parametrize("policy", ["zero", "learned"])
def test_every_parameter_gets_a_gradient_whoever_is_absent(policy, audio):
    """DDP waits for all of them: what is not used must get zeros, not nothing."""
    adapter, batch = learned() if policy == "learned" else small("unit"), inputs()
    batch["audio_lengths"] = torch.tensor(audio)
    adapter(**batch).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in adapter.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    encoder_used = bool(gradients["audio_encoder.lstm.weight_ih_l0"].abs().sum() > 0)
    assert encoder_used == any(audio)
    if policy == "learned":
        assert bool(gradients["absent.audio"].abs().sum() > 0) == (0 in audio)
        assert gradients["absent.vision"].abs().sum() == 0


def test_learned_vectors_are_counted():
    for sizes in ((96, 10, 7, 12, 5, 4), (96, 10, 0, 12, 5, 4)):
        adapter = MSEAdapter(*sizes, learned_absent=True)
        total = sum(parameter.numel() for parameter in adapter.parameters())
        assert (
            total
            == ADAPTERS["mse"].count(AdapterSpec(*sizes, learned_absent=True))
            == parameter_count("mse", *sizes) + 2 * 256
        )
