"""Gaussian mixtures by expectation-maximisation."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pygen.arrays import asked_for, like
from pygen.density import em, initial, parameters, together
from pygen.density.base import CHUNK, DensityEstimator, check_n_samples, choose
from pygen.density.conditional import ConditionalMixture
from pygen.density.em import Run
from pygen.density.parameters import Parameters
from pygen.density.rows import Rows, resolve_device, to_tensor
from pygen.ops import log_density, responsibilities, sample_gaussians
from pygen.ops.mixture import PRECISIONS
from pygen.random import RandomState, new_state

_ATTRIBUTES = ("weights_", "means_", "covariances_", "precisions_cholesky_")


class GaussianMixture(DensityEstimator):
    """Gaussian mixture, a drop-in for scikit-learn's class of that name, on tensors, GPUs and streams as well.

    Parameters, attributes, warnings and errors are scikit-learn's. Beyond it: data of any shape ``[N, ...]``, NumPy or
    tensors on any device; ``sample_weight``; ``partial_fit``; ``condition``; data that comes in chunks; float32 that
    stays as good as float64 far from zero.

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Each component its own matrix, all the same matrix, each its own variances, each one variance.
    tol : float, default=1e-3
        EM stops when the mean log-likelihood, in nats, gains less.
    reg_covar : float, default=1e-6
        Added to the variances.
    max_iter : int, default=100
    n_init : int, default=1
        Starts tried; the best is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        How responsibilities start: from k-means, from rows far apart, at random, from random rows.
    weights_init : array-like or Tensor of shape [K], optional
    means_init : array-like or Tensor of shape [K, D], optional
    precisions_init : array-like or Tensor, optional
        Inverse covariances: ``[K]``, ``[K, D]``, ``[D, D]`` or ``[K, D, D]`` for spherical, diag, tied, full.
    random_state : None, int, RandomState, Generator or torch.Generator, optional
        Governs the start of ``fit``, and ``sample``.
    warm_start : bool, default=False
        Go on from the last fit.
    verbose : int, default=0
        1 prints progress, 2 also time and gain.
    verbose_interval : int, default=10
    device : str or torch.device, optional
        Where to compute. Default: where a tensor lives; for other data CUDA where there is one, else the CPU.
    dtype : {torch.float32, torch.float64}, optional
        Default: the data's own; float64 for integers in NumPy, as in scikit-learn.
    precision : {"high", "fast", "exact"}, default="high"
        How exact log-densities of float32 data are, see the notes: nearly as float64, faster, or float64.
    batch_size : int, optional
        Rows moved to the device at a time. Default: all rows of an array, a chunk of a stream. Fitting gives the same
        result whatever it is.

    Attributes
    ----------
    weights_ : ``[K]``
    means_ : ``[K, D]``
    means_low_ : ``[K, D]``
        What the dtype of ``means_`` cannot hold of the means: scores take the sum of both. Far from zero float32 alone
        would cost them whole nats.
    covariances_, precisions_, precisions_cholesky_ : shape by covariance type
        NumPy arrays if fitted on NumPy, else tensors; in the dtype of the data.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Mean log-likelihood in nats, in the last E-step.
    lower_bounds_ : list of float
        The same for each iteration.
    n_features_in_ : int
        D, the product of ``feature_shape_``.
    feature_shape_ : tuple of int
        Shape of a row.

    Notes
    -----
    EM is Dempster, Laird and Rubin (1977); Bishop, *Pattern Recognition and Machine Learning*, section 9.2. A component
    that loses all its rows keeps its mean, with weight 0 and covariance ``reg_covar I``.

    ``fit`` accepts a stream: a function that returns a fresh iterator over chunks ``[n, ...]``, or a DataLoader. It
    then starts from at most 65536 rows drawn from the stream. Rows of a memory-mapped array are read where they are.

    Whatever the precision, statistics, parameters and the M-step are float64; it says what log-densities of float32
    rows are: "high" float32, and with covariances "diag" and "spherical" float64 where components compete; "fast"
    float32 alone, on a GPU with one product in TF32 for one in float32; "exact" float64, for which rows are converted
    a block at a time. k-means, where EM starts, takes rows as they are. The error against float64 of the row that is
    worst off, in nats, and of the log-likelihood, relative (MNIST, 10 components, ``reg_covar=1e-6``, on a CPU;
    ``bench/precision.py`` prints it):

    =========  ================  ================  ================  ================
    precision  spherical         diag              tied              full
    =========  ================  ================  ================  ================
    high       9.3e-5    7e-9    6.6e-4    1e-10   8.9e-4    2e-9    5.2e-4    5e-11
    fast       9.3e-5    3e-9    6.6e-4    1e-10   8.9e-4    2e-9    5.2e-4    5e-11
    exact      3.0e-5    0       1.7e-4    2e-16   6.1e-5    0       1.2e-4    8e-16
    =========  ================  ================  ================  ================

    Rows of "exact" are off by the rounding of a score to float32. What "fast" loses on a GPU has not been measured on
    one; a product in TF32 knows three digits.

    The statistics of shards of the data add up, see :func:`pygen.ops.em_statistics`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "random", "random_from_data", "k-means++"})],
        "weights_init": ["array-like", Tensor, None],
        "means_init": ["array-like", Tensor, None],
        "precisions_init": ["array-like", Tensor, None],
        "random_state": ["random_state", np.random.Generator, torch.Generator],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device, None],
        "dtype": [torch.dtype, None],
        "precision": [StrOptions(set(PRECISIONS))],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    weights_: Any
    means_: Any
    lower_bound_: float

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: RandomState = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        precision: str = "high",
        batch_size: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.device = device
        self.dtype = dtype
        self.precision = precision
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "GaussianMixture":
        """Fit by EM.

        Parameters
        ----------
        X : array-like, Tensor or stream
            ``[N, ...]``, finite; or a function that returns an iterator over such chunks, or a DataLoader.
        y : ignored
        sample_weight : array-like or Tensor, optional
            ``[N]``, non-negative; a row of weight 2 counts as two equal rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data or a parameter does not fit, or a covariance is not positive definite.
        """
        rows = self._open(X, sample_weight)
        go_on = self._goes_on()
        lengths = [rows.length] * (1 if go_on else self.n_init)
        firsts = self._firsts(rows)
        if together.pays(self, lengths, rows.n_features):
            return self._keep(rows, together.run(self, [rows] * len(lengths), list(firsts)))
        bound = self.lower_bound_ if go_on else -math.inf
        return self._keep(
            rows,
            (em.run(self, rows, first, bound, start) for start, first in enumerate(firsts)),
        )

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return the component ``[N]`` of each row. See :meth:`fit` and :meth:`predict`."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "GaussianMixture":
        """One step of online EM (Cappe and Moulines, 2009).

        The statistics of past batches are faded by ``1 - t**-0.6`` in step t and those of this batch added. The first
        call starts the mixture from its batch.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, ...]``; the first batch needs at least ``n_components`` rows.
        y : ignored
        sample_weight : array-like or Tensor, optional
            ``[N]``, non-negative.

        Returns
        -------
        self
        """
        self._validate_params()
        begin = not hasattr(self, "n_batches_seen_")
        rows = self._rows(X, sample_weight, reset=begin, min_rows=1)
        if begin:
            if rows.length is not None and rows.length < self.n_components:
                raise ValueError(
                    f"The first batch must have at least n_components = {self.n_components} rows,"
                    f" got {rows.length}."
                )
            old = self._start(rows, new_state(self.random_state, rows.device))
        else:
            old = self._current(rows.device)
        step = (getattr(self, "n_batches_seen_", 0) + 1) ** -0.6
        batch = em.sums(self, rows, old)
        total = batch.counts.sum()
        # The past, as sums of a data set of weight 1 about the present means.
        counts, scatter = parameters.as_sums(old, self.covariance_type, self.reg_covar)
        found = parameters.m_step(
            (1 - step) * counts + step * batch.counts / total,
            step * batch.sums / total,
            (1 - step) * scatter + step * batch.scatter / total,
            old.means,
            self.covariance_type,
            self.reg_covar,
        )
        self._set(found, rows)
        self.n_batches_seen_ = getattr(self, "n_batches_seen_", 0) + 1
        self.n_iter_ = self.n_batches_seen_
        self.lower_bound_ = float(batch.log_likelihood / total)
        self.lower_bounds_ = [*getattr(self, "lower_bounds_", []), self.lower_bound_]
        self.converged_ = False
        return self

    def predict(self, X: Any) -> Any:
        """Most probable component.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, ...]``.

        Returns
        -------
        array or Tensor
            int64 ``[N]``.
        """
        return self._score(X, log_density, lambda _, component: component)

    def predict_proba(self, X: Any) -> Any:
        """Responsibilities: the probability ``[N, K]`` of each component given each row of ``X [N, ...]``."""
        return self._score(X, responsibilities, lambda log_resp, _: log_resp.exp())

    def score_samples(self, X: Any) -> Any:
        """Log-density ``[N]``, in nats, of each row of ``X [N, ...]``."""
        return self._score(X, log_density, lambda log_prob_norm, _: log_prob_norm)

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X (Schwarz, 1978): the lower the better."""
        n = len(X)
        return -2 * self.score(X) * n + self._n_parameters() * math.log(n)

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X (Akaike, 1974): the lower the better."""
        return -2 * self.score(X) * len(X) + 2 * self._n_parameters()

    def sample(
        self, n_samples: int = 1, *, y: Any = None, random_state: RandomState = None
    ) -> tuple[Any, Any]:
        """Draw from the mixture.

        Rows come in random order, not sorted by component as in scikit-learn: the first m of n samples are what
        ``sample(m)`` gives for the same random state.

        Parameters
        ----------
        n_samples : int, default=1
        y : int or array-like of int, optional
            The component to draw from, one for all or one for each sample. Default: drawn by weight.
        random_state : optional
            Default: the estimator's.

        Returns
        -------
        X : array or Tensor
            ``[n_samples, *feature_shape_]``.
        components : array or Tensor
            int64 ``[n_samples]``.
        """
        n_samples = check_n_samples(self, n_samples)
        seed = self._seed(random_state)
        device = resolve_device(self.device, self.means_)
        current = self._current(device)
        if y is None:
            index = choose(current.weights, n_samples, seed)
        else:
            index = asked_for(y, np.arange(len(current.means)), n_samples, device)
        dtype = to_tensor(self.means_, device).dtype
        scales = parameters.scales(current, self.covariance_type).to(dtype)
        x = sample_gaussians(new_state(seed, device), index, current.means.to(dtype), scales)
        return like(x.unflatten(1, self._feature_shape()), self.means_), like(index, self.means_)

    def condition(self, X: Any, observed_mask: Any) -> ConditionalMixture:
        """The exact mixture of the features that are not observed, given those that are.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, ...]``. What stands at unobserved places does not matter; NaN is welcome.
        observed_mask : array-like or Tensor of bool
            ``[N, ...]``, or ``[...]`` for all rows: True where X is observed.

        Returns
        -------
        ConditionalMixture
            With ``mean()`` (X imputed), ``sample()``, ``log_weights`` and ``score_samples()``.

        Raises
        ------
        ValueError
            If shapes do not fit or an observed value is not finite.
        """
        check_is_fitted(self)
        device = resolve_device(self.device, X)
        return ConditionalMixture(
            self._current(device),
            self.covariance_type,
            X,
            observed_mask,
            self._feature_shape(),
            seed=self._seed,
        )

    def _feature_shape(self) -> tuple[int, ...]:
        # Parameters may have been set by hand, as scikit-learn's users do.
        return getattr(self, "feature_shape_", (self.means_.shape[1],))

    def _n_parameters(self) -> int:
        n_components, n_features = self.means_.shape
        return parameters.n_parameters(n_components, n_features, self.covariance_type)

    def _rows(self, X: Any, sample_weight: Any, *, reset: bool, min_rows: int) -> Rows:
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {self.dtype}.")
        return Rows(
            self,
            X,
            sample_weight,
            reset=reset,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            min_rows=min_rows,
        )

    def _start(self, rows: Rows, state: Tensor) -> Parameters:
        return initial.parameters(
            rows,
            self.n_components,
            self.covariance_type,
            self.reg_covar,
            self.init_params,
            (self.weights_init, self.means_init, self.precisions_init),
            state,
        )

    def _open(self, X: Any, sample_weight: Any) -> Rows:
        """The data of a fit, once it and the parameters are found to be good."""
        self._validate_params()
        rows = self._rows(X, sample_weight, reset=True, min_rows=2)
        if rows.length is not None and rows.length < self.n_components:
            raise ValueError(
                "Expected n_samples >= n_components but got"
                f" n_components = {self.n_components}, n_samples = {rows.length}"
            )
        return rows

    def _goes_on(self) -> bool:
        return self.warm_start and hasattr(self, "converged_")

    def _firsts(self, rows: Rows) -> Iterator[Parameters]:
        """Where each run of EM starts."""
        state = new_state(self.random_state, rows.device)
        if self._goes_on():
            yield self._current(rows.device)
            return
        for _ in range(self.n_init):
            yield self._start(rows, state)

    def _keep(self, rows: Rows, runs: Iterable[Run]) -> "GaussianMixture":
        """The best of several runs becomes the result."""
        best = max(runs, key=lambda run: run.bound)
        self.lower_bound_, self.lower_bounds_, self.converged_ = best[1:]
        self.n_iter_ = len(self.lower_bounds_)
        self._set(best.found, rows)
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters,"
                " or increase max_iter, tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _set(self, found: Parameters, rows: Rows) -> None:
        def attribute(value: Tensor) -> Any:
            return like(value.to(rows.dtype), rows.source)

        for name, value in zip(_ATTRIBUTES, found, strict=True):
            setattr(self, name, attribute(value))
        self.means_low_ = attribute(found.means - found.means.to(rows.dtype))
        self.precisions_ = attribute(
            parameters.precisions(found.precisions_cholesky, self.covariance_type)
        )

    def _current(self, device: torch.device) -> Parameters:
        check_is_fitted(self)
        current = Parameters(
            *(to_tensor(getattr(self, name), device, torch.float64) for name in _ATTRIBUTES)
        )
        low = getattr(self, "means_low_", None)
        if low is None or tuple(low.shape) != tuple(self.means_.shape):
            return current
        means = current.means + to_tensor(low, device, torch.float64)
        # Means that were set by hand since have no lower part.
        own = means.to(to_tensor(self.means_, device).dtype) == current.means
        return current._replace(means=torch.where(own, means, current.means))

    def _score(
        self,
        X: Any,
        operator: Callable[..., tuple[Tensor, Tensor]],
        result: Callable[[Tensor, Tensor], Tensor],
    ) -> Any:
        check_is_fitted(self)
        rows = self._rows(X, None, reset=False, min_rows=1)
        current = self._current(rows.device)
        parts = []
        for x, _ in rows.chunks():
            for part in x.split(CHUNK):
                found = operator(
                    part,
                    current.weights.log(),
                    current.means,
                    current.precisions_cholesky,
                    self.covariance_type,
                    self.precision,
                )
                parts.append(result(*found))
        return like(torch.cat(parts), rows.source)
