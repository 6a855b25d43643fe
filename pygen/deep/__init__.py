"""Deep generative models: autoencoder, VAE, GAN, DCGAN, and the trainer they share."""

from pygen.deep.autoencoder import Autoencoder
from pygen.deep.dcgan import DCGAN
from pygen.deep.divergence import TrainingDiverged
from pygen.deep.gan import GAN
from pygen.deep.vae import VAE

__all__ = ["DCGAN", "GAN", "VAE", "Autoencoder", "TrainingDiverged"]
