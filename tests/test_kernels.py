"""The static gate: what nvcc makes of every CUDA kernel, on every architecture shipped, is what was meant."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))

from kernels import Kernel, Unavailable, compile_commands, compile_kernels  # noqa: E402

# The least number of instructions of a class (bench/kernels.py) in each kernel, by name: of a kernel's source, its name
# alone survives into the machine code. A kernel without a row is an error.
EXPECTED = {
    "normal_kernel<(float|__half|__nv_bfloat16)>": {"stores": 1},
    "normal_kernel<double>": {"stores": 2},
    "fast_normal_kernel<(float|__half|__nv_bfloat16)>": {"stores": 1},
    "advance_kernel": {},
    "reparameterize_kernel<float, float>": {"loads": 2, "stores": 1},
    "reparameterize_kernel<(__half|__nv_bfloat16), float>": {"loads": 2, "stores": 2},
    "reparameterize_kernel<double, double>": {"loads": 4, "stores": 2},
    "reparameterize_backward_kernel<float, float>": {"loads": 3, "stores": 2},
    "reparameterize_backward_kernel<(__half|__nv_bfloat16), float>": {"loads": 4, "stores": 2},
    "reparameterize_backward_kernel<double, double>": {"loads": 6, "stores": 4},
    "diagonal_kernel<float, true, (true|false)>": {"loads": 2, "stores": 1},
    "diagonal_kernel<double, true, false>": {"loads": 4, "stores": 2},
    "diagonal_kernel<(float|double), false, (true|false)>": {},
    "half_product_kernel": {"loads": 8, "shared loads": 12, "tensor": 48},
    "double_product_kernel": {},
    "noise_kernel<(float|double), (true|false)>": {"stores": 2},
    "split_factor_kernel": {"stores": 2},
    "(starts|tiles|totals|advance_rows)_kernel": {},
    "unknown_rows_kernel<(float|double)>": {},
    "pick_kernel": {"stores": 2},
    "expanded_kernel<true, false>": {"loads": 4, "tensor": 48},
    "expanded_kernel<false, false>": {"loads": 2, "tensor": 48},
    "expanded_kernel<true, true>": {"loads": 4, "tensor": 16},
    "expanded_kernel<false, true>": {"loads": 2, "tensor": 16},
    "(centre|expansion|difference|finish|likelihood)_kernel": {},
    "(posterior|relative)_kernel<(float|double)>": {},
    "sums_kernel<float, true>": {"loads": 1},
    "sums_kernel<double, true>": {"loads": 2},
    "sums_kernel<(float|double), false>": {},
    "(count|scan|place)_kernel": {},
    "(group_totals|round)_kernel<(float|double)>": {},
    "group_sums_kernel<float, true>": {"loads": 1},
    "group_sums_kernel<double, true>": {"loads": 2},
    "group_sums_kernel<(float|double), false>": {},
    "(closer|assign)_kernel<DistanceShape<float, .*>, (true|false)>": {
        "loads": 2,
        "shared loads": 10,
    },
    "(closer|assign)_kernel<DistanceShape<double, .*>, (true|false)>": {
        "loads": 2,
        "shared loads": 8,
    },
    "(move|close)_kernel<(float|double)>": {},
    "whiten_kernel<(float|double), true, false>": {"loads": 6, "tensor": 48},
    "whiten_kernel<(float|double), false, false>": {"tensor": 48},
    "whiten_kernel<(float|double), true, true>": {"loads": 6, "tensor": 16},
    "whiten_kernel<(float|double), false, true>": {"tensor": 16},
    "whiten_double_kernel": {"tensor": 16},
    "scatter_kernel<(float|double)>": {"tensor": 16},
    "prepare_factor_kernel<(float|double), (float|double)>": {},
    "(split_means_kernel<float>|posterior_kernel|total_kernel|compact_kernel|sum_parts_kernel)": {},
    "(best|candidates|diagonal_factor)_kernel": {},
    "eliminate_kernel<(true|false)>": {"tensor": 16},
    "map_kernel<TileShape<(__half|__nv_bfloat16), .*>, (true|false)>": {
        "loads": 8,
        "stores": 1,
        "shared loads": 14,
        "tensor": 16,
    },
    "map_kernel<TileShape<float, .*>, (true|false)>": {"loads": 8, "stores": 1, "tensor": 24},
    "few_kernel<(__half|__nv_bfloat16)>": {"loads": 1, "shared loads": 8, "tensor": 16},
    "few_kernel<float>": {"loads": 1, "tensor": 48},
    "weight_kernel<TileShape<(__half|__nv_bfloat16), .*> ?>": {
        "loads": 8,
        "shared loads": 8,
        "tensor": 16,
    },
    "weight_kernel<TileShape<float, .*> ?>": {"loads": 8, "tensor": 24},
    "plain_(map|weight)_kernel<.*>": {},
    "normalise_kernel<.*, [248]>": {"loads": 1, "stores": 1},
    "gradient_sums_kernel<.*, [248], true>": {"loads": 2},
    "gradient_sums_kernel<.*, [248], false>": {"loads": 2, "stores": 1},
    "gradient_kernel<.*, [248]>": {"loads": 2, "stores": 1},
    "(normalise|gradient_sums|gradient)_kernel<.*, 1(, (true|false))?>": {},
    "merge_statistics_kernel<(float|double)>": {},
    "(merge_sums|add_parts)_kernel<.*>": {},
}

PLANTED = """
#include <cuda_fp16.h>

