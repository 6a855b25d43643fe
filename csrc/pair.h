// Who is responsible for which rows, of the posteriors of all mixtures.
#pragma once
#include <cstdint>

namespace pygen {

// A row, a group that has it, and with what weight.
struct Pair {
  int64_t row;
  int64_t group;
  double weight;
};

// log(1e-18), where a responsibility begins to matter: as pygen/ops/posterior.py has it.
constexpr double kLogNegligible = -41.44653167389282;

}  // namespace pygen
