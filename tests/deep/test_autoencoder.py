"""The autoencoder: its two losses by hand, codes there and back, random codes."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pygen import VAE, Autoencoder
from pygen.data import load
from pygen.nn import MLPDecoder, MLPEncoder


@pytest.fixture(scope="module")
def digits():
    images, labels = load("digits")
    return images[:400].float() / 255, labels[:400]


@pytest.fixture(scope="module")
def fitted(digits):
    return Autoencoder(4, max_steps=150, learning_rate=2e-3, random_state=0).fit(digits[0])


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_first_loss_is_the_formula(loss, digits):
    x = digits[0]
    networks = {"encoder": MLPEncoder((1, 8, 8), 3), "decoder": MLPDecoder(3, (1, 8, 8))}
    options = {"max_steps": 1, "batch_size": 400, "validation_fraction": 0, "precision": "float32"}
    model = Autoencoder(3, loss=loss, **options, **networks).fit(x)
    with torch.no_grad():
        made = networks["decoder"](networks["encoder"](x)).double().sigmoid()
    function = functional.mse_loss if loss == "mse" else functional.binary_cross_entropy
    assert model.history_[0]["loss"] == pytest.approx(function(made, x.double()).item(), rel=1e-5)


def test_it_learns(fitted, digits):
    x = digits[0]
    blind = -(x - x.mean(0)).square().mean().item()
    assert fitted.score(x) > 0.7 * blind
    losses = [line["loss"] for line in fitted.history_]
    assert losses[-1] < losses[0]
    rows = fitted.score_samples(x)
    made = fitted.reconstruct(x)
    torch.testing.assert_close(rows, -(x - made).square().flatten(1).mean(1), rtol=1e-4, atol=1e-6)


def test_reconstruct_is_encode_and_decode(fitted, digits):
    x = digits[0][:7]
    codes = fitted.encode(x)
    assert codes.shape == (7, 4)
    assert torch.equal(fitted.decode(codes), fitted.reconstruct(x))
    assert isinstance(fitted.encode(x.numpy()), np.ndarray)
    # The same rows in another dress.
    assert torch.equal(fitted.encode(x[:, 0]), codes)
    assert torch.equal(fitted.encode(x.flatten(1)), codes)


def test_interpolate_is_linear_in_the_code(fitted, digits):
    a, b = digits[0][:3], digits[0][3:6]
    steps = fitted.interpolate(a, b, 5)
    assert steps.shape == (3, 5, 1, 8, 8)
    torch.testing.assert_close(steps[:, 0], fitted.reconstruct(a))
    torch.testing.assert_close(steps[:, -1], fitted.reconstruct(b))
    middle = (fitted.encode(a) + fitted.encode(b)) / 2
    torch.testing.assert_close(steps[:, 2], fitted.decode(middle))
    with pytest.raises(ValueError, match="equally many; got 3 and 2"):
        fitted.interpolate(a, b[:2])
    with pytest.raises(ValueError, match="at least 2"):
        fitted.interpolate(a, b, 1)


def test_random_codes_are_spread_as_those_of_the_data(fitted, digits):
    codes = fitted.encode(digits[0])
    _, drawn = fitted.sample(4000)
    torch.testing.assert_close(drawn.std(0), codes.std(0), rtol=0.15, atol=0)
    error = codes.std(0) / 20  # four thousand draws, and a tenth of the rows that was held out
    assert ((drawn.mean(0) - codes.mean(0)).abs() < 5 * error).all()


def test_rows_of_another_shape_or_kind_are_refused(fitted, digits):
    x = digits[0]
    with pytest.raises(ValueError, match=r"rows of shape \[9, 8\].*expecting \[1, 8, 8\]"):
        fitted.encode(torch.zeros(2, 9, 8))
    with pytest.raises(ValueError, match=r"float32 from 0.0 to 1.0; got uint8"):
        fitted.reconstruct((x * 255).to(torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        fitted.encode(x * torch.nan)


def test_conditional_networks_are_told_the_class(digits):
    x, y = digits
    model = Autoencoder(2, conditional=True, max_steps=150, random_state=0).fit(x, y)
    assert model.score(x, y) > model.score(x, (y + 1) % 10)
    assert not torch.equal(model.encode(x[:2], 3), model.encode(x[:2], 4))
    steps = model.interpolate(x[:2], x[2:4], 3, y=[1, 2])
    codes = model.encode(x[:2], [1, 2])
    torch.testing.assert_close(steps[:, 0], model.decode(codes, [1, 2]))
    with pytest.raises(ValueError, match="label 11"):
        model.encode(x[:2], 11)


def test_pictures_of_a_run_show_originals_over_reconstructions(tmp_path, digits):
    from PIL import Image

    model = Autoencoder(2, max_steps=2, random_state=0).fit(digits[0], out=tmp_path)
    picture = Image.open(tmp_path / "samples" / "step-00000002.png").convert("L")
    tile = picture.width // 8
    rows = np.asarray(picture.resize((64, 64), Image.Resampling.BOX), float).reshape(8, 8, 8, 8)
    assert tile >= 48
    # Untrained reconstructions are all alike; originals are not.
    spread = rows.transpose(0, 2, 1, 3).reshape(8, 8, 64).std(1).mean(1)
    assert (spread[::2] > 5 * spread[1::2]).all()
    assert model.n_steps_ == 2


@pytest.mark.parametrize("model", [Autoencoder, VAE])
def test_mostly_black_images_are_learned(model, digits):
    """Where nothing makes up for it, the first steps end at black for good."""
    small = digits[0].where(digits[0] > 0.5, 0)
    x = functional.pad(small.repeat_interleave(2, 2).repeat_interleave(2, 3), (6, 6, 6, 6))
    fitted = model(8, max_steps=80, validation_fraction=0, random_state=0).fit(x)
    error = (fitted.reconstruct(x) - x).square().mean()
    assert error < 0.6 * x.square().mean()  # the error of black
