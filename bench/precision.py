"""Print the error of each precision of a Gaussian mixture on MNIST, as a table.

precision.py                    the first 4,000 images, 10 components, reg_covar 1e-6
precision.py --rows 60000       more
precision.py --shift 1e4        far from zero: added to the pixels, which lie in [0, 1) and of which nothing is lost

A mixture of each covariance type is fitted in float64, by 5 iterations from k-means; then the same parameters score the
float32 rows in each precision. Errors are against float64: of the row that is worst off, in nats, and of the
log-likelihood, relative. A score is rounded to float32 (2e-4 nats where it is 4,000), which limits "exact".
"""

import argparse
import warnings

import torch

from pygen import GaussianMixture
from pygen.data import load
from pygen.ops import em_statistics, native, responsibilities
from pygen.ops.mixture import PRECISIONS


def errors(
    x: torch.Tensor, covariance_type: str, n_components: int
) -> dict[str, tuple[float, float]]:
    """Worst row in nats and relative error of the log-likelihood, by precision."""
    model = GaussianMixture(
        n_components,
        covariance_type=covariance_type,
        dtype=torch.float64,
        reg_covar=1e-6,
        tol=0,
        max_iter=5,
        random_state=0,
    ).fit(x)
    parameters = (
        model.weights_.log(),
        model.means_,
        model.precisions_cholesky_,
        covariance_type,
    )
    scores = responsibilities(x.double(), *parameters)[1]
    found = {}
    for precision in PRECISIONS:
        rows = responsibilities(x, *parameters, precision=precision)[1].double()
        total = em_statistics(x, *parameters, precision=precision)[3]
        worst = (rows - scores).abs().max().item()
        found[precision] = worst, (total / scores.sum() - 1).abs().item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--components", type=int, default=10)
    parser.add_argument("--shift", type=float, default=0.0)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of not having converged
    x = load("mnist")[0][: asked.rows].flatten(1).float().to(asked.device)
    x = x / 256 + asked.shift
    kernels = native is not None
    print(f"{len(x)} rows, K={asked.components}, {asked.device}, kernels: {kernels}")
    print(f"{'':10}" + "".join(f"{name:>22}" for name in PRECISIONS))
    for covariance_type in ("spherical", "diag", "tied", "full"):
        found = errors(x, covariance_type, asked.components)
        cells = "".join(f"{worst:>13.1e}{total:>9.0e}" for worst, total in found.values())
        print(f"{covariance_type:10}{cells}", flush=True)


if __name__ == "__main__":
    main()
