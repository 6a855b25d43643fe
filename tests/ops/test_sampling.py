"""Components by weight, and rows from a batch of Gaussians: kernels beside their plain-PyTorch twins."""

import ctypes

import pytest
import torch

from pygen import ops
from pygen.random import new_state

FLOAT = [torch.float32, torch.float64]
KINDS = ["spherical", "diag", "tied diag", "one number", "full", "tied"]


# The operators, whichever kernel serves them, and the plain-PyTorch functions behind them.
both_samplers = pytest.mark.parametrize(
    "sample",
    [ops.sample_gaussians, ops.sample_gaussians.__wrapped__],
    ids=["operator", "reference"],
)
both_pickers = pytest.mark.parametrize(
    "pick", [ops.pick, ops.pick.__wrapped__], ids=["operator", "reference"]
)


def state(seed, offset=0, device="cpu"):
    return torch.tensor([seed, offset], device=device)


def problem(device, dtype, kind, d, k=3, n=130):
    generator = torch.Generator().manual_seed(d)
    scales = {
        "spherical": [k, 1],
        "diag": [k, d],
        "tied diag": [1, d],
        "one number": [1, 1],
        "full": [k, d, d],
        "tied": [1, d, d],
    }[kind]
    index = torch.randint(0, k, (n,), generator=generator)
    index[index == 1] = 0  # a component without rows
    means = torch.randn(k, d, generator=generator, dtype=dtype) * 10
    factors = torch.randn(scales, generator=generator, dtype=dtype)
    return [
        x.to(device) for x in (index, means, factors.tril() if len(scales) == 3 else factors.abs())
    ]


def expected_rows(s, index, means, scales):
    """In float64, and the tolerance: d + 1 products of order 1 beside a mean of order 10, each rounded once."""
    d, dtype = means.shape[1], means.dtype
    eps = ops.normal(s, [len(index), 4 * -(-d // 4)], dtype)[:, :d].double()
    scale = scales.double().expand(len(means), *scales.shape[1:])[index]
    noise = scale * eps if scales.dim() == 2 else (scale @ eps[:, :, None])[..., 0]
    return means[index] + noise, 20 * (d + 2) * torch.finfo(dtype).eps


@both_samplers
@pytest.mark.parametrize("d", [1, 3, 4, 65, 150])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOAT)
def test_sample_gaussians_is_mean_plus_scale_times_noise(device, dtype, kind, d, sample):
    index, means, scales = problem(device, dtype, kind, d)
    s, r = state(4, 5, device), state(4, 5, device)
    found = sample(s, index, means, scales)
    expected, tolerance = expected_rows(r, index, means, scales)
    assert torch.equal(s, r)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("d", [1, 3, 4, 65, 600])
@pytest.mark.parametrize("kind", ["spherical", "diag", "tied diag", "one number"])
@pytest.mark.parametrize("dtype", FLOAT)
def test_diagonal_samples_have_the_references_bits(device, dtype, kind, d):
    arguments = problem(device, dtype, kind, d)
    found = ops.sample_gaussians(state(4, 5, device), *arguments)
    expected = ops.sample_gaussians.__wrapped__(state(4, 5), *(x.cpu() for x in arguments))
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("kind", ["diag", "full"])
@pytest.mark.parametrize("dtype", FLOAT)
def test_every_instruction_set_samples_the_same(compiled, dtype, kind):
    name = {4: "sample_float", 8: "sample_double"}[dtype.itemsize]
    run = getattr(compiled("sampling.cpp"), name)
    run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 3]
    run.argtypes = [*run.argtypes, ctypes.c_bool, ctypes.c_void_p]
    for d in (1, 33, 150):
        index, means, scales = problem("cpu", dtype, kind, d, n=20)
        s, found = state(4, 5), torch.full((20, d), torch.nan, dtype=dtype)
        pointers = [x.data_ptr() for x in (s, index, means, scales, found)]
        run(pointers[0], 20, d, *pointers[1:4], kind == "diag", pointers[4])
        expected, tolerance = expected_rows(s, index, means, scales)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
        if kind == "diag":
            bits = ops.sample_gaussians.__wrapped__(state(4, 5), index, means, scales)
            assert torch.equal(found, bits)


@both_samplers
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOAT)
def test_samples_do_not_depend_on_split_or_threads(dtype, kind, sample):
    for d in (3, 70):
        index, means, scales = problem("cpu", dtype, kind, d, n=300)
        whole = sample(state(4), index, means, scales)
        threads = torch.get_num_threads()
        for rows in (5, 33, 250):
            s = state(4)
            try:
                torch.set_num_threads(rows % 3 + 1)
                parts = [sample(s, part, means, scales) for part in index.split(rows)]
            finally:
                torch.set_num_threads(threads)
            assert torch.equal(whole, torch.cat(parts))


@pytest.mark.skipif(ops.native is None, reason="no compiled kernels")
@pytest.mark.parametrize("dtype", FLOAT)
def test_a_rows_bits_do_not_depend_on_the_rows_beside_it(dtype):
    index, means, scales = problem("cpu", dtype, "full", 70, n=300)
    whole = ops.sample_gaussians(state(4), index, means, scales)
    for row in (0, 17, 299):
        others = torch.full_like(index, 1)
        others[row] = index[row]
        assert torch.equal(ops.sample_gaussians(state(4), others, means, scales)[row], whole[row])


