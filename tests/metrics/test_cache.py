"""Classifiers that are kept: found again only for the same images, labels and settings."""

import pytest
import torch

from pygen.data import load
from pygen.metrics import Classifier, cached_classifier


@pytest.fixture(scope="module")
def digits():
    images, labels = load("digits")
    return images[:300], labels[:300]


def test_read_again_is_the_same(digits, tmp_path, monkeypatch):
    settings = {"max_steps": 5, "width": 4, "random_state": 0, "folder": tmp_path / "new"}
    first = cached_classifier(*digits, **settings)
    (file,) = (tmp_path / "new").iterdir()
    expected = Classifier(max_steps=5, width=4, random_state=0).fit(*digits)
    monkeypatch.setattr(Classifier, "fit", None)  # must not be needed again
    again = cached_classifier(*digits, **settings)
    for classifier in (first, again):
        assert torch.equal(classifier.features(digits[0]), expected.features(digits[0]))
        assert torch.equal(classifier.predict(digits[0]), expected.predict(digits[0]))
    assert again.score(*digits) == expected.score(*digits)
    assert file.suffix == ".safetensors"


def test_others_are_others(digits, tmp_path):
    images, labels = digits
    settings = {"max_steps": 1, "width": 2, "random_state": 0, "folder": tmp_path}
    cached_classifier(images, labels, **settings)
    other = images.clone()
    other[7, 0, 3, 3] += 1
    cached_classifier(other, labels, **settings)
    cached_classifier(images, labels.flip(0), **settings)
    cached_classifier(images, labels, **(settings | {"max_steps": 2}))
    cached_classifier(images, labels, **(settings | {"random_state": 1}))
    cached_classifier(images, labels, **(settings | {"width": 3}))
    assert len(list(tmp_path.iterdir())) == 6
    cached_classifier(images, labels, **(settings | {"random_state": None}))
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("damage", [b"", b"{}", "truncated", "other"])
def test_damage_is_mended(digits, tmp_path, damage):
    settings = {"max_steps": 2, "width": 2, "random_state": 0, "folder": tmp_path}
    expected = cached_classifier(*digits, **settings)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    if damage == "other":
        cached_classifier(*digits, **(settings | {"width": 3, "folder": tmp_path / "other"}))
        damage = next((tmp_path / "other").iterdir()).read_bytes()
    file.write_bytes(data[:-5] if damage == "truncated" else damage)
    with pytest.warns(UserWarning, match="damage; made anew"):
        found = cached_classifier(*digits, **settings)
    assert torch.equal(found.features(digits[0]), expected.features(digits[0]))
    assert file.read_bytes() == data


def test_a_folder_that_cannot_be_written_to(digits, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="could not keep"):
        found = cached_classifier(
            *digits, max_steps=1, width=2, random_state=0, folder=tmp_path / "file"
        )
    assert found.predict(digits[0]).shape == (300,)
