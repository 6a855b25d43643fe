"""Networks of autoencoders, and of GANs without convolutions; those of DCGAN are in ``dcgan``.

Encoders and discriminators map pictures to numbers, decoders and generators map codes to pictures.
Every ``forward`` takes ``(x, y=None)``; class labels y are needed by a network with ``n_classes``,
and only by it.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from pygen.nn.network import Network, crop, image_shape


def leaky_relu() -> nn.Module:
    """The activation of GANs: slope 0.2 below zero."""
    return nn.LeakyReLU(0.2, inplace=True)


def dense(widths: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Linear layers from width to width with an activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class MLPEncoder(Network):
    """Dense layers with ReLU from data of any shape to numbers.

    The default width is that of the variational autoencoder 784-400-20, common for digits.

    Parameters
    ----------
    shape : sequence of int
        Shape of one row of data.
    n_outputs : int
        Numbers that come out: ``latent_dim``, or ``2 * latent_dim`` for means and log variances.
    hidden : sequence of int
        Widths of the hidden layers.
    n_classes : int
        0, or the number of classes of a conditional network.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_outputs: int,
        hidden: Sequence[int] = (400,),
        n_classes: int = 0,
    ) -> None:
        super().__init__(
            shape=shape, n_outputs=n_outputs, hidden=tuple(hidden), n_classes=n_classes
        )
        self.layers = dense([prod(shape) + n_classes, *hidden, n_outputs], nn.ReLU)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, *shape]`` to ``[N, n_outputs]``."""
        x = self.checked(x, self.shape).flatten(1)
        return self.layers(self.with_labels(x, y))


class MLPDecoder(Network):
    """Dense layers with ReLU from codes to the logits of data of any shape.

    Parameters
    ----------
    latent_dim : int
        Numbers of a code.
    shape : sequence of int
        Shape of one row of data.
    hidden : sequence of int
        Widths of the hidden layers.
    n_classes : int
        0, or the number of classes of a conditional network.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        hidden: Sequence[int] = (400,),
        n_classes: int = 0,
    ) -> None:
        super().__init__(
            latent_dim=latent_dim, shape=shape, hidden=tuple(hidden), n_classes=n_classes
        )
        self.latent_dim = latent_dim
        self.layers = dense([latent_dim + n_classes, *hidden, prod(shape)], nn.ReLU)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, latent_dim]`` to logits ``[N, *shape]``."""
        x = self.checked(x, [self.latent_dim])
        return self.layers(self.with_labels(x, y)).unflatten(1, self.shape)


class ConvEncoder(Network):
    """Convolutions 3x3 with leaky ReLU, then one dense layer.

    The defaults are the encoder for digits of D. Foster: Generative deep learning (2019).

    Parameters
    ----------
    shape : sequence of int
        ``(C, H, W)``.
    n_outputs : int
        Numbers that come out: ``latent_dim``, or ``2 * latent_dim`` for means and log variances.
    channels : sequence of int
        Channels that come out of each convolution.
    strides : sequence of int
        Of each convolution; a side of length h becomes ``ceil(h / stride)``.
    n_classes : int
        0, or the number of classes of a conditional network.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_outputs: int,
        channels: Sequence[int] = (32, 64, 64, 64),
        strides: Sequence[int] = (1, 2, 2, 1),
        n_classes: int = 0,
    ) -> None:
        depth, height, width = image_shape(shape)
        super().__init__(
            shape=shape,
            n_outputs=n_outputs,
            channels=tuple(channels),
            strides=tuple(strides),
            n_classes=n_classes,
        )
        if len(strides) != len(channels):
            raise ValueError(
                f"channels and strides must be equally many; got {len(channels)} and {len(strides)}."
            )
        layers: list[nn.Module] = []
        for (before, after), stride in zip(
            pairwise([depth + n_classes, *channels]), strides, strict=True
        ):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.LeakyReLU(inplace=True)]
        step = prod(strides)
        features = channels[-1] * ceil(height / step) * ceil(width / step)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, n_outputs))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, C, H, W]`` to ``[N, n_outputs]``."""
        return self.layers(self.with_labels(self.checked(x, self.shape), y))


class ConvDecoder(Network):
    """One dense layer, then transposed convolutions 3x3 with leaky ReLU: `ConvEncoder` mirrored.

    Parameters
    ----------
    latent_dim : int
        Numbers of a code.
    shape : sequence of int
        ``(C, H, W)``. Where a side is no multiple of the product of the strides, the next multiple
        is made and its middle is taken.
    channels : sequence of int
        Channels that go into the first layer, and come out of each but the last; C come out of the
        last.
    strides : sequence of int
        Of each transposed convolution, one more than channels.
    n_classes : int
        0, or the number of classes of a conditional network.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        channels: Sequence[int] = (64, 64, 32),
        strides: Sequence[int] = (1, 2, 2, 1),
        n_classes: int = 0,
    ) -> None:
        depth, height, width = image_shape(shape)
        super().__init__(
            latent_dim=latent_dim,
            shape=shape,
            channels=tuple(channels),
            strides=tuple(strides),
            n_classes=n_classes,
        )
        if len(strides) != len(channels) + 1:
            raise ValueError(
                "there must be one stride more than channels; got"
                f" {len(strides)} strides and {len(channels)} channels."
            )
        self.latent_dim = latent_dim
        step = prod(strides)
        base = (channels[0], ceil(height / step), ceil(width / step))
        layers: list[nn.Module] = [
            nn.Linear(latent_dim + n_classes, prod(base)),
            nn.LeakyReLU(inplace=True),
            nn.Unflatten(1, base),
        ]
        for (before, after), stride in zip(
            pairwise([channels[0], *channels, depth]), strides, strict=True
        ):
            layers += [
                nn.ConvTranspose2d(before, after, 3, stride, padding=1, output_padding=stride - 1),
                nn.LeakyReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers[:-1])

    def begin_at(self, mean: Tensor) -> None:
        """Set the last bias so that an untrained network gives about the mean of each channel.

        From logits of 0 the first steps on mostly black images go too far, to where the sigmoid is
        flat and no gradient leads back.

        Parameters
        ----------
        mean : Tensor
            ``[C, H, W]``, of rows in [0, 1].
        """
        levels = mean.mean((1, 2)).clamp(0.01, 0.99)
        bias = self.layers[-1].bias
        assert isinstance(bias, Tensor)
        with torch.no_grad():
            bias.copy_(levels.logit())

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, latent_dim]`` to logits ``[N, C, H, W]``."""
        x = self.checked(x, [self.latent_dim])
        return crop(self.layers(self.with_labels(x, y)), *self.shape[1:])


class MLPGenerator(Network):
    """Dense layers with batch norm and leaky ReLU from noise to data in [-1, 1] of any shape.

    Parameters
    ----------
    latent_dim : int
        Numbers of a code.
    shape : sequence of int
        Shape of one row of data.
    hidden : sequence of int
        Widths of the hidden layers.
    n_classes : int
        0, or the number of classes of a conditional network.
    norm : "batch" or "none"
        Normalisation of the hidden layers. Without it, few of MNIST's shapes are learned.

    Raises
    ------
    ValueError
        If ``norm`` is something else.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        hidden: Sequence[int] = (256, 512),
        n_classes: int = 0,
        norm: str = "batch",
    ) -> None:
        super().__init__(
            latent_dim=latent_dim, shape=shape, hidden=tuple(hidden), n_classes=n_classes, norm=norm
        )
        if norm not in ("batch", "none"):
            raise ValueError(f'norm must be "batch" or "none"; got {norm!r}.')
        self.latent_dim = latent_dim
        widths = [latent_dim + n_classes, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers.append(nn.Linear(before, after, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm1d(after))
            layers.append(leaky_relu())
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], prod(shape)), nn.Tanh())

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, latent_dim]`` to data ``[N, *shape]`` in [-1, 1]."""
        x = self.checked(x, [self.latent_dim])
        return self.layers(self.with_labels(x, y)).unflatten(1, self.shape)


class MLPDiscriminator(Network):
    """Dense layers with leaky ReLU from data of any shape to one logit: is it real?

    Parameters
    ----------
    shape : sequence of int
        Shape of one row of data.
    hidden : sequence of int
        Widths of the hidden layers.
    n_classes : int
        0, or the number of classes of a conditional network.
    spectral_norm : bool
        Divide each weight matrix by its largest singular value. T. Miyato, T. Kataoka, M. Koyama,
        Y. Yoshida: Spectral normalization for generative adversarial networks (2018).
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (512, 256),
        n_classes: int = 0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(
            shape=shape, hidden=tuple(hidden), n_classes=n_classes, spectral_norm=spectral_norm
        )
        self.layers = dense([prod(shape), *hidden, max(1, n_classes)], leaky_relu)
        if spectral_norm:
            spectrally_normalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, *shape]`` to logits ``[N]``."""
        x = self.checked(x, self.shape).flatten(1)
        return self.logits(self.layers(x), y)


def spectrally_normalise(network: nn.Module) -> None:
    """Divide the weight of each linear and convolutional layer by its largest singular value."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            with_spectral_norm(module)
