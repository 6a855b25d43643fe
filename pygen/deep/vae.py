"""Variational autoencoders: an autoencoder whose codes fill a normal distribution, so that it can be drawn from."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from pygen.arrays import like
from pygen.deep.autoencoder import EncoderDecoder
from pygen.deep.data import Training
from pygen.deep.losses import log_likelihood, mean
from pygen.deep.model_task import ModelTask, adam, call
from pygen.deep.trainer import Trainer
from pygen.ops import normal, reparameterize
from pygen.random import RandomState, as_seed

# Offset of the stream from which score_samples draws codes.
_SCORES = 2**61 + 2**60
# The learned variance of a pixel starts where a fair reconstruction of images leaves it; its one parameter would be
# long on the way at the networks' learning rate.
_FIRST_LOG_VARIANCE, _VARIANCE_LEARNING_RATE = -3.0, 1e-2
# exp of the log variance overflows float32 beyond 88; no trained posterior comes near.
_LOG_VARIANCE = 30.0


class VAE(EncoderDecoder):
    """Variational autoencoder (Kingma and Welling, 2014).

    Parameters
    ----------
    latent_dim : int, default=2
        Numbers of a code.
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli"}, default="gaussian"
        What the decoder says of a pixel in [0, 1]: a normal distribution about its value, with one variance for all
        that is learned (Rybkin et al., 2021); the probability that it is 1, for binary data; or the same for grey
        ones (Loaiza-Ganem and Cunningham, 2019).
    reconstruction_weight : float, optional
        r: minimise ``r mean((x - x^)^2) + KL`` (Foster, 2019). That is a Gaussian decoder of the variance
        ``D / (2 r)``: the larger r, the sharper the reconstructions and the worse the samples. Default: the
        likelihood's own weight, so that the loss is minus the evidence lower bound.
    kl_warmup_steps : int, default=0
        Steps in which the weight of the KL grows from 0 to 1.
    conditional : bool, default=False
        Whether encoder and decoder are told the class: ``fit(X, y)``.
    encoder, decoder : Module, optional
        Called as ``encoder(x, y)``, rows ``[N, C, H, W]`` (or ``[N, D]``) in [0, 1] to means and log variances
        ``[N, 2 latent_dim]``, and ``decoder(z, y)``, codes to logits of rows; y is None unless the model is
        conditional, then int64 ``[N]``. They are copied, not changed. Default: for images the convolutions of Foster,
        *Generative Deep Learning* (2019), for rows ``[N, D]`` dense layers.
    max_steps, max_epochs : int, optional
        How long to train; ``max_steps`` wins. Default: 20 epochs, or 4000 steps if that is more.
    batch_size : int, default=32
    learning_rate : float, default=5e-4
        Of Adam.
    gradient_clip : float, optional
        Largest norm of the gradient.
    validation_fraction : float, default=0.1
        Share of the rows that are held out to judge by. Of a DataLoader none are.
    metric : "auto", callable or None, default="auto"
        What tells which weights are best; the lower the better. "auto": minus the evidence lower bound of the rows
        held out. A callable gets the estimator. None: nothing is measured and the last weights are kept.
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
    encoder_, decoder_ : Module
        In eval mode.
    log_variance_ : Tensor
        Logarithm of the variance of the Gaussian likelihood, 0-dimensional; 0 for the others, which have none.
    n_steps_ : int
        Steps trained.
    history_ : list of dict
        What was logged: step, loss, its two parts in nats, metric.
    classes_, class_prior_ : ndarray
        Of a conditional model: the labels, and their share of the rows.
    feature_shape_ : tuple of int
        Shape of a row.
    n_features_in_ : int
        Its product.
    value_range_ : ndarray or Tensor
        ``[2]``: what the networks see as 0 and 1, in the data's dtype.

    Notes
    -----
    ``sample``, ``decode`` and ``reconstruct`` give the mean of the likelihood, not draws from it.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        "likelihood": [StrOptions({"gaussian", "bernoulli", "continuous_bernoulli"})],
        "reconstruction_weight": [Interval(Real, 0, None, closed="neither"), None],
        "kl_warmup_steps": [Interval(Integral, 0, None, closed="left")],
    }
    _default_steps, _default_epochs = 4000, 20

    log_variance_: Tensor

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        likelihood: str = "gaussian",
        reconstruction_weight: float | None = None,
        kl_warmup_steps: int = 0,
        conditional: bool = False,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 5e-4,
        gradient_clip: float | None = None,
        validation_fraction: float = 0.1,
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
        self.likelihood = likelihood
        self.reconstruction_weight = reconstruction_weight
        self.kl_warmup_steps = kl_warmup_steps
        self.conditional = conditional
        self.encoder = encoder
        self.decoder = decoder
        self.max_steps = max_steps
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.gradient_clip = gradient_clip
        self.validation_fraction = validation_fraction
        self.metric = metric
        self.keep = keep
        self.value_range = value_range
        self.precision = precision
        self.compile = compile
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def score_samples(
        self,
        X: Any,
        y: Any = None,
        *,
        n_importance: int | None = None,
        random_state: RandomState = None,
    ) -> Any:
        """Lower bound of the log-likelihood of each row.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, *feature_shape_]``.
        y : label or array-like of labels, optional
            Of a conditional model; the bound then is of log p(x | y).
        n_importance : int, optional
            Codes drawn for each row, K: the importance-weighted bound ``log 1/K sum p(x, z_k) / q(z_k | x)`` (Burda
            et al., 2016), which rises to log p(x) with K. Default: the evidence lower bound, with the KL in closed
            form and one code.
        random_state : optional
            Of the codes. Default: the estimator's.

        Returns
        -------
        array or Tensor
            float64 ``[N]``, in nats, of data on [0, 1].
        """
        x = self._checked_rows(X)
        seed = as_seed(self.random_state if random_state is None else random_state)
        if n_importance is not None and (
            not isinstance(n_importance, Integral) or n_importance < 1
        ):
            raise ValueError(
                f"n_importance must be None or an integer of at least 1; got {n_importance}."
            )
        return like(self._bounds(x, self._positions(y, len(x)), n_importance, seed), X)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean evidence lower bound of the rows, in nats. See :meth:`score_samples`."""
        return float(self.score_samples(X, y if self.conditional else None).mean())

    def _bounds(self, x: Tensor, y: Tensor | None, n_importance: int | None, seed: int) -> Tensor:
        """float64 ``[N]`` of the user's rows."""
        device = self._network_device()
        state = torch.tensor([seed, _SCORES], device=device)
        log_variance = self.log_variance_.to(device)

        def log_weight(x: Tensor, y: Tensor | None, mu: Tensor, logvar: Tensor) -> Tensor:
            # log p(x, z) / q(z | x): the constants of the two normal densities cancel.
            eps = normal(state, mu.shape)
            z = mu + (logvar / 2).exp() * eps
            prior = 0.5 * (eps.square() + logvar - z.square()).double().sum(1)
            return self._log_likelihood(x, z, y, log_variance).double() + prior

        def bounds(x: Tensor, y: Tensor | None) -> Tensor:
            x = self._to_unit(x)
            mu, logvar = posterior(call(self.encoder_, x, y))
            if n_importance is None:
                z, kl = reparameterize(state, mu, logvar)
                return self._log_likelihood(x, z, y, log_variance).double() - kl.double()
            draws = [log_weight(x, y, mu, logvar) for _ in range(n_importance)]
            return torch.stack(draws).logsumexp(0) - math.log(n_importance)

        return self._through(bounds, x, y)

    def _log_likelihood(
        self, x: Tensor, z: Tensor, y: Tensor | None, log_variance: Tensor
    ) -> Tensor:
        return log_likelihood(self.likelihood, x, call(self.decoder_, z, y).float(), log_variance)

    def _n_outputs(self) -> int:
        return 2 * self.latent_dim

    def _unit_rows(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return mean(self.likelihood, call(self.decoder_, codes, y).float())

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.reconstruction_weight is not None and self.likelihood != "gaussian":
            raise ValueError(
                "reconstruction_weight is the weight of a squared error, which is the Gaussian likelihood; with"
                f" likelihood={self.likelihood!r} leave it None."
            )

    def _task(self, networks: nn.ModuleDict, seed: int) -> ModelTask:
        return _VAETask(self, networks, seed)

    def _attach(self, task: ModelTask) -> None:
        super()._attach(task)
        pixel = task.networks["pixel"]
        assert isinstance(pixel, _Pixel)
        self.log_variance_ = pixel.log_variance

    def _finish(self, trainer: Trainer, data: Training) -> None:
        super()._finish(trainer, data)
        self.log_variance_ = self.log_variance_.detach().clone()

    def _auto_metric(self, data: Training, seed: int) -> Callable[[], float] | None:
        held_out = self._held_out(data, seed)
        if held_out is None:
            return None
        return lambda: -float(self._bounds(*held_out, None, seed).mean())


def posterior(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log variances ``[N, L]`` of what an encoder gives, ``[N, 2 L]``."""
    mu, logvar = parameters.float().chunk(2, 1)
    return mu, logvar.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)


class _Pixel(nn.Module):
    """The variance of a Gaussian pixel: of a weight r that of Foster's loss, else learned."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        weight = model.reconstruction_weight
        learned = model.likelihood == "gaussian" and weight is None
        if weight is not None:
            start = math.log(math.prod(model.feature_shape_) / (2 * weight))
        else:
            start = _FIRST_LOG_VARIANCE if learned else 0.0
        self.log_variance = nn.Parameter(torch.tensor(start), requires_grad=learned)


class _VAETask(ModelTask):
    """One step: encode a batch, draw codes, and raise the evidence lower bound of what was encoded."""

    losses = ("loss", "reconstruction", "kl")

    def __init__(self, model: VAE, networks: nn.ModuleDict, seed: int) -> None:
        super().__init__(networks, *model._seen_as(), model.conditional, seed)
        optimizer = adam(networks.parameters(), model.learning_rate)
        pixel = _Pixel(model).to(self.device)
        self._log_variance = pixel.log_variance
        optimizer.add_param_group({"params": [self._log_variance], "lr": _VARIANCE_LEARNING_RATE})
        networks["pixel"] = pixel
        self.optimizers = {"adam": optimizer}
        self._likelihood = model.likelihood
        self._warmup = model.kl_warmup_steps
        if self._warmup:
            self.counters["steps"] = torch.zeros((), dtype=torch.int64, device=self.device)

    def step(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        encoder, decoder = self.networks["encoder"], self.networks["decoder"]
        x, y = self.seen(x, y)
        with self.autocast():
            parameters = call(encoder, x, y)
        z, kl = reparameterize(self.state, *posterior(parameters))
        with self.autocast():
            logits = call(decoder, z, y)
        reconstruction = -log_likelihood(self._likelihood, x, logits.float(), self._log_variance)
        reconstruction, kl = reconstruction.mean(), kl.mean()
        self.update(self.optimizers["adam"], reconstruction + self._kl_weight() * kl)
        parts = {"reconstruction": reconstruction.detach(), "kl": kl.detach()}
        return {"loss": parts["reconstruction"] + parts["kl"], **parts}

    def _kl_weight(self) -> Tensor | float:
        if not self._warmup:
            return 1.0
        steps = self.counters["steps"]
        weight = (steps / self._warmup).clamp_max(1.0)
        steps += 1
        return weight
