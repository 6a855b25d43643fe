"""The precisions of the mixture operators: "exact" is float64, "fast" reaches the kernels."""

import pytest
import torch
from mixtures import TYPES, mixture
from torch.utils._python_dispatch import TorchDispatchMode

import pygen.ops.mixture
from pygen.ops import em_statistics, responsibilities


@pytest.mark.parametrize("covariance_type", TYPES)
def test_exact_is_float64_whatever_the_rows(covariance_type, monkeypatch):
    monkeypatch.setattr(
        pygen.ops.mixture, "_CONVERTED", 5 * 48
    )  # 21 blocks, the last of them not full
    parameters = mixture(covariance_type)
    g = torch.Generator().manual_seed(1)
    x, weights = 2 * torch.randn(1000, 5, generator=g), torch.rand(1000, generator=g)
    for weight in (None, weights):
        found = em_statistics(x, *parameters, covariance_type, weight, precision="exact")
        for mine, wanted in zip(
            found, em_statistics(x.double(), *parameters, covariance_type, weight), strict=True
        ):
            torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-11)
    found = responsibilities(x, *parameters, covariance_type, precision="exact")
    for mine, wanted in zip(
        found, responsibilities(x.double(), *parameters, covariance_type), strict=True
    ):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, wanted.float(), rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_precision_changes_nothing_for_float64_rows(covariance_type):
    parameters = mixture(covariance_type)
    x = torch.randn(300, 5, dtype=torch.float64)
    for function in (em_statistics, responsibilities):
        high = function(x, *parameters, covariance_type)
        for precision in ("fast", "exact"):
            other = function(x, *parameters, covariance_type, precision=precision)
            assert all(map(torch.equal, high, other))


class Calls(TorchDispatchMode):
    """Arguments of pygen's operators that are called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "pygen":
            names = [argument.name for argument in func._schema.arguments]
            self.seen.append(dict(zip(names, args, strict=False)) | (kwargs or {}))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("function", [em_statistics, responsibilities])
def test_fast_reaches_every_kernel_that_knows_it(covariance_type, function):
    x = torch.randn(50, 5)
    for precision, wanted in (("fast", True), ("high", False), ("exact", False)):
        with Calls() as calls:
            function.__wrapped__(x, *mixture(covariance_type), covariance_type, precision=precision)
        densities = [call for call in calls.seen if "precisions" in call or "factor" in call]
        densities += [call for call in calls.seen if "precisions_cholesky" in call]
        assert densities
        assert all(call.get("fast", False) is wanted for call in densities)
        if precision != "high":
            assert all(call["x"].dtype == (x if wanted else x.double()).dtype for call in densities)
