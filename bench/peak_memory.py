"""Print the peak memory in MB that a fit adds, and the mean log-likelihood it reached.

    peak_memory.py LIBRARY ROWS.npy COMPONENTS [--mapped]

The fit is a diagonal mixture, k-means and 3 iterations. The peak counts from when the data, the imports and the threads
of a first small fit are there. With --mapped the rows stay in their file: what of it the system keeps in memory is
taken from nobody, so only the pages that are no file's count, read every few milliseconds. Reads Linux's /proc.
"""

import argparse
import gc
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

PROCESS = Path("/proc/self")
SECONDS = 0.002  # between two looks


def status(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    lines = (PROCESS / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024 / 1e6


class Peak(threading.Thread):
    """The largest RssAnon seen until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self.value = status("RssAnon")

    def run(self) -> None:
        while not self._done.wait(SECONDS):
            self.value = max(self.value, status("RssAnon"))

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=["pygen", "scikit-learn"])
    parser.add_argument("rows")
    parser.add_argument("components", type=int)
    parser.add_argument("--mapped", action="store_true")
    asked = parser.parse_args()
    if asked.library == "pygen":
        from pygen import GaussianMixture
    else:
        from sklearn.mixture import GaussianMixture
    warnings.simplefilter("ignore")  # of not having converged
    x = np.load(asked.rows, mmap_mode="r" if asked.mapped else None)

    def fit(part: np.ndarray) -> Any:
        mixture = GaussianMixture(
            asked.components, covariance_type="diag", tol=0, max_iter=3, random_state=0
        )
        return mixture.fit(part)

    fit(x[:200])
    gc.collect()
    if asked.mapped:
        peak = Peak()
        before = peak.value
        peak.start()
        model = fit(x)
        added = peak.stop() - before
    else:
        (PROCESS / "clear_refs").write_text("5")  # sets the peak back, see proc(5)
        before = status("VmRSS")
        model = fit(x)
        added = status("VmHWM") - before
    print(added, model.lower_bound_)


if __name__ == "__main__":
    main()
