"""Train the deep models over several seeds and print what they reach, as a table and JSON.

deep_quality.py                     every case and seed that the results lack, then the table
deep_quality.py -k dcgan            only cases whose name contains this
deep_quality.py --seeds 0 1         only these seeds; default 0 to 4
deep_quality.py --again             those that the results have, too
deep_quality.py --table             train nothing
deep_quality.py --out FILE          the results; default bench/results/deep-quality.json

One thread throughout. Digits: learned from 70% of scikit-learn's (1,257) and judged on the rest (540); GANs by 1,257
samples, in the features of a classifier trained on the same 70%. MNIST: learned from its 60,000, judged on its 10,000.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import pygen
from pygen import DCGAN, VAE, Autoencoder
from pygen.data import load, to_unit
from pygen.files import write_file
from pygen.metrics import Classifier, compare_images, independent_pixels
from pygen.nn import MLPDecoder, MLPEncoder
from pygen.ops import reparameterize
from pygen.random import new_state

RESULTS = Path(__file__).parent / "results" / "deep-quality.json"
N_SAMPLES = 1257
DIGITS, MNIST = (1, 8, 8), (1, 28, 28)

Figures = dict[str, float]


class Case(NamedTuple):
    """What is trained with a seed, and the limits of what it reaches: at least (+) or at most (-)."""

    run: Callable[[int], Figures]
    at_least: Figures
    at_most: Figures


@cache
def images(name: str, split: str) -> tuple[Tensor, Tensor]:
    return load(name, split)


@cache
def judge(seed: int) -> Classifier:
    return Classifier(random_state=seed).fit(*images("digits", "train"))


def squared_error(a: Tensor, b: Tensor) -> float:
    return (to_unit(a, torch.float64) - to_unit(b, torch.float64)).square().mean().item()


def pca_error(n_components: int) -> float:
    """Mean squared error of the test digits on the principal components of the others."""
    train, test = (to_unit(images("digits", s)[0], torch.float64) for s in ("train", "test"))
    train, test = train.flatten(1), test.flatten(1)
    directions = torch.linalg.svd(train - train.mean(0), full_matrices=False)[2][:n_components]
    centred = test - train.mean(0)
    return (centred - centred @ directions.T @ directions).square().mean().item()


def posterior_kl(vae: VAE, x: Tensor) -> float:
    with torch.no_grad():
        mu, logvar = vae.encoder_(x).chunk(2, 1)
    return reparameterize(new_state(0), mu, logvar)[1].mean().item()


def autoencoder(seed: int, latent_dim: int) -> Figures:
    train, test = (images("digits", split)[0] for split in ("train", "test"))
    begin = time.perf_counter()
    model = Autoencoder(
        latent_dim, learning_rate=1e-3, batch_size=64, max_steps=1000, random_state=seed
    ).fit(train)
    seconds = time.perf_counter() - begin
    error, baseline = squared_error(model.reconstruct(test), test), pca_error(latent_dim)
    return {"MSE": error, "MSE of PCA": baseline, "ratio": error / baseline, "seconds": seconds}


def mlp_vae(shape: tuple[int, ...], latent_dim: int, seed: int, **parameters: Any) -> VAE:
    torch.manual_seed(seed)  # the weights of networks that are passed are drawn here, not in fit
    return VAE(
        latent_dim,
        encoder=MLPEncoder(shape, 2 * latent_dim),
        decoder=MLPDecoder(latent_dim, shape),
        learning_rate=1e-3,
        random_state=seed,
        **parameters,
    )


def vae_digits(seed: int) -> Figures:
    train, test = ((images("digits", split)[0] > 127).float() for split in ("train", "test"))
    model = mlp_vae(DIGITS, 8, seed, likelihood="bernoulli", batch_size=64, max_steps=2000)
    begin = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - begin
    elbo = model.score(test)
    iwae = model.score_samples(test, n_importance=100).mean().item()
    p = train.mean(0).clamp(1e-3, 1 - 1e-3)
    independent = (torch.xlogy(test, p) + torch.xlogy(1 - test, 1 - p)).flatten(1).sum(1).mean()
    return {
        "ELBO": elbo,
        "IWAE-100": iwae,
        "IWAE-100 - ELBO": iwae - elbo,
        "KL": posterior_kl(model, test),
        "independent pixels": independent.item(),
        "seconds": seconds,
    }


def vae_weights(seed: int) -> Figures:
    """r up: the error falls and the KL rises. The steps are the smallest changes from one r to the next."""
    train, test = (images("digits", split)[0] for split in ("train", "test"))
    found: Figures = {}
    errors, lengths = [], []
    for weight in (30.0, 100.0, 300.0, 1000.0, 3000.0):
        model = mlp_vae(
            DIGITS, 8, seed, reconstruction_weight=weight, batch_size=64, max_steps=2000
        ).fit(train)
        errors.append(squared_error(model.reconstruct(test), test))
        lengths.append(posterior_kl(model, to_unit(test)))
        found |= {f"MSE, r={weight:g}": errors[-1], f"KL, r={weight:g}": lengths[-1]}
    found["smallest fall of the MSE"] = min(a - b for a, b in pairwise(errors))
    found["smallest rise of the KL"] = min(b - a for a, b in pairwise(lengths))
    return found


def vae_mnist(seed: int) -> Figures:
    train, test = (to_unit(images("mnist", split)[0]) for split in ("train", "test"))
    model = mlp_vae(
        MNIST,
        20,
        seed,
        likelihood="bernoulli",
        batch_size=128,
        max_epochs=10,
        validation_fraction=0,
    )
    begin = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - begin
    return {"-ELBO": -model.score(test), "seconds": seconds}


def judged(seed: int, fake: Tensor) -> Figures:
    classifier, reference = judge(seed), images("digits", "test")
    accuracy = {"accuracy of the judge": classifier.score(*reference)}
    return accuracy | compare_images(reference[0], fake, classifier)


def floor(seed: int) -> Figures:
    return judged(seed, images("digits", "train")[0])


def independent(seed: int) -> Figures:
    return judged(seed, independent_pixels(images("digits", "train")[0], N_SAMPLES, seed))


def dcgan(seed: int, **parameters: Any) -> Figures:
    begin = time.perf_counter()
    model = DCGAN(max_steps=1500, random_state=seed, **parameters).fit(images("digits", "train")[0])
    seconds = time.perf_counter() - begin
    return {**judged(seed, model.sample(N_SAMPLES)[0]), "seconds": seconds}


def conditional_dcgan(seed: int) -> Figures:
    model = DCGAN(width=32, learning_rate=5e-4, conditional=True, max_steps=500, random_state=seed)
    begin = time.perf_counter()
    model.fit(*images("digits", "train"))
    seconds = time.perf_counter() - begin
    fake, labels = model.sample(N_SAMPLES, y=torch.arange(N_SAMPLES) % 10)
    right = {"judged accuracy": judge(seed).score(fake, labels)}
    return {**right, **judged(seed, fake), "seconds": seconds}


JUDGE = {"accuracy of the judge": 0.96}
DIVERSE = JUDGE | {
    "class_entropy": 2.2,
    "smallest_share": 0.03,
    "coverage": 0.55,
    "precision": 0.65,
}
NEAR = {"frechet_distance": 80.0}
CASES = {
    "autoencoder, latent 2": Case(lambda seed: autoencoder(seed, 2), {}, {"ratio": 0.8}),
    "autoencoder, latent 8": Case(lambda seed: autoencoder(seed, 8), {}, {"ratio": 0.8}),
    "VAE, latent 8, binary": Case(
        vae_digits, {"ELBO": -19.0, "IWAE-100 - ELBO": 0.0, "KL": 4.0}, {"KL": 10.0}
    ),
    "VAE, reconstruction weight": Case(
        vae_weights, {"smallest fall of the MSE": 0.0, "smallest rise of the KL": 0.0}, {}
    ),
    "VAE, MNIST 784-400-20": Case(vae_mnist, {}, {"-ELBO": 106.5, "seconds": 60.0}),
    "judging real digits": Case(floor, JUDGE, {}),
    "judging independent pixels": Case(independent, JUDGE, {}),
    "dcgan, width 32": Case(lambda seed: dcgan(seed, width=32, learning_rate=5e-4), DIVERSE, NEAR),
    "dcgan, defaults": Case(dcgan, DIVERSE, NEAR),
    "dcgan, conditional": Case(conditional_dcgan, DIVERSE | {"judged accuracy": 0.9}, NEAR),
}


def train(only: str, seeds: list[int], out: Path, again: bool) -> None:
    """Run what is missing; each result is written as soon as it is there."""
    results = kept(out)
    results["machine"] = {
        "torch": torch.__version__,
        "pygen": pygen.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
    }
    for name, case in CASES.items():
        if only not in name:
            continue
        for seed in seeds:
            figures = results["cases"].setdefault(name, {})
            if str(seed) in figures and not again:
                continue
            print(f"{name}, seed {seed} ...", file=sys.stderr, flush=True)
            figures[str(seed)] = case.run(seed)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_file(out, json.dumps(results, indent=1).encode())


def kept(out: Path) -> dict[str, Any]:
    return json.loads(out.read_text()) if out.exists() else {"cases": {}}


def show(results: dict[str, Any], only: str) -> None:
    lines = [("case", "figure", "mean", "smallest", "largest", "seeds", "limit", "")]
    for name, case in CASES.items():
        runs = list(results["cases"].get(name, {}).values())
        if only in name and runs:
            lines += [line(name, figure, case, runs) for figure in runs[0]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    before = None
    for cells in lines:
        shown = ("" if cells[0] == before else cells[0], *cells[1:])
        print("  ".join(cell.ljust(w) for cell, w in zip(shown, widths, strict=True)).rstrip())
        before = cells[0]
    print(", ".join(f"{name} {fact}" for name, fact in results.get("machine", {}).items()))


def line(name: str, figure: str, case: Case, runs: list[Figures]) -> tuple[str, ...]:
    values = [run[figure] for run in runs]
    low, high = case.at_least.get(figure, -math.inf), case.at_most.get(figure, math.inf)
    limits = [f">= {low:g}"] * (low > -math.inf) + [f"<= {high:g}"] * (high < math.inf)
    met = low <= min(values) and max(values) <= high
    numbers = [f"{value:.5g}" for value in (sum(values) / len(values), min(values), max(values))]
    judgement = "" if not limits else "met" if met else "MISSED"
    return (name, figure, *numbers, str(len(runs)), ", ".join(limits), judgement)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-k", metavar="NAME", default="")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not any(arguments.k in name for name in CASES):
        parser.error(f"-k {arguments.k}: expected part of one of {', '.join(CASES)}")
    if not arguments.table:
        torch.set_num_threads(1)
        train(arguments.k, arguments.seeds, arguments.out, arguments.again)
    show(kept(arguments.out), arguments.k)


if __name__ == "__main__":
    main()
