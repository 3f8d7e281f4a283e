"""Losses and terms of losses that baselines share. Each is a mean or a sum over the batch as its docstring says.

Shapes: B batch, O outputs, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def losses_of(outputs_BO: Tensor, truth_B: Tensor) -> Tensor:
    """(B,) cross-entropy of class scores (O > 1), or L1 of an intensity (O = 1)."""
    if outputs_BO.shape[1] > 1:
        return F.cross_entropy(outputs_BO, truth_B.long(), reduction="none")
    return (outputs_BO[:, 0] - truth_B).abs()


def task_loss(outputs_BO: Tensor, truth_B: Tensor) -> Tensor:
    """Their mean over the batch."""
    return losses_of(outputs_BO, truth_B).mean()


def focal(outputs_BO: Tensor, truth_B: Tensor, gamma: float) -> Tensor:
    """-(1 - p_y)^γ log p_y, the mean over the batch (Lin et al. 2017); L1 for an intensity."""
    if outputs_BO.shape[1] == 1:
        return task_loss(outputs_BO, truth_B)
    logp_B = outputs_BO.log_softmax(dim=1).gather(1, truth_B.long()[:, None]).squeeze(1)
    return -((1 - logp_B.exp()).clamp(min=1e-8) ** gamma * logp_B).mean()


def moment_distance(x_Bd: Tensor, y_Bd: Tensor, moments: int = 5) -> Tensor:
    """Central moment discrepancy (Zellinger et al. 2017) without its factors of the interval, which are 1 for sigmoids.

    ‖E x − E y‖ + Σ_{k=2..K} ‖E (x−E x)^k − E (y−E y)^k‖, expectations over the batch. 1e-12 under the roots: their
    gradient is infinite at 0.
    """
    mean_x, mean_y = x_Bd.mean(dim=0), y_Bd.mean(dim=0)
    parts = [_norm(mean_x - mean_y)]
    for power in range(2, moments + 1):
        parts.append(_norm(((x_Bd - mean_x) ** power).mean(dim=0) - ((y_Bd - mean_y) ** power).mean(dim=0)))
    return torch.stack(parts).sum()


def _norm(x: Tensor) -> Tensor:
    return (x.square().sum() + 1e-12).sqrt()


def orthogonality(x_Bd: Tensor, y_Bd: Tensor) -> Tensor:
    """Mean square of XᵀY (d × d), rows centred over the batch and divided by their norm, which has no gradient."""
    rows = []
    for z in (x_Bd, y_Bd):
        centred = z - z.mean(dim=0)
        rows.append(centred / (centred.norm(dim=1, keepdim=True).detach() + 1e-6))
    return (rows[0].T @ rows[1]).square().mean()


def info_nce(x_Bd: Tensor, y_Bd: Tensor, temperature: float = 1.0) -> Tensor:
    """-(x·y)/τ + logsumexp_j (x·y_j)/τ on unit vectors, the mean over the batch: which y is x's own?"""
    x, y = F.normalize(x_Bd, dim=1), F.normalize(y_Bd, dim=1)
    return F.cross_entropy(x @ y.T / temperature, torch.arange(len(x), device=x.device))


def gaussian_likelihood(mean_Bd: Tensor, log_variance_Bd: Tensor, y_Bd: Tensor) -> Tensor:
    """Mean over the batch of Σ −½ ((y − μ)² / σ² + log σ²): a log-likelihood up to a constant."""
    return -0.5 * ((y_Bd - mean_Bd).square() / log_variance_Bd.exp() + log_variance_Bd).sum(dim=1).mean()


def log_volume(samples_Nd: Tensor, ridge: float = 1e-4) -> Tensor:
    """log det of the samples' covariance (d × d) with a ridge: twice the entropy of a Gaussian, up to a constant."""
    centred = samples_Nd - samples_Nd.mean(dim=0)
    covariance = centred.T @ centred / max(len(samples_Nd) - 1, 1)
    return torch.logdet(covariance + ridge * torch.eye(samples_Nd.shape[1], device=samples_Nd.device))
