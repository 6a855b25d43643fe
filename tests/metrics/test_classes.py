import math

import pytest
import torch

from pygen.metrics import class_entropy, class_shares

CLASSES = torch.tensor([3, 5, 9])


def test_shares_and_entropy():
    shares = class_shares(torch.tensor([5, 5, 9, 5]), CLASSES)
    assert shares.tolist() == [0, 0.75, 0.25]
    assert class_entropy(shares) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert class_entropy(torch.full((10,), 0.1)) == pytest.approx(math.log(10))
    assert class_entropy(torch.tensor([0.0, 1.0])) == 0


def test_refused():
    with pytest.raises(ValueError, match=r"one of \[3, 5, 9\], found 4"):
        class_shares(torch.tensor([3, 4]), CLASSES)
    with pytest.raises(ValueError, match="each once"):
        class_shares(torch.tensor([3]), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"\[N\] with N >= 1"):
        class_shares(torch.tensor([]), CLASSES)
