"""Naive Bayes: fitting classes of MNIST beside scikit-learn's classifiers."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.naive_bayes import CategoricalNB, GaussianNB

from pygen import GaussianBayes, NaiveBayes

ROWS = 30_000


@pytest.mark.parametrize("levels", [256, 16])
def test_naive_bayes(
    mnist: tuple[np.ndarray, np.ndarray], versus: Callable[..., None], levels: int
) -> None:
    x, y = mnist[0][:ROWS] // (256 // levels), mnist[1][:ROWS]
    # What it is fastest with: it turns other types into int64, and takes column after column.
    for_peer = np.asfortranarray(x, dtype=np.int64)
    model, peer = NaiveBayes(levels), CategoricalNB(min_categories=levels)

    def agree(mine: NaiveBayes, other: CategoricalNB) -> None:
        expected = np.stack(other.feature_log_prob_, axis=1)
        np.testing.assert_allclose(mine.feature_log_prob_, expected, rtol=1e-9)

    case = f"NaiveBayes fit, {levels} levels, {ROWS // 1000}k x 784"
    versus(case, lambda: model.fit(x, y), lambda: peer.fit(for_peer, y), agree, target=10.0)


def test_gaussian_bayes(
    mnist: tuple[np.ndarray, np.ndarray],
    rows: Callable[[int, str], np.ndarray],
    versus: Callable[..., None],
) -> None:
    x, y = rows(ROWS, "float32"), mnist[1][:ROWS]
    model, peer = GaussianBayes(), GaussianNB()

    def agree(mine: GaussianBayes, other: GaussianNB) -> None:
        # scikit-learn sums in float32, and is 1.2e-5 off the float64 mean.
        np.testing.assert_allclose(mine.theta_, other.theta_, atol=3e-5)
        np.testing.assert_allclose(mine.var_, other.var_, atol=3e-5)

    case = f"GaussianBayes fit, {ROWS // 1000}k x 784 float32"
    versus(case, lambda: model.fit(x, y), lambda: peer.fit(x, y), agree, target=10.0)
