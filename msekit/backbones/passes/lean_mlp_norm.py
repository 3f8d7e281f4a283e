"""Parts of a frozen decoder whose gradient is written out: less is kept for the backward pass, and less is computed.

- The gated MLP, `down(silu(gate) * up)`: autograd keeps gate, silu(gate) and up; silu(gate) is cheap to compute again.
  Values and gradients stay the same bit for bit.
- RMSNorm: autograd keeps its input in fp32 and walks back through each of its operators. With a frozen weight the
  input in its own precision and one number per column are enough. Values stay the same bit for bit, gradients up to
  rounding. On a GPU torch's fused kernel does the same: two launches for eight, three back for eleven.

Which modules they are for is told by the parts that a module has, and by its values: a double of it on the module's
device, so that what is tried is what will run, must give the values and the gradient of its class's own forward. Values
must be the same bit for bit; a GPU's fused norm adds up in another order, and may round a number in a hundred
otherwise. What they give is measured in `benchmarks/speed/RESULTS.md`.

Shapes: any; F the width between an MLP's projections, d the width of a norm.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.backbones.passes.agree import APART, said
from msekit.backbones.passes.switch import Forward, Over


class GatedSiLU(torch.autograd.Function):
    """`silu(gate) * up`, elementwise."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """(…, F) and (…, F) → (…, F)."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """What autograd computes, from silu(gate) computed again."""
        gate, up = ctx.saved_tensors
        (grad,) = grads
        return torch.ops.aten.silu_backward(grad * up, gate), grad * F.silu(gate)


class FrozenRMSNorm(torch.autograd.Function):
    """`weight * x / rms(x)`, in fp32 up to the product with the weight; the weight gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """(…, d), (d) → (…, d)."""
        wide = x.float()
        scale = wide.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """With g the gradient times the weight and s the scale: s g - x s³ mean(g x)."""
        x, weight, scale = ctx.saved_tensors
        (grad,) = grads
        wide, weighted = x.float(), (grad * weight).float()
        mean = torch.linalg.vecdot(weighted, wide).unsqueeze(-1) / x.shape[-1]
        return (weighted * scale).addcmul_(wide, mean * scale**3, value=-1).to(x.dtype), None, None


def find_parts(model: nn.Module) -> tuple[dict[nn.Module, Callable[..., Tensor]], dict[str, str]]:
    """Look for a frozen model's parts of these kinds.

    Returns:
        Module → its leaner forward; and class → why its modules, which have such parts too, are left alone.
    """
    forwards: dict[nn.Module, Callable[..., Tensor]] = {}
    refused: dict[str, str] = {}
    tried: dict[Any, str | None] = {}
    for module in model.modules():
        if (forward := _by_structure(module)) is None:
            continue
        figures = tuple(sorted((k, v) for k, v in vars(module).items() if isinstance(v, float)))
        kind = (type(module), forward, _width(module), figures)
        if kind not in tried:
            tried[kind] = _try(module, forward)
        if (reason := tried[kind]) is None:
            forwards[module] = partial(forward, module)
        else:
            refused[type(module).__name__] = reason
    return forwards, refused


def leaner(forwards: dict[nn.Module, Callable[..., Tensor]]) -> list[Over]:
    """The modules' leaner forwards, which need none of those that they have."""
    return [(module, partial(_instead, forward)) for module, forward in forwards.items()]


def _instead(forward: Forward, inner: Forward) -> Forward:
    return forward


def _by_structure(module: nn.Module) -> Callable[..., Tensor] | None:
    """The leaner forward for a module with the parts of a gated MLP or of an RMS norm; None for any other."""
    parts = {name for name, _ in module.named_children()}
    activation = getattr(module, "act_fn", getattr(module, "activation_fn", None))
    if isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation":
        if parts - {"act_fn"} == {"gate_proj", "up_proj", "down_proj"}:
            return _apart  # Llama, Qwen, Mistral and many more
        if parts - {"activation_fn"} == {"gate_up_proj", "down_proj"}:
            return _joined  # GLM, Phi-3
    weights = {name for name, _ in module.named_parameters()}
    return _norm if hasattr(module, "variance_epsilon") and weights == {"weight"} and not parts else None


