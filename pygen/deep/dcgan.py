"""DCGAN: a GAN of strided convolutions with batch norm, for images."""

from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from pygen.deep.gan import GAN
from pygen.nn import DCGANDiscriminator, DCGANGenerator
from pygen.random import RandomState


class DCGAN(GAN):
    """Deep convolutional GAN (Radford, Metz and Chintala, 2016), for images of any height and width.

    Strided convolutions, batch norm everywhere but at the generator's output and the discriminator's input, ReLU and
    tanh in the generator, leaky ReLU in the discriminator, weights from N(0, 0.02).

    Parameters
    ----------
    latent_dim : int, default=100
        Numbers of a code.
    width : int, default=64
        Channels next to the image; twice as many at each halving of its sides.
    d_norm : {"batch", "instance", "none"}, default="batch"
        Normalisation in the discriminator. A gradient penalty needs "instance" or "none".
    loss, d_batch, d_steps, conditional, generator, discriminator
        As in :class:`pygen.GAN`; the default networks are ``pygen.nn.DCGANGenerator`` and ``DCGANDiscriminator``.
    max_steps, max_epochs : int, optional
        How long to train; ``max_steps`` wins. Default: 25 epochs, or 3000 steps if that is more.
    batch_size : int, default=128
    learning_rate, d_learning_rate, betas, ema_decay, label_smoothing, instance_noise, spectral_norm,\
 gradient_penalty, r1, gradient_clip, metric, keep, value_range, precision, compile, device, random_state, verbose
        As in :class:`pygen.GAN`.

    Attributes
    ----------
    generator_, discriminator_, n_steps_, history_, classes_, class_prior_, feature_shape_, n_features_in_, value_range_
        As in :class:`pygen.GAN`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GAN._parameter_constraints,
        "width": [Interval(Integral, 1, None, closed="left")],
        "d_norm": [StrOptions({"batch", "instance", "none"})],
    }
    _default_steps, _default_epochs = 3000, 25

    def __init__(
        self,
        latent_dim: int = 100,
        *,
        width: int = 64,
        d_norm: str = "batch",
        loss: str = "non-saturating",
        d_batch: str = "separate",
        d_steps: int = 1,
        conditional: bool = False,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        batch_size: int = 128,
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
        super().__init__(
            latent_dim,
            loss=loss,
            d_batch=d_batch,
            d_steps=d_steps,
            conditional=conditional,
            generator=generator,
            discriminator=discriminator,
            max_steps=max_steps,
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            d_learning_rate=d_learning_rate,
            betas=betas,
            ema_decay=ema_decay,
            label_smoothing=label_smoothing,
            instance_noise=instance_noise,
            spectral_norm=spectral_norm,
            gradient_penalty=gradient_penalty,
            r1=r1,
            gradient_clip=gradient_clip,
            metric=metric,
            keep=keep,
            value_range=value_range,
            precision=precision,
            compile=compile,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.width = width
        self.d_norm = d_norm

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.d_norm != "batch" and self.discriminator is not None:
            raise ValueError(
                f"d_norm={self.d_norm!r} is of the default discriminator; leave it where one is passed."
            )

    def _default_network(self, name: str, shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if len(shape) != 3:
            raise ValueError(
                f"DCGAN needs images [N, C, H, W] or [N, H, W]; got rows of shape {list(shape)}. Reshape them, or take"
                " GAN."
            )
        if name == "generator":
            return DCGANGenerator(self.latent_dim, shape, self.width, n_classes)
        return DCGANDiscriminator(shape, self.width, n_classes, self.d_norm, self.spectral_norm)

    def _no_batch_norm(self, name: str) -> str:
        message = super()._no_batch_norm(name)
        if self.discriminator is None:
            message = f"{message} d_norm='instance' or 'none' does that."
        return message
