"""What a fitted deep model does: rows through its networks in pieces, samples, decodings, labels."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pygen.arrays import asked_for, like
from pygen.deep.model_task import device_of
from pygen.deep.rows import rows
from pygen.deep.scaling import Scaling
from pygen.ops import normal, uniform
from pygen.random import RandomState, as_seed

# Rows that pass through a network at a time, always as many, filled up with zeros: a library's matrix product
# rounds a row another way when more or fewer stand beside it.
CHUNK = 64
# Offsets of the streams of one seed: the step's noise from 0 on, far from it what is drawn of a fitted model.
_CODES, _CLASSES = 2**61, 2**62


class FittedNetworks(BaseEstimator):
    """Base of the models made of networks, once these are trained."""

    # Networks by parameter; the fitted ones have an underscore behind.
    _networks: ClassVar[tuple[str, ...]]
    # The network that makes rows of codes.
    _decoder: ClassVar[str]

    latent_dim: int
    conditional: bool
    random_state: RandomState

    n_features_in_: int
    feature_shape_: tuple[int, ...]
    value_range_: Any
    classes_: np.ndarray
    class_prior_: np.ndarray

    def sample(
        self, n_samples: int = 1, *, y: Any = None, random_state: RandomState = None
    ) -> tuple[Any, Any]:
        """Draw codes, and what the network makes of them.

        Parameters
        ----------
        n_samples : int, default=1
        y : label or array-like of labels, optional
            Of a conditional model: the class to draw from, one for all or one for each sample. Default: drawn as
            often as in the training data.
        random_state : optional
            Default: the estimator's.

        Returns
        -------
        X : array or Tensor
            ``[n_samples, *feature_shape_]``, numbers of the kind the model was fitted to. The first m of n are what
            ``sample(m)`` gives.
        origin : array or Tensor
            The codes ``[n_samples, latent_dim]``, or of a conditional model the labels ``[n_samples]``.

        Raises
        ------
        ValueError
            If a label is unknown, or labels are asked of a model that is not conditional.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample."
            )
        n_samples = int(n_samples)
        seed = as_seed(self.random_state if random_state is None else random_state)
        codes = self._codes(n_samples, seed)
        if self.conditional and y is None:
            labels: Tensor | None = self._drawn_classes(n_samples, seed)
        else:
            labels = self._positions(y, n_samples)
        x = self._like_fitted(self._rows_of(codes, labels))
        if labels is None:
            return x, self._like_fitted(codes)
        origin = self.classes_[labels.cpu().numpy()]
        if isinstance(x, Tensor) and origin.dtype.kind in "biuf":
            return x, torch.from_numpy(origin).to(x.device)
        return x, origin

    def decode(self, Z: Any, y: Any = None) -> Any:
        """What the network makes of codes.

        Parameters
        ----------
        Z : array-like or Tensor
            ``[N, latent_dim]``.
        y : label or array-like of labels, optional
            Of a conditional model: one for all or one for each row.

        Returns
        -------
        array or Tensor
            ``[N, *feature_shape_]``, numbers of the kind the model was fitted to.
        """
        codes = self._checked_codes(Z)
        return like(self._rows_of(codes, self._positions(y, len(codes))), Z)

    @abstractmethod
    def _unit_rows(self, codes: Tensor, y: Tensor | None) -> Tensor:
        """Rows ``[n, *network shape]`` in [0, 1] of codes ``[n, latent_dim]``."""

    def _codes(self, n_samples: int, seed: int) -> Tensor:
        """Codes that ``sample`` starts from: standard normal ``[n, latent_dim]``."""
        state = torch.tensor([seed, _CODES], device=self._network_device())
        return normal(state, [n_samples, self.latent_dim])

    def _network_shape(self) -> tuple[int, ...]:
        """``(C, H, W)``, or ``(D,)``: grey images get their channel."""
        shape = self.feature_shape_
        return (1, *shape) if len(shape) == 2 else shape

    def _network_device(self) -> torch.device:
        return device_of(getattr(self, f"{self._decoder}_"))

    def _seen_as(self) -> tuple[Scaling, tuple[int, ...]]:
        """How a network sees the user's rows: their numbers, and their shape."""
        return Scaling.of(self.value_range_), self._network_shape()

    def _to_unit(self, x: Tensor) -> Tensor:
        """The user's rows as a network sees them, in [0, 1]."""
        scaling, shape = self._seen_as()
        return scaling.to_unit(x).reshape(-1, *shape)

    def _rows_of(self, codes: Tensor, y: Tensor | None) -> Tensor:
        """The user's rows of codes."""
        return self._through(lambda z, y: self._from_unit(self._unit_rows(z, y)), codes, y)

    def _from_unit(self, x: Tensor) -> Tensor:
        return Scaling.of(self.value_range_).from_unit(x).reshape(-1, *self.feature_shape_)

    def _through(self, function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """A function of rows, of as many at a time as ever; networks in eval mode, without gradients."""
        device = self._network_device()
        given = [value for value in inputs if value is not None]
        parts = []
        with self._evaluating():
            for start in range(0, len(given[0]), CHUNK):
                piece = [_piece(value, start, device) for value in inputs]
                n = min(CHUNK, len(given[0]) - start)
                parts.append(function(*piece)[:n])
        return torch.cat(parts)

    def _between(
        self,
        first: Tensor,
        last: Tensor,
        n_steps: int,
        y: Tensor | None,
        at: Callable[[Tensor, Tensor, float], Tensor],
    ) -> Tensor:
        """The user's rows ``[N, n_steps, ...]`` of codes on the way, ``at(first, last, share)``."""
        shares = [step / (n_steps - 1) for step in range(n_steps)]
        codes = torch.stack([at(first, last, share) for share in shares], 1).flatten(0, 1)
        labels = None if y is None else y.repeat_interleave(n_steps)
        return self._rows_of(codes, labels).unflatten(0, (len(first), n_steps))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """No gradients, and networks in eval mode; afterwards each part is in the mode it was in."""
        modules = [getattr(self, f"{name}_") for name in self._networks]
        modes = {part: part.training for module in modules for part in module.modules()}
        for module in modules:
            module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for part, mode in modes.items():
                part.training = mode

    def _expect(self, name: str, out: Any, shape: tuple[int, ...]) -> None:
        """Refuse a network whose result for two rows is not ``[2, *shape]``."""
        found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        if found != [2, *shape]:
            raise ValueError(
                f"{name}: expected a network that gives {['N', *shape]}, got {found} for N = 2."
            )

    def _checked_rows(self, X: Any) -> Tensor:
        check_is_fitted(self)
        x = rows(self, X, reset=False)
        expected = Scaling.of(self.value_range_).dtype
        if (x.dtype == torch.uint8) != (expected == torch.uint8):
            name = str(expected).removeprefix("torch.")
            found = str(x.dtype).removeprefix("torch.")
            raise ValueError(
                f"X must hold numbers as in fit, {name} from {self.value_range_[0]} to {self.value_range_[1]}; got"
                f" {found}."
            )
        return x

    def _checked_codes(self, Z: Any) -> Tensor:
        check_is_fitted(self)
        codes = Z if isinstance(Z, Tensor) else torch.from_numpy(np.asarray(Z, dtype=np.float32))
        if codes.dim() != 2 or codes.shape[1] != self.latent_dim or not codes.isfinite().all():
            raise ValueError(
                f"Codes must be finite, [N, latent_dim={self.latent_dim}]; got {list(codes.shape)}"
                f"{'' if codes.isfinite().all() else ' with NaN or infinity'}."
            )
        return codes.to(torch.float32)

    def _positions(self, y: Any, n_rows: int) -> Tensor | None:
        """Labels as a network takes them; None of a model without classes."""
        if not self.conditional:
            if y is not None:
                raise ValueError(
                    f"This {type(self).__name__} has no classes to choose from: make it with conditional=True"
                    " and fit(X, y)."
                )
            return None
        if y is None:
            raise ValueError(f"This {type(self).__name__} is conditional: give the labels y.")
        return asked_for(y, self.classes_, n_rows, self._network_device())

    def _drawn_classes(self, n_samples: int, seed: int) -> Tensor:
        """int64 ``[n]``, drawn by the classes' share of the training data."""
        total = torch.from_numpy(self.class_prior_).cumsum(0)
        drawn = uniform(torch.tensor([seed, _CLASSES]), [n_samples], torch.float64) * total[-1]
        found = torch.searchsorted(total, drawn, right=True)
        return found.to(self._network_device())

    def _like_fitted(self, values: Tensor) -> Any:
        return like(values, self.value_range_)


def _piece(values: Tensor | None, start: int, device: torch.device) -> Tensor | None:
    """CHUNK rows from ``start`` on, filled up with zeros, on the device."""
    if values is None:
        return None
    piece = values[start : start + CHUNK].to(device)
    missing = CHUNK - len(piece)
    return torch.cat([piece, piece.new_zeros(missing, *piece.shape[1:])]) if missing else piece


def check_pairs(first: Tensor, last: Tensor, n_steps: Any) -> None:
    """Refuse to interpolate between what is not equally many, or in less than two steps."""
    if len(first) != len(last):
        raise ValueError(f"a and b must be equally many; got {len(first)} and {len(last)}.")
    if not isinstance(n_steps, Integral) or n_steps < 2:
        raise ValueError(f"n_steps must be an integer of at least 2, for both ends; got {n_steps}.")