def _apart(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(GatedSiLU.apply(module.gate_proj(x), module.up_proj(x)))


def _joined(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(GatedSiLU.apply(*module.gate_up_proj(x).chunk(2, dim=-1)))


def fused_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """FrozenRMSNorm by torch's kernel, which a GPU has: rounded before the product with the weight, as that is."""
    return weight * F.rms_norm(x, x.shape[-1:], eps=eps)


def _norm(module: Any, x: Tensor) -> Tensor:
    if x.is_cuda:
        return fused_norm(x, module.weight, module.variance_epsilon)
    return FrozenRMSNorm.apply(x, module.weight, module.variance_epsilon)


def _try(module: nn.Module, forward: Callable[..., Tensor]) -> str | None:
    """Why a forward is not that of a module's class; None where it is, on a double of the module on its device."""
    if len(inspect.signature(type(module).forward).parameters) > 2:  # the norms of Mamba's layers take a gate
        return "cannot be tried (it takes more than its input)"
    held = next(module.parameters())
    device = held.device if held.is_cuda else torch.device("cpu")
    for dtype in (torch.float32, torch.float16 if held.dtype == torch.float16 else torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        try:
            with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
                double = _double(module, device, dtype, generator)
                x, grad = (torch.randn(3, _width(double), generator=generator).to(device, dtype) for _ in range(2))
                x = (_QUIET * x).requires_grad_()
                value, plain = forward(double, x), type(double).forward(double, x)
                mine, theirs = (torch.autograd.grad(y, x, grad)[0].float() for y in (value, plain))
        except Exception as error:  # whatever a forward raises that wants other inputs or other parts
            return f"cannot be tried ({said(error)})"
        if not _same(value, plain, exact=not (forward is _norm and x.is_cuda)):
            return f"computes something else in {dtype}"
        # bf16 rounds each side's gradient in its own order; a mistake has been seen in fp32
        if dtype == torch.float32 and not (mine - theirs).norm() <= APART * theirs.norm():
            return "has another gradient"
    return None


def _same(mine: Tensor, theirs: Tensor, exact: bool) -> bool:
    """Whether values are the same: bit for bit, or up to sums in another order."""
    if exact or torch.equal(mine, theirs):
        return torch.equal(mine, theirs)
    if mine.dtype == torch.float32:
        return bool((mine - theirs).norm() <= _SUMMED_OTHERWISE * theirs.norm())
    return bool((mine != theirs).float().mean() <= _ROUNDED_OTHERWISE)


_SUMMED_OTHERWISE = 2e-6
"""Distance in fp32 as a share of the length: 16 roundings. An epsilon of ten times as much is 1e-3."""
_ROUNDED_OTHERWISE = 0.01
"""Share of numbers in 16 bit: sums in another order change the rounding of one in thousands, rounding at another place
that of every third."""
_QUIET = 0.1
"""Size of a trial's input: beside it an epsilon is seen."""
_SMALL = 8
"""Features of a double's linear layers. A norm's are as many as its own, which decide how a kernel goes about them."""


def _width(module: nn.Module) -> int:
    """Of a norm; of an MLP, whose weights are its linear layers', that of a double."""
    return next((weight.numel() for weight in module._parameters.values() if weight is not None), 0) or _SMALL


def _double(module: Any, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Any:
    """A module of the same class and settings with random weights; those of linear layers are small."""
    double = copy.copy(module)
    double.__dict__.pop("forward", None)
    double._modules, double._parameters = dict(module._modules), {}
    for name, weight in module._parameters.items():
        own = 1 + torch.rand(weight.numel() or _SMALL, generator=generator)  # a weight in shards is empty
        double.register_parameter(name, nn.Parameter(own.to(device, dtype)))
    for name, linear in module.named_children():
        if isinstance(linear, nn.Linear):
            rows = 2 * _SMALL if name == "gate_up_proj" else _SMALL
            small = nn.utils.skip_init(nn.Linear, _SMALL, rows, bias=linear.bias is not None, dtype=dtype)
            for parameter in small.parameters():
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
            double._modules[name] = small.to(device)
    return double.requires_grad_(False)
