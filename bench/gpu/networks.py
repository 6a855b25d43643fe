"""A training step of DCGAN, by pygen's layers and as PyTorch runs it in its ways to be fast."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bench.gpu.measure import Machine, Work, with_tf32
from pygen.nn import DCGANDiscriminator, DCGANGenerator, batches_apart, restore

LATENT = 100
# GFLOP of one generator pass over 128 pictures of 64x64, width 64; the discriminator is its mirror. A step is eleven:
# made images; two passes and their backward (twice each) through the discriminator; then through it once more,
# back to the images, and through the generator.
PASS, PASSES = 26.8e9 / 128, 11


class Step:
    """One update of the discriminator, on real and made images, and one of the generator.

    Parameters
    ----------
    machine : Machine
    batch, width : int
        Images, and channels of the outermost maps.
    amp : bool
        bfloat16 autocast and channels_last, else float32 NCHW.
    mode : str, optional
        Compile the networks by ``torch.compile(mode=...)``.
    accelerated : bool
        Networks as pygen makes them, and real and made images in one call; else of PyTorch's layers, in two.
    """

    def __init__(
        self,
        machine: Machine,
        batch: int,
        width: int,
        amp: bool,
        mode: str | None = None,
        accelerated: bool = False,
    ) -> None:
        self.machine, self.batch, self.amp, self.accelerated = machine, batch, amp, accelerated
        shape = (3, 64, 64)
        layout = torch.channels_last if amp else torch.contiguous_format
        self.networks = [
            network.to(machine.device, memory_format=layout)  # type: ignore[call-overload]
            for network in (
                DCGANGenerator(LATENT, shape, width),
                DCGANDiscriminator(shape, width),
            )
        ]
        if not accelerated:
            for network in self.networks:
                restore(network)
        self.generator, self.discriminator = self.networks
        if mode is not None:
            how: dict[str, Any] = {"backend": "eager"} if machine.rehearsal else {"mode": mode}
            self.generator, self.discriminator = (torch.compile(n, **how) for n in self.networks)
        on_gpu = not machine.rehearsal
        self.adam_g, self.adam_d = (
            torch.optim.Adam(
                network.parameters(), 2e-4, betas=(0.5, 0.999), fused=on_gpu, capturable=on_gpu
            )
            for network in self.networks
        )
        real = torch.rand(batch, *shape, generator=machine.generator(), device=machine.device)
        self.real = (2 * real - 1).contiguous(memory_format=layout)

    def context(self) -> AbstractContextManager[Any]:
        if self.amp:
            return torch.autocast(self.machine.device.type, torch.bfloat16)
        return nullcontext()

    def __call__(self) -> None:
        with self.context():
            fake = self.generator(torch.randn(self.batch, LATENT, device=self.machine.device))
            of_real, of_fake = self.judged(fake.detach())
        loss = softplus(-of_real.float()).mean() + softplus(of_fake.float()).mean()
        self.adam_d.zero_grad()
        loss.backward()
        self.adam_d.step()
        self.networks[1].requires_grad_(False)
        with self.context():
            of_fake = self.discriminator(fake)
        loss = softplus(-of_fake.float()).mean()
        self.adam_g.zero_grad()
        loss.backward()
        self.adam_g.step()
        self.networks[1].requires_grad_(True)

    def judged(self, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of real and of made images."""
        if not self.accelerated:
            return self.discriminator(self.real), self.discriminator(fake)
        with batches_apart(self.discriminator, 2):
            of_real, of_fake = self.discriminator(torch.cat([self.real, fake])).chunk(2)
        return of_real, of_fake

    def captured(self) -> Callable[[], None]:
        """The step as one CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self()
        return graph.replay

    def error(self) -> float:
        """Of the logits of made images, by the standard deviation of float64's."""
        images = max(self.batch, 32)  # of the 4 of a rehearsal the deviation may be next to nothing
        codes = torch.randn(
            images, LATENT, generator=self.machine.generator(), device=self.machine.device
        )
        generator, discriminator = (copy.deepcopy(network).double() for network in self.networks)
        with torch.no_grad():
            expected = discriminator(generator(codes.double()))
            with self.context():
                found = self.discriminator(self.generator(codes)).double()
        return float((found - expected).square().mean().sqrt() / expected.std())


def in_graph(step: Step) -> Callable[[], None]:
    """Replays the step's graph, which the first call captures."""
    replay: list[Callable[[], None]] = []

    def run() -> None:
        if step.machine.rehearsal:
            raise RuntimeError("a graph can be captured on a GPU only")
        if not replay:
            replay.append(step.captured())
        replay[0]()

    return run


def dcgan(
    machine: Machine, batch: int, mode: str, limit: float, best: float, eager: float | None = None
) -> Iterator[Work]:
    """By how much pygen's step, captured, should be faster: than the best of the others, and than eager bf16."""
    batch, width = (4, 8) if machine.rehearsal else (machine.rows(batch, 2**25), 64)
    torch.backends.cudnn.benchmark = True
    work: dict[str, Any] = {"flops": PASSES * PASS * batch, "unit": "bfloat16"}
    plain = Step(machine, batch, width, amp=False)
    yield Work(
        "eager, NCHW, TF32", with_tf32(plain), **work, error=with_tf32(plain.error), tolerance=0.05
    )
    steps = {
        "pygen": Step(machine, batch, width, amp=True, accelerated=True),
        "eager": Step(machine, batch, width, amp=True),
        f"compile {mode}": Step(machine, batch, width, amp=True, mode=mode),
    }
    beats = {f"{name}, channels_last, bf16, graph": best for name in steps if name != "pygen"}
    if eager is not None:
        beats["eager, channels_last, bf16"] = eager
    for name, step in steps.items():
        named = f"{name}, channels_last, bf16"
        yield Work(named, step, **work, error=step.error, tolerance=0.2)
        goal: dict[str, Any] = {"limit": limit, "beats": beats} if name == "pygen" else {}
        if not (machine.rehearsal and name == "pygen"):
            yield Work(f"{named}, graph", in_graph(step), **work, **goal)


SMALL: dict[str, Any] = {"batch": 128, "limit": 0.85e-3, "best": 1.4, "eager": 3.0}
LARGE: dict[str, Any] = {"batch": 1024, "limit": 5.6e-3, "best": 1.25}
AUTOTUNE = "max-autotune-no-cudagraphs"

CASES: dict[str, Callable[[Machine], Iterator[Work]]] = {
    "dcgan-128": partial(dcgan, mode="default", **SMALL),
    "dcgan-1024": partial(dcgan, mode="default", **LARGE),
    "dcgan-128-autotune": partial(dcgan, mode=AUTOTUNE, **SMALL),
    "dcgan-1024-autotune": partial(dcgan, mode=AUTOTUNE, **LARGE),
}
