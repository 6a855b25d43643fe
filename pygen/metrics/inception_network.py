"""The Inception network of 2015 up to its last pooling, as the FID uses it.

Szegedy et al., "Rethinking the Inception architecture for computer vision" (2016), as TensorFlow's checkpoint of
5 December 2015 has it: average pools leave padding out, and the last block pools by the maximum. Modules have the names
of PyTorch's conversions of that checkpoint. (The packages that have this network import torchvision, whose builds fit
only the build of torch that they were made for.)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 299
N_FEATURES = 2048
_N_LOGITS = 1008  # of a last layer that weights have, and features do without

Kernel = int | tuple[int, int]
# Channels and kernel of a convolution; a step of a chain is one, or two that both see the same.
Convolution = tuple[int, Kernel]
Step = Convolution | tuple[Convolution, Convolution]
Chains = dict[str, Sequence[Step]]

_ROW, _COLUMN = (1, 7), (7, 1)
_FORK: Step = ((384, (1, 3)), (384, (3, 1)))


class InceptionNetwork(nn.Module):
    """Images `[N, 3, H, W]`, 0 to 255, to features `[N, 2048]`."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2, padding=0)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.MaxPool_1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, padding=0)
        self.MaxPool_2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = _Mixed(192, _fives(), "average", 32)
        self.Mixed_5c = _Mixed(256, _fives(), "average", 64)
        self.Mixed_5d = _Mixed(288, _fives(), "average", 64)
        halving: Chains = {"branch3x3": [(384, 3)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3)]}
        self.Mixed_6a = _Mixed(288, halving)
        self.Mixed_6b = _Mixed(768, _sevens(128), "average", 192)
        self.Mixed_6c = _Mixed(768, _sevens(160), "average", 192)
        self.Mixed_6d = _Mixed(768, _sevens(160), "average", 192)
        self.Mixed_6e = _Mixed(768, _sevens(192), "average", 192)
        halving = {
            "branch3x3": [(192, 1), (320, 3)],
            "branch7x7x3": [(192, 1), (192, _ROW), (192, _COLUMN), (192, 3)],
        }
        self.Mixed_7a = _Mixed(768, halving)
        self.Mixed_7b = _Mixed(1280, _forks(), "average", 192)
        self.Mixed_7c = _Mixed(2048, _forks(), "maximum", 192)
        self.AvgPool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(N_FEATURES, _N_LOGITS)

    def forward(self, images: Tensor) -> Tensor:
        x = (_resized(images.float()) - 128) / 128
        for name, module in self.named_children():
            if name != "fc":
                x = module(x)
        return x.flatten(1)


class _Convolution(nn.Module):
    """Convolution, batch norm, ReLU; as large as what it sees where the stride is 1 and nothing else is said."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: Kernel,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        same = (sides[0] // 2, sides[1] // 2)
        self.conv = nn.Conv2d(
            in_channels, channels, sides, stride, same if padding is None else padding, bias=False
        )
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Chains of convolutions beside one another and beside a pool.

    With a pool of stride 1 a convolution follows it; without, the pool and each chain's last step halve the image.
    """

    def __init__(
        self,
        in_channels: int,
        chains: Chains,
        pool: Literal["average", "maximum"] | None = None,
        pool_channels: int = 0,
    ) -> None:
        super().__init__()
        self._pool = pool
        # The names of the modules of each step of each chain.
        self._chains: list[list[list[str]]] = []
        for branch, steps in chains.items():
            before, names = in_channels, []
            for number, step in enumerate(steps, 1):
                is_fork = isinstance(step[0], tuple)
                made: Sequence[Convolution] = step if is_fork else [step]  # type: ignore[assignment, list-item]
                halves = pool is None and number == len(steps)
                name = branch if len(steps) == 1 else f"{branch}_{number}"
                names.append([name + fork for fork in ("ab" if is_fork else [""])])
                for (channels, kernel), its in zip(made, names[-1], strict=True):
                    convolution = _Convolution(
                        before, channels, kernel, *((2, 0) if halves else ())
                    )
                    self.add_module(its, convolution)
                before = sum(channels for channels, _ in made)
            self._chains.append(names)
        if pool is not None:
            self.branch_pool = _Convolution(in_channels, pool_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for chain in self._chains:
            y = x
            for step in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in step], 1)
            found.append(y)
        if self._pool is None:
            found.append(functional.max_pool2d(x, 3, stride=2))
        elif self._pool == "maximum":
            found.append(self.branch_pool(functional.max_pool2d(x, 3, stride=1, padding=1)))
        else:
            means = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            found.append(self.branch_pool(means))
        return torch.cat(found, 1)


def _fives() -> Chains:
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    }


def _sevens(c: int) -> Chains:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(c, 1), (c, _ROW), (192, _COLUMN)],
        "branch7x7dbl": [(c, 1), (c, _COLUMN), (c, _ROW), (c, _COLUMN), (192, _ROW)],
    }


def _forks() -> Chains:
    return {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1), _FORK],
        "branch3x3dbl": [(448, 1), (384, 3), _FORK],
    }


def _resized(x: Tensor) -> Tensor:
    """Images `[N, C, H, W]` brought to SIDE by SIDE as TensorFlow 1 does it: bilinear, corners not aligned, nothing
    smoothed where images shrink."""
    for dim in (3, 2):
        n = x.shape[dim]
        at = torch.arange(SIDE, device=x.device) * torch.tensor(n / SIDE, dtype=torch.float32)
        low = at.long()
        weight = (at - low).reshape([-1 if d == dim else 1 for d in range(4)])
        below, above = (x.index_select(dim, i) for i in (low, (low + 1).clamp_max(n - 1)))
        x = below + (above - below) * weight
    return x
