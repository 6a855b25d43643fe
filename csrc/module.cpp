// Loads the kernels, which register themselves with torch's dispatcher, and says how they were built.
#include <pybind11/pybind11.h>

#include "gaussian/gaussian.h"
#include "isa.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "pygen's compiled kernels (the operators live in torch.ops.pygen) and how they were built.";
  m.attr("compiler") = PYGEN_COMPILER;
  m.attr("cuda_compiler") = PYGEN_CUDA_COMPILER;
  m.attr("cuda_architectures") = PYGEN_CUDA_ARCHITECTURES;
  m.attr("torch_version") = PYGEN_TORCH_VERSION;
  m.attr("cpu_matrix_unit") = pygen::has_amx();
  m.attr("cpu_instruction_set") = pygen::normal_kernels().instruction_set;
}
