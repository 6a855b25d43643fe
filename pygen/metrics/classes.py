"""Which classes a model makes, by the labels that a classifier gives its images."""

import torch
from torch import Tensor


def class_shares(labels: Tensor, classes: Tensor) -> Tensor:
    """Share of each class among labels.

    Parameters
    ----------
    labels : Tensor
        Integers ``[N]``, N >= 1.
    classes : Tensor
        Integers ``[K]``: all classes there are, each once.

    Returns
    -------
    Tensor
        float64 ``[K]``, sums to 1.

    Raises
    ------
    ValueError
        If there are no labels, or one of no class.
    """
    if labels.dim() != 1 or len(labels) == 0:
        raise ValueError(f"labels: expected [N] with N >= 1, found {list(labels.shape)}")
    counts = (labels[:, None] == classes).sum(0)
    if counts.sum() != len(labels):
        strange = labels[~torch.isin(labels, classes)]
        raise ValueError(
            f"labels: expected one of {classes.tolist()}, found {strange[0].item()}"
            if len(strange)
            else f"classes: expected each once, found {classes.tolist()}"
        )
    return counts.double() / len(labels)


def class_entropy(shares: Tensor) -> float:
    """Entropy of shares ``[K]`` in nats: log(K) if all classes are equally frequent, 0 if there is only one."""
    return -torch.xlogy(shares, shares).sum().item()
