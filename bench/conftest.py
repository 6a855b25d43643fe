"""Fixtures of all benchmarks: real data, pygen timed beside a peer, and the facts of the machine."""

import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as PeerMixture
from threadpoolctl import threadpool_info

import pygen
from pygen import GaussianMixture

DATA = Path(__file__).parents[2] / "shared" / "data"

# A library's threads spin for a while after a call and take the cores from the other's: timed call by call in turn,
# each looks up to three times as slow as it is. So each has its turn for a block of calls, after a pause.
BLOCKS = 3
BLOCKS_WITHOUT_TARGET = 2
BLOCK_SECONDS = 0.5
MOST_CALLS = 20
PAUSE_SECONDS = 0.3


def pytest_configure() -> None:
    if "PYGEN_DATA" not in os.environ and DATA.is_dir():
        os.environ["PYGEN_DATA"] = str(DATA)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Say what the figures depend on, and leave out the machine's name."""
    machine_info.pop("node", None)
    blas = [
        f"{pool['internal_api']} {pool['version']} ({pool['num_threads']} threads)"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    native = pygen.ops.native
    machine_info["facts"] = {
        "CPU": machine_info["cpu"].get("brand_raw") or machine_info["processor"],
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "instructions": _instructions(machine_info["cpu"].get("flags", [])),
        "torch": f"{torch.__version__} ({torch.get_num_threads()} threads,"
        f" {'MKL' if torch.backends.mkl.is_available() else 'no MKL'})",
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "BLAS of the peer": ", ".join(sorted(set(blas))),
        "pygen": f"{pygen.__version__}, kernels: {native.compiler if native else 'not compiled'}",
        "load before": os.environ.get("BENCH_LOAD_BEFORE", "unknown"),
    }


def _instructions(flags: list[str]) -> str:
    """The widest vectors, and whether there are tiles, which multiply half precision fast."""
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "unknown"
    return f"{vectors}, {'AMX' if 'amx_bf16' in flags else 'no AMX'}"


@pytest.fixture(scope="session")
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[60000, 784]`` and labels int64 ``[60000]``."""
    try:
        images, labels = pygen.data.load("mnist")
    except FileNotFoundError as error:
        pytest.skip(f"no MNIST: {error}")
    return images.flatten(1).numpy(), labels.numpy()


@pytest.fixture(scope="session")
def rows(mnist: tuple[np.ndarray, np.ndarray]) -> Callable[[int, str], np.ndarray]:
    """``rows(n, dtype)``: the first images ``[n, 784]``, in [0, 1]."""
    return lambda n, dtype: mnist[0][:n].astype(dtype) / np.asarray(255, dtype)


@pytest.fixture(scope="session")
def mixtures(
    rows: Callable[[int, str], np.ndarray],
) -> Callable[..., tuple[GaussianMixture, PeerMixture]]:
    """``mixtures(kind, n_components, n, dtype)``: pygen's and scikit-learn's in the same state.

    The state is that of a real fit on n rows: k-means, then two iterations.
    """

    @cache
    def state(kind: str, n_components: int, n: int) -> GaussianMixture:
        model = GaussianMixture(
            n_components, covariance_type=kind, tol=0, max_iter=2, random_state=0
        )
        with pytest.warns(ConvergenceWarning):
            return model.fit(rows(n, "float32"))

    def pair(
        kind: str, n_components: int, n: int, dtype: str
    ) -> tuple[GaussianMixture, PeerMixture]:
        fitted = state(kind, n_components, n)
        models = (
            GaussianMixture(n_components, covariance_type=kind, random_state=0),
            PeerMixture(n_components, covariance_type=kind, random_state=0),
        )
        for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
            for model in models:
                setattr(model, name, getattr(fitted, name).astype(dtype))
        for model in models:
            model.n_features_in_ = fitted.n_features_in_
        return models

    return pair


@pytest.fixture
def record(benchmark: BenchmarkFixture) -> Callable[..., None]:
    """``record(...)``: keep the measurements of a case where compare.py finds them."""

    def keep(
        case: str,
        unit: str,
        ours: list[float],
        peer: list[float],
        peer_name: str,
        ratio: float | None = None,
        limit: float | None = None,
    ) -> None:
        benchmark.group = case
        benchmark.extra_info.update(
            {"case": case, "unit": unit, "ours": ours, "peer": peer, "peer_name": peer_name}
        )
        benchmark.extra_info.update({"target_ratio": ratio, "target_limit": limit})

    return keep


@pytest.fixture
def versus(benchmark: BenchmarkFixture, record: Callable[..., None]) -> Callable[..., None]:
    """``versus(case, ours, peer, agree, ...)``: time two functions that do the same, in alternating blocks.

    Both are called once to warm up, and ``agree(result, peer_result)`` asserts that they did the same. ``target`` is
    the ratio that pygen should reach.
    """

    def calls(seconds: float) -> int:
        return max(1, min(MOST_CALLS, int(BLOCK_SECONDS / seconds)))

    def compare(
        case: str,
        ours: Callable[[], Any],
        peer: Callable[[], Any],
        agree: Callable[[Any, Any], None],
        *,
        peer_name: str = "scikit-learn",
        target: float | None = None,
    ) -> None:
        our_seconds, our_result = _timed(ours)
        time.sleep(PAUSE_SECONDS)
        peer_warm_up, peer_result = _timed(peer)
        agree(our_result, peer_result)
        del our_result, peer_result
        blocks = BLOCKS if target else BLOCKS_WITHOUT_TARGET
        our_calls, peer_calls = calls(our_seconds), calls(peer_warm_up)
        peer_seconds: list[float] = []
        done = 0

        def before_call() -> None:
            nonlocal done
            if done % our_calls == 0:
                time.sleep(PAUSE_SECONDS)
                peer_seconds.extend(_timed(peer)[0] for _ in range(peer_calls))
                time.sleep(PAUSE_SECONDS)
            done += 1

        benchmark.pedantic(ours, setup=before_call, rounds=blocks * our_calls)
        if benchmark.enabled:
            times = list(benchmark.stats.stats.data)
            record(case, "s", times, peer_seconds, peer_name, ratio=target)

    return compare


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = function()  # held until the clock is read: freeing it is no part of the time
    return time.perf_counter() - begin, result
