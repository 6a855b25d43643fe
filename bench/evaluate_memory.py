"""Print the peak memory in MB of `pygen evaluate` on 50,000 training images of 32x32 pixels in colour, and its seconds.

    evaluate_memory.py [--features pixels] [--n-samples N]

All of the process counts: PyTorch, the data, 50,000 samples and 20,000 held-out images. The images are made up, of ten
classes. Without an option the features are a classifier's. Exits with 1 above 2,000 MB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_TRAIN, N_TEST = 50_000, 20_000
SHAPE = (3, 32, 32)
LIMIT = 2000  # MB


def images(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 ``[n, 3, 32, 32]``, noise around the mean of a class, and the classes."""
    labels = rng.integers(0, 10, n)
    means = np.random.default_rng(0).integers(60, 196, (10, *SHAPE))
    drawn = np.empty((n, *SHAPE), np.uint8)
    for i in range(0, n, 1000):  # so that making them is not what takes the most memory
        part = labels[i : i + 1000]
        drawn[i : i + 1000] = means[part] + rng.integers(-60, 60, (len(part), *SHAPE))
    return drawn, labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", default="classifier")
    parser.add_argument("--n-samples", type=int, default=N_TRAIN)
    asked = parser.parse_args()
    pygen = [sys.executable, "-c", "import sys; from pygen.cli import main; sys.exit(main())"]
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder) / "images.npz", Path(folder) / "run"
        rng = np.random.default_rng(1)
        x, y = images(N_TRAIN, rng)
        x_test, y_test = images(N_TEST, rng)
        np.savez(data, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
        fit = ["fit", "gaussian-bayes", "--data", str(data), "--out", str(run), "--levels", "16"]
        subprocess.run([*pygen, *fit], check=True)
        evaluate = ["evaluate", str(run), "--n-samples", str(asked.n_samples)]
        evaluate += ["--features", asked.features, "--resamples", "2"]
        start = time.perf_counter()
        child = subprocess.Popen([*pygen, *evaluate])
        _, status, used = os.wait4(child.pid, 0)
    megabytes = used.ru_maxrss * 1024 / 1e6
    print(f"{megabytes:.0f} MB, {time.perf_counter() - start:.0f} s")
    sys.exit(status != 0 or megabytes > LIMIT)


if __name__ == "__main__":
    main()
