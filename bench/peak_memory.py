"""Print the peak memory in MB that a fit adds, and the mean log-likelihood it reached.

    peak_memory.py LIBRARY ROWS.npy

The fit is a diagonal mixture of 100 components, k-means and 3 iterations. The peak counts from when the data, the
imports and the threads of a first small fit are there. Reads Linux's /proc.
"""

import gc
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

PROCESS = Path("/proc/self")


def status(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    lines = (PROCESS / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024 / 1e6


def main(library: str, path: str) -> None:
    if library == "pygen":
        from pygen import GaussianMixture
    else:
        from sklearn.mixture import GaussianMixture
    warnings.simplefilter("ignore")  # of not having converged
    x = np.load(path)

    def fit(part: np.ndarray) -> Any:
        mixture = GaussianMixture(100, covariance_type="diag", tol=0, max_iter=3, random_state=0)
        return mixture.fit(part)

    fit(x[:200])
    gc.collect()
    (PROCESS / "clear_refs").write_text("5")  # sets the peak back, see proc(5)
    before = status("VmRSS")
    model = fit(x)
    print(status("VmHWM") - before, model.lower_bound_)


if __name__ == "__main__":
    main(*sys.argv[1:])
