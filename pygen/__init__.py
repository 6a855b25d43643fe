"""Classic generative models behind one interface, fast on CPUs and GPUs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pygen import data, deep, density, nn, ops
    from pygen.deep import DCGAN, GAN, VAE, Autoencoder
    from pygen.density import ClassConditional, GaussianBayes, GaussianMixture, NaiveBayes
    from pygen.io import load
    from pygen.nn import accelerate, restore

__version__ = "0.1.0"

__all__ = [
    "DCGAN",
    "GAN",
    "VAE",
    "Autoencoder",
    "ClassConditional",
    "GaussianBayes",
    "GaussianMixture",
    "NaiveBayes",
    "accelerate",
    "data",
    "deep",
    "density",
    "load",
    "nn",
    "ops",
    "restore",
]

# Loaded when first used: PyTorch takes seconds, and `pygen --help` should not.
_HOMES = {
    "DCGAN": "pygen.deep",
    "GAN": "pygen.deep",
    "VAE": "pygen.deep",
    "Autoencoder": "pygen.deep",
    "ClassConditional": "pygen.density",
    "GaussianBayes": "pygen.density",
    "GaussianMixture": "pygen.density",
    "NaiveBayes": "pygen.density",
    "accelerate": "pygen.nn",
    "load": "pygen.io",
    "restore": "pygen.nn",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"pygen.{name}")
    else:
        raise AttributeError(f"module 'pygen' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
