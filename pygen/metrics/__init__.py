"""Judging images that a model made: how they compare with real ones, and what to compare that with.

Every function takes real and made images, or features of them, apart: which split of the data is the reference is
the caller's choice, and belongs beside the figure.

==========================  ============================================================  =========================
`Classifier`                a small network trained on the data's own labels               features and classes
`cached_classifier`         the same, read again if it has been trained before
`Inception`                 the network whose distances are FID and KID, of a user's file  features
`compare_images`            classes, neighbours, distances at once, by a classifier        one dict
`class_shares`              how often each class was made                                  equal shares
`class_entropy`             how evenly classes were made, in nats                          log(number of classes)
`prdc`                      precision, recall, density, coverage                           all near 1
`frechet_distance`          distance of the normal distributions fitted to both            0
`kernel_distance`           squared maximum mean discrepancy with KID's kernel             0
`two_sample_accuracy`       can the nearest neighbour tell them apart?                     1/2
`mmd_test`                  does a permutation test see a difference?                      a p-value above .05
`nearest`                   the nearest training image of each, and how far it is
`memorisation`              are made images nearer to training images than new real ones?  1/2
`half_samples`, `estimate`  a 95% confidence interval of any of these
`independent_pixels`        the baseline: each pixel as in the data, without the others
==========================  ============================================================  =========================

The floor of each figure is what other real images get in place of made ones.
"""

from pygen.deep.losses import kernel_distance
from pygen.metrics.cache import cached_classifier
from pygen.metrics.classes import class_entropy, class_shares
from pygen.metrics.classifier import Classifier
from pygen.metrics.comparison import (
    compare_classes,
    compare_images,
    compare_pairs,
    independent_pixels,
    thinned,
)
from pygen.metrics.copies import Nearest, memorisation, nearest
from pygen.metrics.frechet import frechet_distance
from pygen.metrics.inception import Inception
from pygen.metrics.intervals import Estimate, estimate, half_samples
from pygen.metrics.mmd import MMDTest, mmd_test
from pygen.metrics.neighbours import PRDC, prdc, two_sample_accuracy

__all__ = [
    "PRDC",
    "Classifier",
    "Estimate",
    "Inception",
    "MMDTest",
    "Nearest",
    "cached_classifier",
    "class_entropy",
    "class_shares",
    "compare_classes",
    "compare_images",
    "compare_pairs",
    "estimate",
    "frechet_distance",
    "half_samples",
    "independent_pixels",
    "kernel_distance",
    "memorisation",
    "mmd_test",
    "nearest",
    "prdc",
    "thinned",
    "two_sample_accuracy",
]
