"""What all networks share: arguments to be rebuilt from, checked inputs, and class labels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


class Network(nn.Module):
    """A network that knows its constructor's arguments, with or without class labels.

    Parameters
    ----------
    shape : sequence of int
        Shape of one picture or row of data, each at least 1.
    n_classes : int
        0: not conditional, and ``forward`` refuses labels. Else ``forward`` needs labels ``y``,
        int64 ``[N]``, in ``[0, n_classes)``.
    **arguments
        The constructor's other arguments, by name.

    Attributes
    ----------
    arguments : dict
        All of them as JSON holds them: ``getattr(pygen.nn, type(network).__name__)(**arguments)``
        is the same network with new weights.
    shape : tuple of int
    n_classes : int
    """

    def __init__(self, *, shape: Sequence[int], n_classes: int, **arguments: Any) -> None:
        super().__init__()
        arguments |= {"shape": tuple(shape), "n_classes": n_classes}
        self.arguments = {name: _plain(name, value) for name, value in arguments.items()}
        self.shape: tuple[int, ...] = tuple(self.arguments["shape"])
        self.n_classes: int = self.arguments["n_classes"]

    def checked(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """``x``, once it is known to be ``[N, *shape]``.

        Raises
        ------
        ValueError
            If it is not.
        """
        if x.shape[1:] != torch.Size(shape) or x.dim() != 1 + len(shape):
            raise ValueError(f"{type(self).__name__} expects {['N', *shape]}, got {list(x.shape)}.")
        return x

    def check_labels(self, y: Tensor | None, n_rows: int) -> None:
        """Check that there are labels if and only if the network is conditional, one for each row.

        Raises
        ------
        ValueError
            If labels are missing, not asked for, or not int64 ``[n_rows]`` in ``[0, n_classes)``
            (the last on the CPU only: a GPU would have to be waited for).
        """
        name = type(self).__name__
        if y is None:
            if self.n_classes:
                raise ValueError(
                    f"this {name} has {self.n_classes} classes and needs labels: give y, int64 [N]."
                )
            return
        if self.n_classes == 0:
            raise ValueError(
                f"this {name} has no classes (n_classes=0) but was given labels: give none, or make it"
                " with n_classes."
            )
        if y.dtype != torch.int64 or y.shape != (n_rows,):
            raise ValueError(
                f"labels must be int64 [{n_rows}], one for each row; got {y.dtype} {list(y.shape)}."
            )
        if y.is_cpu and n_rows and not torch.compiler.is_compiling():
            low, high = (int(bound) for bound in y.aminmax())
            if low < 0 or high >= self.n_classes:
                raise ValueError(f"labels must lie in [0, {self.n_classes}), got {low} to {high}.")

    def with_labels(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What an encoder, decoder or generator sees: its input, with one-hot labels beside it.

        Parameters
        ----------
        x : Tensor
            ``[N, D]`` or ``[N, C, H, W]``.
        y : Tensor or None
            int64 ``[N]``.

        Returns
        -------
        Tensor
            ``x`` itself without classes; else ``[N, D + n_classes]``, or ``[N, C + n_classes, H,
            W]``, where the map of the row's class is 1 and the others are 0.
        """
        self.check_labels(y, len(x))
        if y is None:
            return x
        hot = one_hot(y, self.n_classes).to(x.dtype)
        if x.dim() == 4:
            hot = hot[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return torch.cat([x, hot], 1)

    def logits(self, scores: Tensor, y: Tensor | None) -> Tensor:
        """What a discriminator says: its only score, or the one of each row's class.

        On digits, real or fake is learned sooner and better so than from labels as further inputs.
        It is the projection discriminator of T. Miyato and M. Koyama (cGANs with projection
        discriminator, 2018) without the part that all classes share.

        Parameters
        ----------
        scores : Tensor
            ``[N, max(1, n_classes)]``.
        y : Tensor or None
            int64 ``[N]``.

        Returns
        -------
        Tensor
            ``[N]``.
        """
        self.check_labels(y, len(scores))
        return scores[:, 0] if y is None else scores.gather(1, y[:, None])[:, 0]


def _plain(name: str, value: Any) -> Any:
    """A constructor's argument as JSON holds it, once its numbers are known to be possible."""
    if isinstance(value, bool | str):
        return value
    numbers = [int(number) for number in (value if isinstance(value, tuple) else [value])]
    if not numbers and name != "hidden":
        raise ValueError(f"{name} must not be empty.")
    least = 0 if name == "n_classes" else 1
    if min(numbers, default=least) < least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")
    return numbers if isinstance(value, tuple) else numbers[0]


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """``shape`` as ``(C, H, W)``.

    Raises
    ------
    ValueError
        If it is not three numbers.
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), such as (1, 28, 28); got {tuple(shape)}.")
    channels, height, width = (int(side) for side in shape)
    return channels, height, width


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle ``[N, C, height, width]`` of ``[N, C, H, W]``."""
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]
