"""What every judge asks of the features it is given."""

from torch import Tensor


def checked_features(real: Tensor, fake: Tensor, at_least: int, reason: str) -> None:
    """Check features of real and made images.

    Parameters
    ----------
    real, fake : Tensor
        ``[N, F]`` and ``[M, F]``.
    at_least : int
        Rows that both must have.
    reason : str
        What they are needed for, for the message.

    Raises
    ------
    ValueError
        If the shapes are others, there are too few rows, or a value is NaN or infinite.
    """
    if real.dim() != 2 or fake.dim() != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"Features: expected [N, F] real and [M, F] made ones, found {list(real.shape)} and"
            f" {list(fake.shape)}; flatten(1) makes rows of images."
        )
    for name, values in (("real", real), ("made", fake)):
        if len(values) < at_least:
            raise ValueError(
                f"Features: expected at least {at_least} {name} rows, {reason}, found"
                f" {len(values)}."
            )
        if not values.isfinite().all():
            raise ValueError(f"Features: expected finite values, found others in the {name} rows.")
