"""How a GAN is trained: the step of its two players."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from pygen.deep.ema import Ema
from pygen.deep.losses import GAN_LOSSES, gradient_penalty, r1_penalty
from pygen.deep.model_task import ModelTask, adam, call
from pygen.nn import DCGANDiscriminator, MLPDiscriminator, batches_apart
from pygen.nn.acceleration import keeps_batches_apart
from pygen.ops import normal, uniform

if TYPE_CHECKING:
    from pygen.deep.gan import GAN

# Weight of the gradient penalty in "wgan-gp" (Gulrajani et al., 2017).
WGAN_PENALTY = 10.0


class GANTask(ModelTask):
    """One step: the discriminator learns to tell rows apart, the generator to be taken for real."""

    losses = ("discriminator", "generator")

    def __init__(self, model: GAN, networks: nn.ModuleDict, seed: int) -> None:
        super().__init__(networks, *model._seen_as(), model.conditional, seed)
        self.model = model
        self.generator, self.discriminator = networks["generator"], networks["discriminator"]
        self.may_join = not model.compile and _rows_meet_in_batch_norm_alone(self.discriminator)
        self.normalises_rows = any(isinstance(m, nn.BatchNorm1d) for m in self.generator.modules())
        self.loss = GAN_LOSSES[model.loss]
        self.penalty = penalty_weight(model)
        self.trained = [p for p in self.discriminator.parameters() if p.requires_grad]
        rates = {"generator": model.learning_rate, "discriminator": model.d_learning_rate}
        self.optimizers = {
            name: adam(networks[name].parameters(), rate or model.learning_rate, model.betas)
            for name, rate in rates.items()
        }
        if model.ema_decay:
            self.averages = {"generator": Ema(self.generator, model.ema_decay)}

    def step(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        x, y = self.seen(x, y)
        reals = (2 * x - 1).chunk(self.model.d_steps)
        labels = [None] * len(reals) if y is None else y.chunk(self.model.d_steps)
        if self.normalises_rows and len(reals[-1]) < 2:
            raise ValueError(
                "a step takes n_samples=1, but batch norm in the generator needs at least 2 rows: fit more rows, with"
                " batch_size >= 2 (of a DataLoader: drop_last=True), or pass generator=pygen.nn.MLPGenerator(...,"
                ' norm="none").'
            )
        for real, label in zip(reals, labels, strict=True):
            # 1. The generator makes as many rows as there are real ones; only the last go on to its own step.
            with torch.set_grad_enabled(real is reals[-1]), self.autocast():
                fake = self.made(len(real), label)
            discriminator = self.discriminator_step(real, fake.detach().to(real.dtype), label)
        generator = self.generator_step(real, fake, label)
        for average in self.averages.values():
            average.update()
        return {"discriminator": discriminator, "generator": generator}

    def discriminator_step(self, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        # 2. The discriminator looks at both, 3. and learns to call the real ones 1 and the made ones 0.
        real, fake = self.noisy(real), self.noisy(fake)
        with self.autocast():
            of_real, of_fake = self.judged(real, fake, y)
        loss = self.loss.discriminator(of_real, of_fake, self.model.label_smoothing)
        self.update(self.optimizers["discriminator"], loss + self.penalties(real, fake, y))
        return loss.detach()

    def generator_step(self, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        # 4. The discriminator stays as it is, and the generator learns to make what it calls 1. 5. And so on.
        with self.frozen_discriminator():
            with self.autocast():
                of_fake = call(self.discriminator, self.noisy(fake), y).float()
            of_real = of_fake.detach()
            if self.loss.needs_real:
                with torch.no_grad(), self.autocast():
                    of_real = call(self.discriminator, self.noisy(real), y).float()
            loss = self.loss.generator(of_fake, of_real)
            self.update(self.optimizers["generator"], loss)
        return loss.detach()

    def made(self, n: int, y: Tensor | None) -> Tensor:
        """Rows of the generator."""
        codes = normal(self.state, [n, self.model.latent_dim])
        return call(self.generator, codes, y)

    def noisy(self, x: Tensor) -> Tensor:
        if not self.model.instance_noise:
            return x
        return x + self.model.instance_noise * normal(self.state, x.shape).to(x.dtype)

    def judged(self, real: Tensor, fake: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits of real and of made rows."""
        is_separate = self.model.d_batch == "separate"
        if is_separate and not self.may_join:
            of_real, of_fake = (call(self.discriminator, x, y) for x in (real, fake))
        else:
            labels = None if y is None else torch.cat([y, y])
            with batches_apart(self.discriminator, 2) if is_separate else nullcontext():
                both = call(self.discriminator, torch.cat([real, fake]), labels)
            of_real, of_fake = both.chunk(2)
        return of_real.float(), of_fake.float()

    def penalties(self, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor | float:
        """Penalties of gradients, in float32 and not compiled: they are differentiated twice."""

        def judge(x: Tensor) -> Tensor:
            return call(self.discriminator.forward, x, y)

        total: Tensor | float = 0.0
        if self.penalty:
            share = uniform(self.state, [len(real), *[1] * (real.dim() - 1)])
            between = torch.lerp(real, fake, share)
            total = total + self.penalty * gradient_penalty(judge, between)
        if self.model.r1:
            total = total + self.model.r1 * r1_penalty(judge, real)
        return total

    @contextmanager
    def frozen_discriminator(self) -> Iterator[None]:
        """No gradients for its weights; in "concat" no batch norm with statistics of made rows alone."""
        norms = []
        if self.model.d_batch == "concat":
            norms = [part for part in self.discriminator.modules() if isinstance(part, _BatchNorm)]
        for parameter in self.trained:
            parameter.requires_grad_(False)
        for norm in norms:
            norm.eval()
        try:
            yield
        finally:
            for parameter in self.trained:
                parameter.requires_grad_(True)
            for norm in norms:
                norm.train()


def _rows_meet_in_batch_norm_alone(discriminator: nn.Module) -> bool:
    """Whether two batches can be given as one, `batches_apart`: known of pygen's own networks.

    Not with spectral norm: it takes a step of its own at each call.
    """
    return (
        type(discriminator) in (MLPDiscriminator, DCGANDiscriminator)
        and keeps_batches_apart(discriminator)
        and not any(is_parametrized(part) for part in discriminator.modules())
    )


def penalty_weight(model: GAN) -> float:
    """Weight of the gradient penalty, the loss's own where none is given."""
    if model.gradient_penalty is None:
        return WGAN_PENALTY if model.loss == "wgan-gp" else 0.0
    return model.gradient_penalty