@both_samplers
def test_arguments_that_are_not_contiguous(sample):
    index, means, scales = problem("cpu", torch.float32, "full", 6)
    expected = sample(state(4), index, means, scales)
    strided = index.repeat_interleave(2)[::2], means.T.contiguous().T, scales.mT.contiguous().mT
    assert torch.equal(sample(state(4), *strided), expected)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_sample_gaussians_moments(kind):
    index, means, scales = problem("cpu", torch.float64, kind, 5, k=2, n=200_000)
    index[:] = 1
    x = ops.sample_gaussians(new_state(0), index, means, scales)
    covariance = scales[1].square().diag() if kind == "diag" else scales[1] @ scales[1].T
    variance = covariance.diag()
    deviation = (x.mean(0) - means[1]) / (variance / len(x)).sqrt()
    assert deviation.abs().max() < 5
    # Var of a sample covariance: (C_ij^2 + C_ii C_jj) / N.
    spread = ((covariance.square() + variance[:, None] * variance) / len(x)).sqrt()
    assert ((x.T.cov() - covariance) / spread).abs().max() < 5


@both_samplers
def test_sample_gaussians_of_nothing(sample):
    for n, d in ((0, 3), (130, 0)):
        index, means, scales = problem("cpu", torch.float32, "full", d, n=n)
        for factors in (scales, scales.new_ones(len(scales), d)):
            s = state(1)
            assert sample(s, index, means, factors).shape == (n, d)
            assert s.tolist() == [1, 0]


@both_samplers
def test_sample_gaussians_bad_arguments(sample):
    index, means, scales = problem("cpu", torch.float32, "full", 3)
    s = state(1)
    with pytest.raises(ValueError, match="index must be int64"):
        sample(s, index.int(), means, scales)
    with pytest.raises(ValueError, match=r"means must be \[K, D\]"):
        sample(s, index, means[0], scales)
    with pytest.raises(ValueError, match="dtype of means"):
        sample(s, index, means, scales.double())
    for bad in (scales[:2], scales[:, :2], scales[:, 0, :2], scales[0, 0]):
        with pytest.raises(ValueError, match="scales must be"):
            sample(s, index, means, bad)
    with pytest.raises(RuntimeError, match="dtype must be one of"):
        sample(s, index, means.half(), scales.half())
    for wrong in (-1, 3):
        index[7] = wrong
        for factors in (scales, scales[:, 0]):
            with pytest.raises(IndexError):
                sample(s, index, means, factors)


@both_pickers
@pytest.mark.parametrize("n", [0, 1, 4, 7, 4099])
@pytest.mark.parametrize("dtype", FLOAT)
def test_pick_is_the_inverse_cdf_of_uniform_draws(device, dtype, n, pick):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(300, generator=generator, dtype=dtype)
    weights[::7] = 0
    weights[-3:] = 0
    s, r = state(7, 2**32 - 5, device), state(7, 2**32 - 5)
    found = pick(s, weights.to(device), n)
    totals = weights.double().cumsum(0)
    draws = ops.uniform(r, [n], torch.float64) * totals[-1]
    assert found.device.type == device.type
    assert torch.equal(found.cpu(), (draws[:, None] >= totals).sum(1))
    assert s.tolist() == r.tolist()


@both_pickers
def test_pick_draws_by_weight_and_never_what_has_none(device, pick):
    weights = torch.tensor([0.0, 2.0, 0.0, 1.0, 5.0, 0.0], device=device)
    n = 200_000
    picks = pick(new_state(1, device), weights, n)
    counts, p = picks.bincount(minlength=6), weights / 8
    assert (counts[p == 0] == 0).all()
    assert ((counts - n * p).abs() <= 5 * (n * p * (1 - p)).sqrt()).all()
    assert (pick(new_state(1, device), weights[1:2], 100) == 0).all()


@both_pickers
def test_the_first_picks_do_not_depend_on_how_many_there_are(device, pick):
    weights = torch.ones(10, device=device)
    many = pick(state(3, 0, device), weights, 10_001)
    assert torch.equal(pick(state(3, 0, device), weights, 77), many[:77])


@both_pickers
def test_pick_bad_arguments(pick):
    for bad in (torch.ones(2, 2), torch.ones(0), torch.ones(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"weights must be float32 or float64 \[K\]"):
            pick(state(1), bad, 3)
    for bad in ([0.0, 0.0], [1.0, -0.5], [1.0, torch.nan], [torch.inf, 1.0]):
        with pytest.raises(ValueError, match="weights must be finite, not negative"):
            pick(state(1), torch.tensor(bad), 3)
    with pytest.raises(RuntimeError, match="size must not be negative"):
        pick(state(1), torch.ones(2), -1)
    with pytest.raises(RuntimeError, match=r"int64 tensor of shape \[2\]"):
        pick(state(1).double(), torch.ones(2), 3)


@pytest.mark.parametrize("dtype", FLOAT)
def test_opcheck(device, dtype):
    for kind in KINDS:
        arguments = (state(1, 0, device), *problem(device, dtype, kind, 6))
        torch.library.opcheck(torch.ops.pygen.sample_gaussians.default, arguments)
    weights = torch.ones(3, dtype=dtype, device=device)
    torch.library.opcheck(torch.ops.pygen.pick.default, (state(1, 0, device), weights, 7))


def test_compile_fullgraph(device):
    _, means, scales = problem(device, torch.float32, "diag", 6)
    weights = torch.ones(3, device=device)

    def draw(s):
        return ops.sample_gaussians(s, ops.pick(s, weights, 130), means, scales) * 2

    s, r = state(1, 0, device), state(1, 0, device)
    torch.testing.assert_close(torch.compile(draw, fullgraph=True)(s), draw(r))
    assert torch.equal(s, r)
