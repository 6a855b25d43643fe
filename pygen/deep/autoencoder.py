"""Autoencoders, and what they share with the VAE: an encoder, a decoder, and rows there and back."""

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn
from torch.nn import functional

from pygen import nn as networks
from pygen.arrays import like
from pygen.deep.base import DeepEstimator
from pygen.deep.data import Training, some_rows
from pygen.deep.fitted import check_pairs
from pygen.deep.model_task import ModelTask, adam, call
from pygen.deep.trainer import Trainer
from pygen.random import RandomState

# Rows from which an autoencoder learns how its codes are spread.
_CODE_ROWS = 4096
# Rows whose mean the decoder begins at.
_MEAN_ROWS = 1024
# Rows held out that are looked at during training, at most.
_HELD_OUT_ROWS = 10_000


class EncoderDecoder(DeepEstimator):
    """Base of the models that go from rows to codes and back."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "encoder": [nn.Module, None],
        "decoder": [nn.Module, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    }
    _networks = ("encoder", "decoder")
    _decoder = "decoder"

    encoder: nn.Module | None
    decoder: nn.Module | None
    encoder_: nn.Module
    decoder_: nn.Module

    def encode(self, X: Any, y: Any = None) -> Any:
        """Codes of rows; of a VAE their means.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, *feature_shape_]``.
        y : label or array-like of labels, optional
            Of a conditional model: one for all or one for each row.

        Returns
        -------
        array or Tensor
            float32 ``[N, latent_dim]``.
        """
        x = self._checked_rows(X)
        return like(self._through(self._code, x, self._positions(y, len(x))), X)

    def reconstruct(self, X: Any, y: Any = None) -> Any:
        """Rows encoded and decoded.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, *feature_shape_]``.
        y : label or array-like of labels, optional
            Of a conditional model: one for all or one for each row.

        Returns
        -------
        array or Tensor
            ``[N, *feature_shape_]``, numbers of the kind the model was fitted to.
        """
        x = self._checked_rows(X)
        return like(self._through(self._there_and_back, x, self._positions(y, len(x))), X)

    def interpolate(self, a: Any, b: Any, n_steps: int = 10, *, y: Any = None) -> Any:
        """Rows on the way from one to another, at equal steps between their codes.

        Parameters
        ----------
        a, b : array-like or Tensor
            ``[N, *feature_shape_]``, equally many.
        n_steps : int, default=10
            At least 2, with both ends.
        y : label or array-like of labels, optional
            Of a conditional model: one for all or one for each pair.

        Returns
        -------
        array or Tensor
            ``[N, n_steps, *feature_shape_]``, numbers of the kind the model was fitted to.
        """
        first, last = self._checked_rows(a), self._checked_rows(b)
        check_pairs(first, last, n_steps)
        labels = self._positions(y, len(first))
        first, last = (self._through(self._code, rows, labels) for rows in (first, last))
        return like(self._between(first, last, n_steps, labels, torch.lerp), a)

    def _default_network(self, name: str, shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if name == "encoder":
            encoder = networks.ConvEncoder if len(shape) == 3 else networks.MLPEncoder
            return encoder(shape, self._n_outputs(), n_classes=n_classes)
        decoder = networks.ConvDecoder if len(shape) == 3 else networks.MLPDecoder
        return decoder(self.latent_dim, shape, n_classes=n_classes)

    def _prepared(self, data: Training, device: torch.device, seed: int) -> ModelTask:
        task = super()._prepared(data, device, seed)
        decoder = task.networks["decoder"]
        if self.decoder is None and isinstance(decoder, networks.ConvDecoder):
            x, _ = some_rows(data.source, _MEAN_ROWS, seed)
            decoder.begin_at(self._to_unit(x.to(device)).mean(0))
        return task

    def _n_outputs(self) -> int:
        """Numbers the encoder gives for a row."""
        return self.latent_dim

    def _code(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Codes ``[n, latent_dim]`` of the user's rows."""
        return call(self.encoder_, self._to_unit(x), y)[:, : self.latent_dim].float()

    def _there_and_back(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self._from_unit(self._unit_rows(self._code(x, y), y))

    def _unit_rows(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return call(self.decoder_, codes, y).float().sigmoid()

    def _held_out(self, data: Training, seed: int) -> tuple[Tensor, Tensor | None] | None:
        """The rows that networks are judged by in training, and their labels."""
        if data.held_out is None:
            return None
        x, y = some_rows(data.held_out, _HELD_OUT_ROWS, seed)
        return x, y if self.conditional else None

    def _check_networks(self) -> None:
        device, shape = self._network_device(), self._network_shape()
        x = torch.zeros(2, *shape, device=device)
        y = torch.zeros(2, dtype=torch.int64, device=device) if self.conditional else None
        with self._evaluating():
            codes = call(self.encoder_, x, y)
            self._expect("encoder", codes, (self._n_outputs(),))
            rows = call(self.decoder_, codes[:, : self.latent_dim], y)
            self._expect("decoder", rows, shape)


class Autoencoder(EncoderDecoder):
    """Autoencoder: a few numbers for each row, from which the row can be made again.

    Parameters
    ----------
    latent_dim : int, default=2
        Numbers of a code.
    loss : {"mse", "bce"}, default="mse"
        Mean squared error, or binary cross-entropy, per pixel.
    conditional : bool, default=False
        Whether encoder and decoder are told the class: ``fit(X, y)``.
    encoder, decoder : Module, optional
        Called as ``encoder(x, y)``, rows ``[N, C, H, W]`` (or ``[N, D]``) in [0, 1] to codes ``[N, latent_dim]``, and
        ``decoder(z, y)``, codes to logits of rows; y is None unless the model is conditional, then int64 ``[N]``.
        They are copied, not changed. Default: for images the convolutions of Foster, *Generative Deep Learning*
        (2019), for rows ``[N, D]`` dense layers.
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
        What tells which weights are best; the lower the better. "auto": the loss on the rows held out. A callable gets
        the estimator. None: nothing is measured and the last weights are kept.
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
        Governs initial weights, the order of rows, and ``sample``.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    encoder_, decoder_ : Module
        In eval mode.
    code_mean_, code_scale_ : ndarray or Tensor
        ``[latent_dim]``: mean and standard deviation of the codes of training rows.
    n_steps_ : int
        Steps trained.
    history_ : list of dict
        What was logged: step, losses, metric.
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
    ``sample`` draws each number of a code from a normal distribution with the mean and deviation it had in training.
    Nothing makes an autoencoder fill that space, so between the codes it knows it has learned nothing: most samples
    look like no row at all. That is what the VAE mends.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        "loss": [StrOptions({"mse", "bce"})],
    }
    _default_steps, _default_epochs = 4000, 20

    code_mean_: Any
    code_scale_: Any

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        loss: str = "mse",
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
        self.loss = loss
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

    def score_samples(self, X: Any, y: Any = None) -> Any:
        """Minus the mean squared error of each row's reconstruction.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, *feature_shape_]``.
        y : label or array-like of labels, optional
            Of a conditional model.

        Returns
        -------
        array or Tensor
            ``[N]``; a pixel counts from 0 to 1, whatever the data's numbers are.
        """
        x = self._checked_rows(X)
        return like(-self._errors("mse", x, self._positions(y, len(x))), X)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`: the higher the better."""
        return float(self.score_samples(X, y if self.conditional else None).mean())

    def _errors(self, loss: str, x: Tensor, y: Tensor | None) -> Tensor:
        """Loss ``[n]`` of each of the user's rows."""

        def errors(x: Tensor, y: Tensor | None) -> Tensor:
            logits = call(self.decoder_, self._code(x, y), y).float()
            return pixel_loss(loss, logits, self._to_unit(x), "none").flatten(1).mean(1)

        return self._through(errors, x, y)

    def _task(self, networks: nn.ModuleDict, seed: int) -> ModelTask:
        return _AutoencoderTask(self, networks, seed)

    def _auto_metric(self, data: Training, seed: int) -> Callable[[], float] | None:
        held_out = self._held_out(data, seed)
        if held_out is None:
            return None
        return lambda: float(self._errors(self.loss, *held_out).double().mean())

    def _drawing(self, data: Training, seed: int) -> Callable[[], Tensor] | None:
        """Rows of eight originals, each over that of their reconstructions: samples would tell little."""
        if super()._drawing(data, seed) is None:
            return None
        x, y = some_rows(data.source if data.held_out is None else data.held_out, 32, seed)
        cycled = torch.arange(32) % len(x)
        x, y = x[cycled.to(x.device)], y[cycled] if self.conditional and y is not None else None

        def draw() -> Tensor:
            made = self._through(lambda x, y: self._unit_rows(self._code(x, y), y), x, y)
            pair = torch.stack([self._to_unit(x.to(made.device)), made])
            return pair.unflatten(1, (4, 8)).transpose(0, 1).flatten(0, 2)

        return draw

    def _codes(self, n_samples: int, seed: int) -> Tensor:
        codes = super()._codes(n_samples, seed)
        if not hasattr(self, "code_mean_"):  # a metric that samples in training
            return codes
        mean, scale = (
            torch.as_tensor(value, device=codes.device)
            for value in (self.code_mean_, self.code_scale_)
        )
        return codes * scale + mean

    def _finish(self, trainer: Trainer, data: Training) -> None:
        super()._finish(trainer, data)
        x, y = some_rows(data.source, _CODE_ROWS, seed=0)
        codes = self._through(self._code, x, y if self.conditional else None).double()
        scale, mean = torch.std_mean(codes, dim=0, correction=0)
        self.code_mean_, self.code_scale_ = (
            self._like_fitted(value.float()) for value in (mean, scale)
        )


def pixel_loss(loss: str, logits: Tensor, x: Tensor, reduction: str) -> Tensor:
    """Error of each pixel, or their mean, of logits ``[N, ...]`` for rows in [0, 1]."""
    if loss == "mse":
        return functional.mse_loss(logits.sigmoid(), x, reduction=reduction)
    return functional.binary_cross_entropy_with_logits(logits, x, reduction=reduction)


class _AutoencoderTask(ModelTask):
    """One step: reconstruct a batch, and learn from the error."""

    losses = ("loss",)

    def __init__(self, model: Autoencoder, networks: nn.ModuleDict, seed: int) -> None:
        super().__init__(networks, *model._seen_as(), model.conditional, seed)
        self.optimizers = {"adam": adam(networks.parameters(), model.learning_rate)}
        self._loss = model.loss

    def step(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        encoder, decoder = self.networks["encoder"], self.networks["decoder"]
        x, y = self.seen(x, y)
        with self.autocast():
            logits = call(decoder, call(encoder, x, y), y)
        loss = pixel_loss(self._loss, logits.float(), x, "mean")
        self.update(self.optimizers["adam"], loss)
        return {"loss": loss.detach()}
