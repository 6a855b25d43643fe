"""What every reader returns, train and test parts still unread, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

# uint8 [N, C, H, W] and integer [N]
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

# "train" and "test", or only one of them. A source without that division has all under "train".
Splits = Mapping[str, Callable[[], Arrays]]

SPLITS = ("train", "test", "all")


def select(splits: Splits, split: str, origin: str | Path) -> Arrays:
    """Read the part of a data set that `split` names.

    Parameters
    ----------
    splits : mapping of str to callable
        The parts there are.
    split : {"train", "test", "all"}
        Which to read; "all" is train, then test.
    origin : str or Path
        The data set, for error messages.

    Returns
    -------
    images : ndarray of uint8, [N, C, H, W]
    labels : ndarray of int64, [N]

    Raises
    ------
    ValueError
        If the data set lacks that part, is empty, or its parts differ in the pictures' shape.
    """
    if split != "all" and split not in splits:
        (there,) = splits
        raise ValueError(
            f"{origin}: expected a {split} split, found only one part; pass split={there!r} or "
            f'split="all" for all of it, or divide it (for example by '
            f"sklearn.model_selection.train_test_split)"
        )
    wanted = [name for name in SPLITS if name in splits] if split == "all" else [split]
    parts = [splits[name]() for name in wanted]
    shapes = {images.shape[1:] for images, _ in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"{origin}: expected train and test pictures of one shape [C, H, W], "
            f"found {' and '.join(str(list(shape)) for shape in sorted(shapes))}"
        )
    for images, labels in parts:
        if len(images) != len(labels):
            raise ValueError(
                f"{origin}: expected one label per picture, "
                f"found {len(images)} pictures and {len(labels)} labels"
            )
        if images.size == 0:
            raise ValueError(
                f"{origin}: expected at least one picture of at least one pixel, "
                f"found shape {list(images.shape)}"
            )
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
