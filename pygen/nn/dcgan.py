"""Generator and discriminator of DCGAN, for pictures of any height and width.

A. Radford, L. Metz, S. Chintala: Unsupervised representation learning with deep convolutional
generative adversarial networks (2016).
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

from torch import Tensor, nn
from torch.nn.functional import pad

from pygen.nn.acceleration import accelerate
from pygen.nn.network import Network, crop, image_shape
from pygen.nn.networks import leaky_relu, spectrally_normalise

# The widest layer is that of 64x64 pictures: doubled on, weights would be most of a 256x256 network.
_WIDEST = 8


def _plan(height: int, width: int, channels: int) -> tuple[tuple[int, int], list[int]]:
    """The smallest map's sides, and the channels from it on, one for each doubling.

    The smaller side is doubled from 4 to 7 pixels, but at least twice and from at least 2.
    """
    doublings = max(2, min(height, width).bit_length() - 3)
    base = tuple(max(2, ceil(side / 2**doublings)) for side in (height, width))
    return (base[0], base[1]), [channels * min(_WIDEST, 2**i) for i in reversed(range(doublings))]


def dcgan_init_(module: nn.Module) -> nn.Module:
    """Draw new weights as Radford does, from PyTorch's global generator.

    Parameters
    ----------
    module : nn.Module
        Weights of its convolutions become N(0, 0.02), scales of its normalisations N(1, 0.02)
        (mean, standard deviation), biases 0; spectral norm is seen through. Other layers stay.

    Returns
    -------
    nn.Module
        The same module.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            mean = 0.0
        elif isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d):
            mean = 1.0
        else:
            continue
        for name, parameter in layer.named_parameters():
            if name == "bias":
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, mean, 0.02)
    return module


class DCGANGenerator(Network):
    """Transposed convolutions with batch norm and ReLU from noise to pictures in [-1, 1].

    The first makes the smallest map from the code, the others double its sides (kernel 4, stride
    2); tanh follows the last. 64x64 pictures are made from 4x4, 32x32 from 4x4, 28x28 from 7x7, 8x8
    from 2x2.

    Parameters
    ----------
    latent_dim : int
        Numbers of a code.
    shape : sequence of int
        ``(C, H, W)``. Sides that are not a doubled base are made larger; their middle is taken.
    width : int
        Channels that go into the last layer; twice as many go into each one before, up to 8 times.
    n_classes : int
        0, or the number of classes of a conditional network.
    """

    def __init__(
        self, latent_dim: int, shape: Sequence[int], width: int = 64, n_classes: int = 0
    ) -> None:
        depth, *sides = image_shape(shape)
        super().__init__(latent_dim=latent_dim, shape=shape, width=width, n_classes=n_classes)
        self.latent_dim = latent_dim
        base, channels = _plan(sides[0], sides[1], width)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (-1, 1, 1)),
            nn.ConvTranspose2d(latent_dim + n_classes, channels[0], base, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        ]
        for before, after in pairwise(channels):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(
            *layers, nn.ConvTranspose2d(channels[-1], depth, 4, 2, padding=1), nn.Tanh()
        )
        dcgan_init_(self)
        accelerate(self, verbose=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, latent_dim]`` to pictures ``[N, C, H, W]`` in [-1, 1]."""
        x = self.checked(x, [self.latent_dim])
        return crop(self.layers(self.with_labels(x, y)), *self.shape[1:])


class DCGANDiscriminator(Network):
    """Convolutions with batch norm and leaky ReLU from pictures to one logit: is it real?

    The mirror of `DCGANGenerator`: each convolution halves the sides (kernel 4, stride 2), the last
    one spans the map that is left.

    Parameters
    ----------
    shape : sequence of int
        ``(C, H, W)``. Sides that are not a doubled base are padded with zeros all round.
    width : int
        Channels that come out of the first layer; twice as many out of each one after, up to 8
        times.
    n_classes : int
        0, or the number of classes of a conditional network.
    norm : "batch", "instance" or "none"
        Normalisation of all layers but the first and the last. Gradient penalties need one that
        does not couple the pictures of a batch.
    spectral_norm : bool
        Divide each weight by its largest singular value. T. Miyato, T. Kataoka, M. Koyama, Y.
        Yoshida: Spectral normalization for generative adversarial networks (2018).
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        n_classes: int = 0,
        norm: str = "batch",
        spectral_norm: bool = False,
    ) -> None:
        depth, *sides = image_shape(shape)
        super().__init__(
            shape=shape,
            width=width,
            n_classes=n_classes,
            norm=norm,
            spectral_norm=spectral_norm,
        )
        if norm not in ("batch", "instance", "none"):
            raise ValueError(f'norm must be "batch", "instance" or "none"; got {norm!r}.')
        base, channels = _plan(sides[0], sides[1], width)
        channels.reverse()
        extra = [side * 2 ** len(channels) - s for side, s in zip(base, sides, strict=True)]
        # In the order of torch.nn.functional.pad: left, right, top, bottom.
        self._padding = [
            part for total in reversed(extra) for part in (total // 2, total - total // 2)
        ]
        layers: list[nn.Module] = [
            nn.Conv2d(depth, channels[0], 4, 2, padding=1),
            leaky_relu(),
        ]
        for before, after in pairwise(channels):
            layers.append(nn.Conv2d(before, after, 4, 2, padding=1, bias=norm == "none"))
            if norm != "none":
                layers.append(
                    nn.BatchNorm2d(after)
                    if norm == "batch"
                    else nn.InstanceNorm2d(after, affine=True)
                )
            layers.append(leaky_relu())
        self.layers = nn.Sequential(
            *layers, nn.Conv2d(channels[-1], max(1, n_classes), base), nn.Flatten()
        )
        dcgan_init_(self)
        if spectral_norm:
            spectrally_normalise(self)
        accelerate(self, verbose=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``[N, C, H, W]`` to logits ``[N]``."""
        x = self.checked(x, self.shape)
        return self.logits(self.layers(pad(x, self._padding) if any(self._padding) else x), y)