__global__ void __launch_bounds__(32) right(const int4* in, int4* out) {
  __shared__ int4 tile[32];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  unsigned a[4], c[2] = {0, 0};
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(tile + threadIdx.x));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(address));
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%2, %3}, {%0, %1};"
               : "+r"(c[0]), "+r"(c[1]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
  out[threadIdx.x] = make_int4(c[0], c[1], c[0], c[1]);
}

// As much as `right`, by scalar accesses and arithmetic.
__global__ void __launch_bounds__(32) scalar(const float* in, float* out) {
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = in[4 * threadIdx.x + i] * in[i];
}

template <int kLive>
__device__ float mixed(const float* in) {
  float x[kLive], sum = 0;
  for (int i = 0; i < kLive; ++i) x[i] = in[32 * i];
  for (int i = 0; i < kLive; ++i) sum += x[i] * x[kLive - 1 - i];
  for (int i = 0; i < kLive; ++i) sum = sum * x[i] + x[kLive / 2];
  return sum;
}

__global__ void __launch_bounds__(1024) spills(const float* in, float* out) { *out = mixed<100>(in); }

__device__ __noinline__ float called(const float* in) { return mixed<100>(in); }
__global__ void __launch_bounds__(1024) calls_what_spills(const float* in, float* out) { *out = called(in); }

__global__ void __launch_bounds__(32) local_array(const int* in, int* out) {
  int x[16];
  for (int i = 0; i < 16; ++i) x[in[i] & 15] = i;
  *out = x[in[16] & 15];
}

__global__ void unbounded(const float* in, float* out) { *out = mixed<100>(in); }
"""


def faults(kernel: Kernel, least: dict[str, int]) -> list[str]:
    """What is wrong with a kernel as compiled, in words."""
    found = []
    if kernel.spills:
        found.append(f"spills {kernel.spills} bytes of registers")
    if kernel.stack or kernel.counts["local"]:
        found.append(f"keeps {kernel.stack} bytes in local memory")
    if kernel.blocks < 1:
        found.append(
            f"{kernel.registers} registers a thread are too many for a block of"
            f" {kernel.max_threads or 'unbounded'} threads; give it __launch_bounds__"
        )
    for label, n in least.items():
        if kernel.counts[label] < n:
            found.append(f"{label}: {kernel.counts[label]} instructions, at least {n} expected")
    return found


@pytest.fixture(scope="module")
def commands() -> list[tuple[Path, str, list[str]]]:
    try:
        return list(compile_commands())
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def kernels(commands) -> list[Kernel]:
    return [kernel for command in commands for kernel in compile_kernels(*command)]


@pytest.fixture(scope="module")
def planted(commands, tmp_path_factory) -> list[Kernel]:
    source = tmp_path_factory.mktemp("planted") / "planted.cu"
    source.write_text(PLANTED)
    options = {architecture: command for _, architecture, command in commands}
    return [k for item in options.items() for k in compile_kernels(source, *item)]


def test_every_source_is_compiled_for_every_architecture(commands, kernels):
    sources = {source for source, _, _ in commands}
    assert sources == set(ROOT.glob("csrc/**/*.cu"))
    architectures = {architecture for _, architecture, _ in commands}
    assert len(commands) == len(sources) * len(architectures)
    compiled = {(kernel.name, kernel.architecture) for kernel in kernels}
    assert len(compiled) == len(kernels)
    assert compiled == {(k.name, a) for k in kernels for a in architectures}


def test_every_kernel_has_a_row_and_every_row_a_kernel(kernels):
    names = {kernel.name for kernel in kernels}
    rows = {name: [row for row in EXPECTED if re.fullmatch(row, name)] for name in names}
    assert {name: found for name, found in rows.items() if len(found) != 1} == {}
    assert {row for found in rows.values() for row in found} == set(EXPECTED)


def test_kernels_are_compiled_as_meant(kernels):
    wrong = {}
    for kernel in kernels:
        least = next((n for row, n in EXPECTED.items() if re.fullmatch(row, kernel.name)), {})
        if found := faults(kernel, least):
            wrong[kernel.name, kernel.architecture] = found
    assert not wrong


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("right", None),
        ("scalar", "loads: 0 instructions.*stores: 0 .*shared loads: 0 .*tensor: 0 "),
        ("spills", r"spills \d+ bytes"),
        ("calls_what_spills", r"spills \d+ bytes"),
        ("local_array", "^keeps 64 bytes in local memory"),
        ("unbounded", "^[0-9]+ registers a thread are too many"),
    ],
)
def test_gate_sees(planted, name, fault):
    least = dict.fromkeys(("loads", "stores", "shared loads", "tensor"), 1)
    compiled = [kernel for kernel in planted if kernel.name == name]
    assert compiled
    for kernel in compiled:
        found = "; ".join(faults(kernel, least if name in ("right", "scalar") else {}))
        assert re.search(fault, found) if fault else not found, kernel
