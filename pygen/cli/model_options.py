"""The models that can be fitted on the command line, and the texts of their options' help.

An option bears the name of the estimator's parameter and has its default. Nothing here may import
torch or scikit-learn: `pygen --help` is to answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tyro.conf import FlagCreatePairsOff


@dataclass(frozen=True)
class Density:
    """What the density models have in common, beside their parameters."""

    per_class: bool = True
    """One density for each class, or one for all images."""
    levels: int | None = None
    """Reduce pixels to so many grey levels (naive Bayes, by default: 17 for digits, else 256) and,
    for the Gaussian models, add uniform noise (by default: pixels as they are)."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1."""


@dataclass(frozen=True)
class NaiveBayes(Density):
    """Independent pixels, each a distribution over grey levels."""

    alpha: float = 1.0
    """Added to the count of every grey level (Laplace smoothing)."""


@dataclass(frozen=True)
class GaussianBayes(Density):
    """Independent pixels, each with a normal distribution."""

    var_smoothing: float = 1e-9
    """Share of the largest pixel variance that is added to all variances."""


@dataclass(frozen=True)
class GaussianMixture(Density):
    """Several normal distributions, fitted by expectation maximisation."""

    n_components: int = 1
    """Number of components (of each class, with --per-class)."""
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "full"
    """Shape of the components' covariances."""
    tol: float = 1e-3
    """Gain in log-likelihood per image (nats) below which the fit has converged."""
    reg_covar: float = 1e-6
    """Added to the diagonal of every covariance."""
    max_iter: int = 100
    """Iterations of expectation maximisation, at most."""
    n_init: int = 1
    """Number of starts; the best is kept."""
    init_params: Literal["kmeans", "k-means++", "random", "random_from_data"] = "kmeans"
    """How the components start."""
    random_state: int | None = None
    """Seed of the start."""
    verbose: int = 0
    """1 or 2: report on each start, and on its iterations."""
    dtype: Literal["float32", "float64"] | None = None
    """Type of the computation (default: that of the data, float32)."""
    precision: Literal["high", "fast", "exact"] = "high"
    """How exact densities of float32 are: nearly as float64, faster, or float64."""
    batch_size: int | None = None
    """Images on the device at a time (default: all)."""


@dataclass(frozen=True)
class Deep:
    """What the models made of networks have in common."""

    resume: FlagCreatePairsOff[bool] = False
    """Go on from the newest checkpoint in --out, bit for bit as if training had never stopped."""
    tensorboard: FlagCreatePairsOff[bool] = False
    """Write TensorBoard's event files, too (pip install pygen[tensorboard])."""
    conditional: FlagCreatePairsOff[bool] = False
    """Learn from the classes, too, so that one can be asked for."""
    max_steps: int | None = None
    """Length of the training, in batches; wins over --max-epochs."""
    max_epochs: int | None = None
    """Length of the training, in passes over the images (default: 20, of dcgan 25, and on few
    images longer)."""
    gradient_clip: float | None = None
    """Largest norm of a gradient (default: any)."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the model: those with the best metric, or the last."""
    precision: Literal["float32", "bf16"] | None = None
    """Of the computation (default: bf16 where the hardware is fast at it)."""
    compile: FlagCreatePairsOff[bool] = False
    """Compile the networks with torch.compile."""
    random_state: int | None = None
    """The same seed trains the same model (default: a new one each time)."""
    device: str | None = None
    """Where to train: cpu, cuda, cuda:1 (default: cuda where there is one)."""


@dataclass(frozen=True)
class EncoderDecoder(Deep):
    """What autoencoder and VAE have in common."""

    latent_dim: int = 2
    """Numbers of a code."""
    batch_size: int = 32
    """Images of a step."""
    learning_rate: float = 5e-4
    """Of Adam."""
    validation_fraction: float = 0.1
    """Share of the images that are held out, to find the best weights."""


@dataclass(frozen=True)
class Autoencoder(EncoderDecoder):
    """An image becomes a few numbers, and these an image again."""

    loss: Literal["mse", "bce"] = "mse"
    """Mean squared error, or binary cross-entropy, of the pixels."""


@dataclass(frozen=True)
class VAE(EncoderDecoder):
    """Variational autoencoder: codes fill a normal distribution, and so new images can be drawn."""

    likelihood: Literal["gaussian", "bernoulli", "continuous_bernoulli"] = "gaussian"
    """What the decoder says of a pixel; bernoulli is for images of black and white."""
    reconstruction_weight: float | None = None
    """r in the loss r x (mean squared error) + KL: large for sharp reconstructions, small for good
    samples (default: what makes the loss minus the evidence lower bound)."""
    kl_warmup_steps: int = 0
    """Steps in which the weight of the KL grows from 0 to 1."""


@dataclass(frozen=True)
class GAN(Deep):
    """Generative adversarial network of dense layers."""

    latent_dim: int = 100
    """Numbers of a code."""
    loss: Literal["non-saturating", "hinge", "wgan-gp", "lsgan", "relativistic"] = "non-saturating"
    """What generator and discriminator minimise."""
    batch_size: int = 64
    """Images of a step."""
    learning_rate: float = 2e-4
    """Of Adam."""
    d_learning_rate: float | None = None
    """That of the discriminator (default: the same)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Of Adam."""
    d_steps: int = 1
    """Steps of the discriminator for each of the generator."""
    d_batch: Literal["separate", "concat"] = "separate"
    """Whether the discriminator sees real and made images in batches apart or in one."""
    ema_decay: float = 0.999
    """The model is the moving average of the generator; 0 takes the generator itself."""
    label_smoothing: float = 0.0
    """Real images have the label 1 minus this."""
    instance_noise: float = 0.0
    """Standard deviation of noise on all images that the discriminator sees."""
    spectral_norm: FlagCreatePairsOff[bool] = False
    """Bound the discriminator's slope."""
    gradient_penalty: float | None = None
    """Weight of the gradient penalty (default: 10 with wgan-gp, else 0)."""
    r1: float = 0.0
    """Weight of the squared gradient at real images."""


@dataclass(frozen=True)
class DCGAN(GAN):
    """GAN of strided convolutions with batch norm."""

    batch_size: int = 128
    """Images of a step."""
    width: int = 64
    """Channels next to the image; twice as many at each halving of its sides."""
    d_norm: Literal["batch", "instance", "none"] = "batch"
    """Normalisation in the discriminator; a gradient penalty needs instance or none."""


Model: TypeAlias = NaiveBayes | GaussianBayes | GaussianMixture | Autoencoder | VAE | GAN | DCGAN
