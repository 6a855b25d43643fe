"""The digits, and the classifier that judges them."""

import pytest
from torch import Tensor

from pygen.data import load, to_unit
from pygen.metrics import Classifier


@pytest.fixture(scope="session")
def train() -> tuple[Tensor, Tensor]:
    images, labels = load("digits", "train")
    return to_unit(images), labels


@pytest.fixture(scope="session")
def held_out() -> tuple[Tensor, Tensor]:
    images, labels = load("digits", "test")
    return to_unit(images), labels


@pytest.fixture(scope="session")
def classifier(train: tuple[Tensor, Tensor]) -> Classifier:
    return Classifier(random_state=0).fit(*train)
