"""A small classifier trained on the data's own labels: the features and the classes by which images are judged."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pygen.random import RandomState, as_seed

BATCH_SIZE = 64
N_FEATURES = 64
LEARNING_RATE = 3e-3
# Images that pass through at a time when judging.
_CHUNK = 1024


class Classifier:
    """Convolutional network of three layers, for images of any size.

    Takes seconds to train and gets .97 to .98 of the digits right; on photographs it is weak, and so are figures in
    its features. What it gives is repeatable: the seed decides weights and batches.

    Parameters
    ----------
    max_steps : int
        Steps of training, 64 images each.
    width : int
        Channels of the first layer.
    random_state : optional
        See :func:`pygen.random.as_seed`.

    Attributes
    ----------
    classes_ : Tensor
        int64 ``[K]``, the labels there are, sorted.
    network_ : nn.Sequential
        ``[features, head]``, in eval mode.

    Examples
    --------
    >>> from pygen.data import load
    >>> from pygen.metrics import Classifier
    >>> judge = Classifier(random_state=0).fit(*load("digits", "train"))
    >>> judge.score(*load("digits", "test")) > 0.96
    True
    """

    classes_: Tensor
    network_: nn.Sequential

    def __init__(
        self, *, max_steps: int = 400, width: int = 32, random_state: RandomState = None
    ) -> None:
        self.max_steps = max_steps
        self.width = width
        self.random_state = random_state

    def fit(self, images: Any, labels: Any) -> "Classifier":
        """Train.

        Parameters
        ----------
        images : Tensor or ndarray
            ``[N, C, H, W]``, uint8 or floats in [0, 1].
        labels : Tensor or ndarray
            Integers ``[N]``, of at least two classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If shapes or numbers are others.
        """
        x = _unit(images)
        y = torch.as_tensor(labels, device=x.device)
        if y.shape != x.shape[:1] or y.is_floating_point():
            raise ValueError(
                f"labels: expected integers [{len(x)}], one for each image, found {y.dtype}"
                f" {list(y.shape)}"
            )
        self.classes_, target = y.unique(return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("labels: expected at least two classes, found one")
        self._mean, self._deviation = x.mean(), x.std().clamp_min(1e-6)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(as_seed(self.random_state))
            network = _network(x.shape[1:], self.width, len(self.classes_)).to(x.device)
            self._train(network, self._standardised(x), target)
        self.network_ = network.eval()
        return self

    def features(self, images: Any) -> Tensor:
        """float32 ``[N, 64]``, at least 0: what the last layer sees of images ``[N, C, H, W]``."""
        return self._in_pieces(self.network_[0], images)

    def predict(self, images: Any) -> Tensor:
        """int64 ``[N]``: the class of each of images ``[N, C, H, W]``."""
        return self.classes_[self._in_pieces(self.network_, images).argmax(1)]

    def score(self, images: Any, labels: Any) -> float:
        """Accuracy on images ``[N, C, H, W]`` of labels ``[N]``."""
        labels = torch.as_tensor(labels, device=self.classes_.device)
        return (self.predict(images) == labels).double().mean().item()

    def state(self) -> dict[str, Tensor]:
        """All that was learned, by name, as :meth:`load_state` takes it."""
        of_data = {"classes": self.classes_, "mean": self._mean, "deviation": self._deviation}
        return {**of_data, **self.network_.state_dict(prefix="network.")}

    def load_state(self, state: dict[str, Tensor], shape: Sequence[int]) -> "Classifier":
        """Become the classifier of images ``[C, H, W]`` whose state that is; its settings must be the same.

        Raises
        ------
        LookupError, RuntimeError
            If it is the state of another one.
        """
        self.classes_, self._mean, self._deviation = (
            state[name] for name in ("classes", "mean", "deviation")
        )
        with torch.random.fork_rng(devices=[]):
            network = _network(torch.Size(shape), self.width, len(self.classes_))
        prefix = "network."
        network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
        self.network_ = network.eval()
        return self

    def _train(self, network: nn.Sequential, x: Tensor, target: Tensor) -> None:
        """Adam with one cycle of the learning rate; batches with replacement."""
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=self.max_steps
        )
        for _ in range(self.max_steps):
            rows = torch.randint(len(x), (BATCH_SIZE,)).to(x.device)
            loss = functional.cross_entropy(network(x[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self._mean) / self._deviation

    @torch.no_grad()
    def _in_pieces(self, function: Callable[[Tensor], Tensor], images: Any) -> Tensor:
        parts = torch.as_tensor(images).split(_CHUNK)
        device = self._mean.device
        return torch.cat([function(self._standardised(_unit(part).to(device))) for part in parts])


def _network(shape: torch.Size, width: int, n_classes: int) -> nn.Sequential:
    channels, height, columns = shape
    quarter = -(-height // 4) * -(-columns // 4)
    features = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * quarter, N_FEATURES),
        nn.ReLU(),
    )
    return nn.Sequential(features, nn.Linear(N_FEATURES, n_classes))


def _unit(images: Any) -> Tensor:
    """Images as float32 in [0, 1]."""
    x = torch.as_tensor(images)
    if x.dim() != 4 or not len(x):
        raise ValueError(f"images: expected [N, C, H, W] with N >= 1, found {list(x.shape)}")
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point() or not ((x >= 0) & (x <= 1)).all():
        found = f"{x.dtype} from {x.min().item():g} to {x.max().item():g}"
        raise ValueError(f"images: expected uint8 or floats in [0, 1], found {found}")
    return x.float()
