"""Inception features of a file of weights. The weights here are made up: the real ones come with no package."""

import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file

from pygen.metrics import Inception
from pygen.metrics.inception_network import InceptionNetwork
from pygen.ops import normal, uniform
from pygen.random import new_state

# What torch-fidelity 0.4.0's FeatureExtractorInceptionV3 gives for these weights and images, every 300th feature.
EXPECTED = [
    [
        0.0,
        0.015531755983829498,
        0.6137710213661194,
        0.3312680125236511,
        0.0677899718284607,
        0.6520885229110718,
        0.11287771165370941,
    ],
    [
        0.0,
        0.015927540138363838,
        0.6444668173789978,
        0.31983062624931335,
        0.06047828495502472,
        0.6395115256309509,
        0.11664518476778932,
    ],
]
MEAN, DEVIATION = 0.5711177759358382, 0.7482745478566866


def weights():
    """A state dict of random numbers, the same everywhere, with signals that neither die nor explode."""
    state = InceptionNetwork().state_dict()
    for number, (name, value) in enumerate(state.items()):
        noise = normal(new_state(number), list(value.shape)).to(torch.float32)
        if value.dim() > 1:
            state[name] = noise * (2 / value[0].numel()) ** 0.5
        elif value.dim() == 1:
            state[name] = 0.1 * noise + name.endswith(("running_var", "bn.weight"))
    return state


def images():
    """uint8 `[2, 3, 24, 40]`."""
    return (uniform(new_state(0), [2, 3, 24, 40], torch.float32) * 256).to(torch.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(weights(), path)
    return path


@pytest.fixture(scope="module")
def inception(file):
    return Inception(file)


def test_features_are_those_of_the_peer(inception):
    found = inception.features(images())
    assert found.shape == (2, 2048)
    # Sums of up to 3,000 products in another order, through 94 layers.
    torch.testing.assert_close(found[:, ::300], torch.tensor(EXPECTED), rtol=1e-4, atol=1e-5)
    assert found.double().mean().item() == pytest.approx(MEAN, rel=1e-5)
    assert found.double().std().item() == pytest.approx(DEVIATION, rel=1e-5)


def test_an_image_has_its_features_alone_and_among_others(inception):
    grey = images()[:, :1]
    found = inception.features(grey)
    torch.testing.assert_close(inception.features(grey[1:]), found[1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        inception.features(grey.repeat(1, 3, 1, 1)), found, rtol=1e-4, atol=1e-5
    )


def test_file_is_known(inception, file):
    assert inception.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not inception.is_original


def test_safetensors(inception, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(weights(), path)
    one = images()[:1]
    assert torch.equal(Inception(path).features(one), inception.features(one))


class Dangerous:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_other_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        Inception(path)
    for content in (b"", b"nothing", pickle.dumps({"fc.bias": Dangerous()}, protocol=2)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pth: expected weights saved by torch.save"):
            Inception(path)
    torch.save({"fc.bias": Dangerous()}, path)
    with pytest.raises(ValueError, match="found damage or another file"):
        Inception(path)
    assert not (tmp_path / "executed").exists()
    torch.save([1], path)
    with pytest.raises(ValueError, match="expected a state dict, found list"):
        Inception(path)
    state = weights()
    del state["Mixed_7c.branch_pool.conv.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"found others: .*Mixed_7c\.branch_pool"):
        Inception(path)


def test_other_images_are_refused(inception):
    with pytest.raises(
        ValueError, match=r"uint8 \[N, C, H, W\] with C 1 or 3, found torch.float32"
    ):
        inception.features(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"\[1, 4, 8, 8\]"):
        inception.features(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))
