"""`pygen info`: what is there, and how to get what is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn
import torch

import pygen
from pygen import ops
from pygen.cli import main


@pytest.fixture
def info(capsys: pytest.CaptureFixture[str]):
    def run() -> dict[str, str]:
        assert main(["info"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line[:20].strip(): line[20:] for line in lines if line}

    return run


def test_versions_and_devices(info) -> None:
    found = info()
    assert found["pygen"] == pygen.__version__
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert found["scikit-learn"] == sklearn.__version__
    assert found["device cpu"] == f"{torch.get_num_threads()} threads"
    assert ("device cuda:0" in found) == torch.cuda.is_available()


def test_extension(info, monkeypatch: pytest.MonkeyPatch) -> None:
    built = SimpleNamespace(
        compiler="GNU 12",
        torch_version="2.13.0",
        cpu_instruction_set="avx2",
        cpu_matrix_unit=False,
        cuda_architectures="80-real 90a-real",
        cuda_compiler="nvcc 13.0",
    )
    monkeypatch.setattr(ops, "native", built)
    found = info()
    assert found["extension"] == "pygen._C, GNU 12, built against torch 2.13.0"
    assert found["CPU kernels"] == "avx2"
    assert found["CUDA kernels"] == "80-real 90a-real, nvcc 13.0"

    built.cpu_instruction_set, built.cpu_matrix_unit = "avx512", True
    assert info()["CPU kernels"] == "avx512, AMX for bfloat16"

    built.cuda_architectures = ""
    assert "install nvcc" in info()["CUDA kernels"]

    monkeypatch.setattr(ops, "native", None)
    monkeypatch.setattr(ops, "native_error", "No module named 'pygen._C'")
    found = info()
    assert "No module named 'pygen._C'" in found["extension"]
    assert "CUDA kernels" not in found


def test_data(info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("PYGEN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = info()
    assert found["data folders"] == f"{tmp_path}, {tmp_path / 'cache' / 'pygen'}"
    assert found["data digits"] == "part of scikit-learn"
    assert found["data mnist"] == str(tmp_path / "mnist")
    for name in ("cifar10", "fashion_mnist"):
        assert found[f"data {name}"].startswith("missing; get it: ")
        assert str(tmp_path / name) in found[f"data {name}"]
