"""Density models: naive Bayes, Gaussian Bayes, Gaussian mixtures, and one of any per class."""

from pygen.density.class_conditional import ClassConditional
from pygen.density.conditional import ConditionalMixture
from pygen.density.gaussian_bayes import GaussianBayes
from pygen.density.mixture import GaussianMixture
from pygen.density.naive_bayes import NaiveBayes

__all__ = [
    "ClassConditional",
    "ConditionalMixture",
    "GaussianBayes",
    "GaussianMixture",
    "NaiveBayes",
]
