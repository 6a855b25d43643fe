"""Features of the Inception network whose Frechet and kernel distances are FID and KID."""

import hashlib
import io
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pygen.metrics.inception_network import InceptionNetwork

# Images that pass through at a time: each becomes 299x299 pixels.
_CHUNK = 32


class Inception:
    """The Inception v3 of 2015 with the weights of a file; nothing is ever fetched.

    Features ``[N, 2048]`` of the last pooling, of images resized as TensorFlow did it for the original FID.

    Parameters
    ----------
    weights : Path
        A state dict with the names of pytorch-fid's ``pt_inception-2015-12-05-6726825d.pth``, which is
        torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``, too; saved by ``torch.save`` or as safetensors.
        Nothing in it is executed.

    Attributes
    ----------
    sha256 : str
        Of the file.
    is_original : bool
        Whether the file is the one that published figures are of, by the digits of its SHA-256 in its name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not such weights.
    """

    # PyTorch's convention: a file's name ends in the first digits of its SHA-256.
    _ORIGINAL = "6726825d"

    def __init__(self, weights: Path) -> None:
        data = weights.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.is_original = self.sha256.startswith(self._ORIGINAL)
        with torch.device("meta"):  # initial weights would only be thrown away
            self._network = InceptionNetwork()
        try:
            self._network.load_state_dict(_weights(weights, data), assign=True)
        except RuntimeError as error:
            raise ValueError(
                f"{weights}: expected the weights of the FID's Inception v3, found others: "
                f"{str(error).splitlines()[1].strip()[:200]}"
            ) from error
        self._network.float().eval()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """float32 ``[N, 2048]`` of images ``[N, C, H, W]``, uint8, C 1 (grey) or 3 (RGB).

        Raises
        ------
        ValueError
            If they are others.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images: expected uint8 [N, C, H, W] with C 1 or 3, found {images.dtype} "
                f"{list(images.shape)}"
            )
        parts = (part.expand(-1, 3, -1, -1) for part in images.split(_CHUNK))
        return torch.cat([self._network(part) for part in parts])


def _weights(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load(data)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path}: expected weights saved by torch.save, or as .safetensors, found damage or "
            f"another file ({type(error).__name__})"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a state dict, found {type(found).__name__}")
    return found
