"""The Triton kernels, number by number on a CPU, against torch's own operators. On a GPU they have not been run."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from reference_operators import REFERENCES
from torch import Tensor, nn

from msekit.backbones.load import load_backbone

pytest.importorskip("triton", reason="Triton is not installed; CUDA's builds of torch bring it along")


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton asks for it when it is loaded."""
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by another test here, in a process of its own")


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="runs the others of this file")
def test_in_triton_s_interpreter():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="an interpreted kernel is not compiled")
@pytest.mark.parametrize(("card", "dtype"), [(75, "fp16"), (80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_they_are_compiled_for_a_gpu_that_is_not_there(
    card: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Down to machine code of a T4, an A100 and an H100."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from msekit.backbones.gpu import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in (kernels.norm, kernels.norm_back, kernels.gated, kernels.gated_back, kernels.rotary):
        parameters = inspect.signature(kernel.fn).parameters
        fixed = {name: 64 if name == "BLOCK" else True for name in parameters if name.isupper()}
        kinds = {name: "constexpr" if name in fixed else "i32" for name in parameters}
        kinds |= {name: f"*{dtype}" for name in parameters if name.endswith("_ptr")}
        kinds |= {name: kind for name, kind in {"scale_ptr": "*fp32", "eps": "fp32"}.items() if name in parameters}
        made = triton.compile(ASTSource(kernel, kinds, fixed), target=GPUTarget("cuda", card, 32))
        assert len(made.asm["cubin"]) > 1000


@pytest.fixture
def operators() -> ModuleType:
    """The kernels, which Triton's interpreter runs."""
    from msekit.backbones.gpu import operators

    return operators


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def given(name: str, dtype: torch.dtype) -> tuple[list[Tensor], list[object]]:
    """What an operator differentiates, and the rest; sizes that are no powers of two."""
    if name == "Gated":  # both lie in one product, more than a block wide
        return list(drawn(2, 3, 2 * 1500, dtype=dtype).chunk(2, dim=-1)), []
    if name == "Rotary":
        q, k, _ = drawn(2, 5, (4 + 2 + 2) * 12, dtype=dtype).split([48, 24, 24], dim=-1)
        heads = [each.unflatten(-1, (-1, 12)).transpose(1, 2) for each in (q, k)]
        angles = (
            torch.arange(5)[None, :, None] * torch.linspace(0.1, 1, 6).repeat(2)
            + torch.tensor([0.0, 3.0])[:, None, None]
        )
        return heads, [angles.cos().to(dtype), angles.sin().to(dtype)]
    x, delta = drawn(2, 3, 24, dtype=dtype), drawn(2, 3, 24, dtype=dtype).flip(0)
    return [x, delta][: 2 if name == "AddNorm" else 1], [1 + drawn(24, dtype=dtype).abs(), 1e-5]


def passed(operator: Callable[..., Tensor | tuple[Tensor, ...]], of: list[Tensor], rest: list[object]) -> list[Tensor]:
    """Values and gradients."""
    leaves = [x.detach().as_strided(x.shape, x.stride(), x.storage_offset()).requires_grad_() for x in of]
    values = operator(*leaves, *rest)
    values = (values,) if isinstance(values, Tensor) else values
    asked = [drawn(*value.shape, dtype=value.dtype) for value in values]
    return [*(value.detach() for value in values), *torch.autograd.grad(values, leaves, asked)]


BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 2**-6, torch.float16: 2**-9}
"""Of a number's size: sums in another order; in 16 bit two steps of what it can hold, for a rounding more or less, and
because the interpreter cuts bf16 off where a GPU rounds."""


@interpreted
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_a_kernel_computes_what_torch_does(operators: ModuleType, name: str, dtype: torch.dtype):
    of, rest = given(name, dtype)
    mine, theirs = (passed(operator, of, rest) for operator in (getattr(operators, name).apply, REFERENCES[name]))
    for ours, reference in zip(mine, theirs, strict=True):
        assert ours.shape == reference.shape
        assert ours.dtype == dtype
        size = reference.abs().float().clamp(min=1)
        assert float(((ours.float() - reference.float()) / size).abs().max()) <= BOUNDS[dtype]


@interpreted
def test_a_pass_by_the_kernels_is_the_plain_one():
    """By the trial on the twin, values and gradient in fp32; the interpreter is too slow for more columns."""
    backbone = load_backbone("tiny-llama", device="cpu", passes=("triton",))
    assert backbone.passes.uses == ("triton",)


@interpreted
def test_a_kernel_that_is_wrong_is_refused(operators: ModuleType, monkeypatch: pytest.MonkeyPatch):
    class Wrong(nn.Module):
        @staticmethod
        def apply(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
            return operators_rotary(q, k, cos, -sin)

    operators_rotary = operators.Rotary.apply
    monkeypatch.setattr(operators, "Rotary", Wrong)
    with pytest.raises(Exception, match="'triton' through the LLM cannot be used: in a trial in fp32 its logits"):
        _ = load_backbone("tiny-llama", device="cpu", passes=("triton",)).passes
