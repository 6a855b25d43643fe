#!/usr/bin/env bash
# Build, test and measure pygen on a machine with an NVIDIA GPU. Needs its Python with PyTorch (CUDA), pybind11, pytest and
# scikit-learn, nvcc, cmake, ninja and a C++ compiler; fetches and installs nothing.
#
#   bench/gpu.sh all                    everything, as long as it takes
#   bench/gpu.sh build                  pygen._C into the package, for this GPU
#   bench/gpu.sh test [gpu|ops|density ...]
#   bench/gpu.sh sanitize [memcheck|racecheck ...]
#   bench/gpu.sh bench [CASE ...]       named cases; without names those the day's results lack
#   bench/gpu.sh list | show FILE       the cases | the table of results
#
# Each of build, test NAME, sanitize NAME and bench ends within ten minutes; bench goes on where it stopped when run
# again. Results of a day are merged into bench/results/GPU-DATE.json (--results FOLDER: elsewhere). A part that fails
# does not stop the others; the exit status then is 1. `bench --device cpu` rehearses the benchmarks without a GPU, in
# tiny sizes. PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' bench/gpu.sh
  exit 0
fi
python=${PYTHON:-python3}
for folder in "${CUDA_HOME:-/usr/local/cuda}/bin"; do
  if ! command -v nvcc >/dev/null && [[ -x "$folder/nvcc" ]]; then
    PATH="$folder:$PATH"
  fi
done
export PATH PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
missing=$("$python" - <<'END'
from importlib.util import find_spec
needed = {"torch": "torch", "numpy": "numpy", "sklearn": "scikit-learn", "safetensors": "safetensors", "tqdm": "tqdm"}
print(*(package for module, package in needed.items() if find_spec(module) is None))
END
)
if [[ -n "$missing" ]]; then
  echo "bench/gpu.sh: $python lacks $missing; PYTHON=... names another interpreter" >&2
  exit 1
fi
exec "$python" -m bench.gpu "$@"
