"""examples/: the training script, and the same with one more line."""

import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
PLAIN, ACCELERATED = (EXAMPLES / name for name in ("dcgan.py", "dcgan_accelerated.py"))
STEPS = 6
# Of a loss, after as many steps. Seen: 2e-7; Adam may take rounding in a gradient of nearly zero for its sign.
CLOSE = {"rtol": 1e-3, "atol": 0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two dozen coloured squares on noise."""
    folder = tmp_path_factory.mktemp("pictures")
    random = torch.Generator().manual_seed(0)
    for i in range(24):
        pixels = torch.randint(0, 80, (40, 50, 3), generator=random, dtype=torch.uint8)
        top, left = (int(torch.randint(0, 30, (), generator=random)) for _ in range(2))
        colour = torch.randint(80, 256, (3,), generator=random, dtype=torch.uint8)
        pixels[top : top + 10, left : left + 10] = colour
        Image.fromarray(pixels.numpy()).save(folder / f"{i:02}.png")
    return folder


def train(script, pictures, out, *more):
    sizes = {"width": 4, "latent-dim": 8, "batch-size": 8, "steps": STEPS, "every": 4}
    options = [f"--{name}={size}" for name, size in sizes.items()]
    main = runpy.run_path(str(script))["main"]
    return main([f"--data={pictures}", f"--out={out}", "--device=cpu", *options, *more])


def test_they_differ_by_one_line_and_its_import():
    plain = PLAIN.read_text().splitlines()
    accelerated = ACCELERATED.read_text().splitlines()
    added = [line for line in accelerated if line not in plain]
    assert [line.strip() for line in added] == [
        "import pygen",
        'pygen.accelerate(nn.ModuleDict({"netG": netG, "netD": netD}))',
    ]
    assert [line for line in accelerated if line not in added] == plain


def test_they_agree(pictures, tmp_path, capsys):
    losses = train(PLAIN, pictures, tmp_path / "plain")
    assert "pygen" not in capsys.readouterr().out
    others = train(ACCELERATED, pictures, tmp_path / "accelerated")
    assert "10 of 10 convolutions" in capsys.readouterr().out
    assert losses.shape == (STEPS, 2)
    assert losses.std(0).min() > 0.01
    torch.testing.assert_close(others, losses, **CLOSE)
    for folder in (tmp_path / "plain", tmp_path / "accelerated"):
        names = ["checkpoint.pt", "step-000004.png", f"step-{STEPS:06}.png"]
        assert sorted(path.name for path in folder.iterdir()) == names
        with Image.open(folder / names[-1]) as picture:
            assert picture.size == (8 * 64 + 7 * 4, 8 * 64 + 7 * 4)


@pytest.mark.parametrize("script", [PLAIN, ACCELERATED], ids=lambda path: path.stem)
def test_each_goes_on_from_the_others_checkpoint(pictures, tmp_path, script):
    other = PLAIN if script is ACCELERATED else ACCELERATED
    train(other, pictures, tmp_path / "first")
    resume = f"--resume={tmp_path / 'first' / 'checkpoint.pt'}"
    losses = train(other, pictures, tmp_path / "other", resume)
    torch.testing.assert_close(
        train(script, pictures, tmp_path / "script", resume), losses, **CLOSE
    )
    checkpoint = torch.load(tmp_path / "script" / "checkpoint.pt")
    assert checkpoint["step"] == 2 * STEPS
    assert checkpoint["netG"]["1.num_batches_tracked"] > 2 * STEPS


def test_too_few_pictures(pictures, tmp_path):
    with pytest.raises(SystemExit, match="24 pictures are no batch: set --batch-size to fewer"):
        train(PLAIN, pictures, tmp_path, "--batch-size=25")
