"""A training run whose numbers are no longer finite: the error, and what can be told of the cause."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pygen.deep.task import Task


class TrainingDiverged(FloatingPointError):
    """Losses or weights became NaN or infinite; the message says where, and what may help."""


def diverged(task: Task, step: int, what: str, last_good: object) -> TrainingDiverged:
    """Make the error, with a look at the weights and the last gradients of each network.

    Parameters
    ----------
    task : Task
        As the bad step left it.
    step : int
        The first bad step as far as is known, counted from 1.
    what : str
        What was found, such as ``loss 'generator' is nan``.
    last_good : object
        The last good checkpoint, or None.

    Returns
    -------
    TrainingDiverged
    """
    findings = [_findings(name, network) for name, network in task.networks.items()]
    return TrainingDiverged(
        f"Training diverged at step {step}: {what}; {'; '.join(findings)}. Last good checkpoint:"
        f" {last_good or 'none'}. Try a lower learning rate, gradient_clip=1.0 or precision='float32', and look for"
        " outliers in the data."
    )


def non_finite(value: Any, name: str = "") -> list[str]:
    """Names of the floating-point tensors in nested dicts and lists that hold NaN or infinity."""
    if isinstance(value, Tensor):
        bad = value.is_floating_point() and not bool(value.isfinite().all())
        return [name] if bad else []
    if not isinstance(value, dict | list):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [bad for k, v in items for bad in non_finite(v, f"{name}.{k}" if name else str(k))]


def _findings(name: str, network: nn.Module) -> str:
    bad = non_finite(network.state_dict())
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = float(torch.stack([g.double().norm() for g in gradients]).norm()) if gradients else 0.0
    total = len(network.state_dict())
    weights = f"{len(bad)} of {total} tensors are not finite, first {bad[0]}" if bad else "finite"
    return f"network {name!r}: weights {weights}, gradient norm {norm:.3g}"
