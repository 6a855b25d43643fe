"""Generative adversarial networks: a generator learns to make what a discriminator takes for real."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pygen.arrays import like
from pygen.deep.adversarial import WGAN_PENALTY, GANTask, penalty_weight
from pygen.deep.base import DeepEstimator
from pygen.deep.data import Training, some_rows
from pygen.deep.fitted import check_pairs
from pygen.deep.losses import GAN_LOSSES, kernel_distance
from pygen.deep.model_task import ModelTask, call
from pygen.nn import MLPDiscriminator, MLPGenerator
from pygen.random import RandomState

# Made and real rows that are compared to judge a generator in training.
_JUDGED_ROWS = 1000


class GAN(DeepEstimator):
    """Generative adversarial network (Goodfellow et al., 2014) of dense layers, for rows of any shape.

    Parameters
    ----------
    latent_dim : int, default=100
        Numbers of a code.
    loss : {"non-saturating", "hinge", "wgan-gp", "lsgan", "relativistic"}, default="non-saturating"
        What the players minimise; ``pygen.deep.losses.GAN_LOSSES`` has the formulas.
    d_batch : {"separate", "concat"}, default="separate"
        Whether the discriminator sees real and made rows in batches apart or in one. In one, batch norm sees
        statistics in its own step that it would not see in the generator's step, and the generator collapses; so
        "concat" uses the running statistics there.
    d_steps : int, default=1
        Steps of the discriminator, on rows of their own, for each of the generator.
    conditional : bool, default=False
        Whether both are told the class: ``fit(X, y)``.
    generator, discriminator : Module, optional
        Called as ``generator(z)``, codes ``[N, latent_dim]`` to rows ``[N, C, H, W]`` (or ``[N, D]``) in [-1, 1], and
        ``discriminator(x)``, rows to logits ``[N]``, without a sigmoid; with ``(z, y)`` and ``(x, y)``, y int64
        ``[N]``, if the model is conditional. They are copied, not changed. Default: dense layers, with
        batch norm in the generator.
    max_steps, max_epochs : int, optional
        How long to train; ``max_steps`` wins. Default: 20 epochs, or 5000 steps if that is more.
    batch_size : int, default=64
    learning_rate : float, default=2e-4
        Of Adam.
    d_learning_rate : float, optional
        Of the discriminator. Default: the same.
    betas : (float, float), default=(0.5, 0.999)
        Of Adam.
    ema_decay : float, default=0.999
        ``generator_`` is the moving average of the generator over its steps; 0 takes the generator itself.
    label_smoothing : float, default=0.0
        Real rows have the label 1 minus this (Salimans et al., 2016), in losses with labels.
    instance_noise : float, default=0.0
        Standard deviation of noise on all rows that the discriminator sees, on [-1, 1] (Sonderby et al., 2017).
    spectral_norm : bool, default=False
        Of the default discriminator (Miyato et al., 2018).
    gradient_penalty : float, optional
        Weight of ``(||grad D|| - 1)^2`` between real and made rows. Default: 10 in "wgan-gp", which needs it, else 0.
    r1 : float, default=0.0
        Weight of ``||grad D||^2 / 2`` at real rows (Mescheder et al., 2018).
    gradient_clip : float, optional
        Largest norm of each player's gradient.
    metric : "auto", callable or None, default="auto"
        What tells which weights are best; the lower the better. "auto": squared maximum mean discrepancy, with KID's
        kernel on pixels, of 1000 samples from 1000 training rows. A callable gets the estimator. None: nothing is
        measured and the last weights are kept.
    keep : {"best", "last"}, default="best"
    value_range : (float, float), optional
        The interval the data's numbers come from, where their look misleads.
    precision : {"float32", "bf16"}, optional
        Of training. Default: bf16 where the hardware is fast at it.
    compile : bool, default=False
        Compile the networks with ``torch.compile``.
    device : str or torch.device, optional
        Default: where a tensor lives; for other data CUDA where there is one, else the CPU.
    random_state : None, int, RandomState, Generator or torch.Generator, optional
        Governs initial weights, the order of rows, noise, and ``sample``.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    generator_, discriminator_ : Module
        In eval mode, so that a sample does not depend on those beside it; the generator is the average.
    n_steps_ : int
        Steps trained, each one of the generator.
    history_ : list of dict
        What was logged: step, losses of both, metric.
    classes_, class_prior_ : ndarray
        Of a conditional model: the labels, and their share of the rows.
    feature_shape_ : tuple of int
        Shape of a row.
    n_features_in_ : int
        Its product.
    value_range_ : ndarray or Tensor
        ``[2]``: what the networks see as -1 and 1, in the data's dtype.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "loss": [StrOptions(set(GAN_LOSSES))],
        "d_batch": [StrOptions({"separate", "concat"})],
        "d_steps": [Interval(Integral, 1, None, closed="left")],
        "generator": [nn.Module, None],
        "discriminator": [nn.Module, None],
        "d_learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "betas": [tuple, list],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "label_smoothing": [Interval(Real, 0, 0.5, closed="left")],
        "instance_noise": [Interval(Real, 0, None, closed="left")],
        "spectral_norm": ["boolean"],
        "gradient_penalty": [Interval(Real, 0, None, closed="left"), None],
        "r1": [Interval(Real, 0, None, closed="left")],
    }
    _networks = ("generator", "discriminator")
    _decoder = "generator"
    _default_steps, _default_epochs = 5000, 20

    generator_: nn.Module
    discriminator_: nn.Module

    def __init__(
        self,
        latent_dim: int = 100,
        *,
        loss: str = "non-saturating",
        d_batch: str = "separate",
        d_steps: int = 1,
        conditional: bool = False,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 2e-4,
        d_learning_rate: float | None = None,
        betas: tuple[float, float] = (0.5, 0.999),
        ema_decay: float = 0.999,
        label_smoothing: float = 0.0,
        instance_noise: float = 0.0,
        spectral_norm: bool = False,
        gradient_penalty: float | None = None,
        r1: float = 0.0,
        gradient_clip: float | None = None,
        metric: Any = "auto",
        keep: str = "best",
        value_range: Any = None,
        precision: str | None = None,
        compile: bool = False,  # noqa: A002
        device: str | torch.device | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.latent_dim = latent_dim
        self.loss = loss
        self.d_batch = d_batch
        self.d_steps = d_steps
        self.conditional = conditional
        self.generator = generator
        self.discriminator = discriminator
        self.max_steps = max_steps
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.d_learning_rate = d_learning_rate
        self.betas = betas
        self.ema_decay = ema_decay
        self.label_smoothing = label_smoothing
        self.instance_noise = instance_noise
        self.spectral_norm = spectral_norm
        self.gradient_penalty = gradient_penalty
        self.r1 = r1
        self.gradient_clip = gradient_clip
        self.metric = metric
        self.keep = keep
        self.value_range = value_range
        self.precision = precision
        self.compile = compile
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def interpolate(self, a: Any, b: Any, n_steps: int = 10, *, y: Any = None) -> Any:
        """Rows made of codes on the way from one to another.

        The way is an arc, at equal angles: codes on a straight line would be shorter than any that were trained on
        (White, 2016).

        Parameters
        ----------
        a, b : array-like or Tensor
            Codes ``[N, latent_dim]``, equally many.
        n_steps : int, default=10
            At least 2, with both ends.
        y : label or array-like of labels, optional
            Of a conditional model: one for all or one for each pair.

        Returns
        -------
        array or Tensor
            ``[N, n_steps, *feature_shape_]``, numbers of the kind the model was fitted to.
        """
        first, last = self._checked_codes(a), self._checked_codes(b)
        check_pairs(first, last, n_steps)
        labels = self._positions(y, len(first))
        return like(self._between(first, last, n_steps, labels, spherical), a)

    def _validate_params(self) -> None:
        super()._validate_params()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1); got {self.betas}.")
        if self.label_smoothing and not GAN_LOSSES[self.loss].has_labels:
            raise ValueError(
                f"label_smoothing lowers the label of real rows, but loss={self.loss!r} has no labels; leave it 0, or"
                " take 'non-saturating' or 'lsgan'."
            )
        if self.loss == "wgan-gp" and self.gradient_penalty == 0:
            raise ValueError(
                "loss='wgan-gp' needs a gradient_penalty: without one its discriminator is not bounded. Leave it None"
                f" for {WGAN_PENALTY:g}."
            )
        if self.spectral_norm and self.discriminator is not None:
            raise ValueError(
                "spectral_norm is of the default discriminator; build it into the one that is passed, with"
                " torch.nn.utils.parametrizations.spectral_norm, and leave it False."
            )

    def _default_network(self, name: str, shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if name == "generator":
            return MLPGenerator(self.latent_dim, shape, n_classes=n_classes)
        return MLPDiscriminator(shape, n_classes=n_classes, spectral_norm=self.spectral_norm)

    def _step_rows(self) -> int:
        return self.batch_size * self.d_steps

    def _task(self, networks: nn.ModuleDict, seed: int) -> ModelTask:
        return GANTask(self, networks, seed)

    def _unit_rows(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return (call(self.generator_, codes, y).float() + 1) / 2

    def _auto_metric(self, data: Training, seed: int) -> Callable[[], float] | None:
        x, y = some_rows(data.source, _JUDGED_ROWS, seed)
        if len(x) < 2:
            return None
        y = y if self.conditional else None
        codes = self._codes(len(x), seed)
        real = self._through(lambda x: self._to_unit(x).flatten(1), x)

        def distance() -> float:
            made = self._through(self._unit_rows, codes, y).flatten(1)
            return float(kernel_distance(2 * made - 1, 2 * real - 1))

        return distance

    def _check_networks(self) -> None:
        shape = self._network_shape()
        codes = self._codes(2, seed=0)
        y = None
        if self.conditional:
            y = torch.zeros(2, dtype=torch.int64, device=codes.device)
        with self._evaluating():
            x = call(self.generator_, codes, y)
            self._expect("generator", x, shape)
            logits = call(self.discriminator_, x, y)
        if x.abs().max() > 1.001:
            raise ValueError(
                f"generator: expected rows in [-1, 1], got {float(x.min()):.3g} to {float(x.max()):.3g}; let it end"
                " with torch.nn.Tanh()."
            )
        self._expect("discriminator", logits, ())
        parts = list(self.discriminator_.modules())
        if isinstance(parts[-1], nn.Sigmoid):
            raise ValueError(
                "discriminator: expected logits, but it ends with a Sigmoid; the losses hold it, take it out."
            )
        penalties = {"gradient_penalty": penalty_weight(self), "r1": self.r1}
        asked_for = [name for name, weight in penalties.items() if weight]
        if asked_for and any(isinstance(part, _BatchNorm) for part in parts):
            raise ValueError(self._no_batch_norm(asked_for[0]))

    def _no_batch_norm(self, name: str) -> str:
        return (
            f"{name} needs the gradient of each row's logit with respect to that row alone, but batch norm in the"
            " discriminator lets it depend on all rows of the batch: use another normalisation, or none."
        )


def spherical(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Codes ``[N, L]`` on the arc from a to b; on the line where they point the same way or apart."""
    cosine = torch.cosine_similarity(a.double(), b.double())[:, None].clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine
    return torch.where(sine < 1e-6, torch.lerp(a, b, share).double(), arc).to(a.dtype)
