"""A pass of EM never waits for a value of the device: the CPU stands for one here."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pygen.ops.dense import linear_em
from pygen.ops.mixture import em_statistics
from pygen.ops.triangular import inverse_factors

# Operators that read from the device, by a part of their names.
READING = ("_local_scalar_dense", "nonzero", "equal", "bincount", "masked_select", "unique")


class NoReading(TorchDispatchMode):
    """Operators of pygen count as one: those called here have kernels for CUDA."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert not any(part in str(operator) for part in READING), operator
        if "aten.index" in str(operator):
            assert all(index is None or index.dtype == torch.int64 for index in args[1]), operator
        return operator(*args, **(kwargs or {}))


def problem(k, d):
    g = torch.Generator().manual_seed(0)
    x, means = torch.randn(500, d, generator=g), torch.randn(k, d, generator=g).double()
    factors = {
        "spherical": torch.ones(k).double(),
        "diag": torch.ones(k, d).double(),
        "tied": torch.eye(d).double(),
        "full": torch.eye(d).double().repeat(k, 1, 1),
    }
    return x, torch.zeros(k).double(), means, factors


@pytest.mark.parametrize("kind", ["spherical", "diag", "tied", "full"])
def test_a_pass_of_em_does_not_read(kind):
    x, log_weights, means, factors = problem(3, 5)
    with NoReading():
        em_statistics.__wrapped__(x, log_weights, means, factors[kind], kind, x[:, 0].square())


def test_what_a_pass_has_in_plain_pytorch_on_a_gpu_does_not_read():
    x, constant, linear, _ = problem(3, 5)
    with NoReading():
        linear_em.__wrapped__(x, linear[0], linear, constant, x[:, 0].double())
        inverse_factors.__wrapped__(torch.eye(200).double().repeat(3, 1, 1))


def test_what_reads_is_seen():
    x = torch.arange(5)
    for read in (lambda: x[x > 2], lambda: x.max().item(), x.nonzero, lambda: torch.bincount(x)):
        with pytest.raises(AssertionError), NoReading():
            read()
