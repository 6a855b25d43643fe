"""Networks: plain torch modules, usable alone, of which the deep models are made."""

from pygen.nn.acceleration import accelerate, accelerated, batches_apart, restore
from pygen.nn.blocks import ConvBnAct2d, ConvTransposeBnAct2d
from pygen.nn.captured import CapturedStep
from pygen.nn.dcgan import DCGANDiscriminator, DCGANGenerator, dcgan_init_
from pygen.nn.folding import fold
from pygen.nn.network import Network
from pygen.nn.networks import (
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPDiscriminator,
    MLPEncoder,
    MLPGenerator,
)

__all__ = [
    "CapturedStep",
    "ConvBnAct2d",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTransposeBnAct2d",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGenerator",
    "Network",
    "accelerate",
    "accelerated",
    "batches_apart",
    "dcgan_init_",
    "fold",
    "restore",
]
