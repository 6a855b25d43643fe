"""Grids, pictures beside one another, files written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pygen.files import write_file
from pygen.pictures import beside, grid, png_bytes, save_png


@pytest.mark.parametrize(
    ("channels", "mode", "pixel"),
    [(1, "LA", (7, 255)), (3, "RGBA", (7, 8, 9, 255)), (4, "RGBA", (7, 8, 9, 100))],
)
def test_grid_places_images(channels: int, mode: str, pixel: tuple[int, ...]) -> None:
    images = torch.zeros(5, channels, 8, 6, dtype=torch.uint8)
    images[4, :, 0, 0] = torch.tensor([7, 8, 9, 100][:channels])
    picture = grid(images, 3)
    assert picture.mode == mode
    # 6 times as large, 4 pixels apart.
    assert picture.size == (3 * 36 + 2 * 4, 2 * 48 + 4)
    top, left = 52, 40
    array = np.asarray(picture)
    assert (array[top : top + 6, left : left + 6] == pixel).all()
    assert (array[top + 6, left] != pixel).any()
    # Between the images and where a sixth would be, nothing.
    assert (array[..., -1][48:52] == 0).all()
    assert (array[..., -1][:, 36:40] == 0).all()
    assert (array[..., -1][52:, 80:] == 0).all()


def test_grid_keeps_every_pixel() -> None:
    images = torch.randint(0, 256, (6, 1, 28, 28), dtype=torch.uint8)
    array = np.asarray(grid(images, 2))[..., 0]
    for i in range(6):
        top, left = i // 2 * 60, i % 2 * 60
        tile = array[top : top + 56, left : left + 56]
        assert (tile[::2, ::2] == images[i, 0].numpy()).all()
        assert (tile[1::2, 1::2] == images[i, 0].numpy()).all()


def test_grid_of_one_row_and_large_images() -> None:
    picture = grid(torch.zeros(2, 3, 100, 64, dtype=torch.uint8), 8)
    assert picture.size == (64 + 4 + 64, 100)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_grid_scales_and_clips_floats(dtype: torch.dtype) -> None:
    images = torch.tensor([-1.0, 0.0, 0.5, 1.0, 9.0], dtype=dtype).reshape(5, 1, 1, 1)
    array = np.asarray(grid(images.expand(5, 1, 48, 48), 5))
    assert array[0, 20::52, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("images", "columns", "expected"),
    [
        (torch.zeros(3, 8, 8), 1, "N, C, H, W"),
        (torch.zeros(3, 2, 8, 8), 1, "N, C, H, W"),
        (torch.zeros(0, 1, 8, 8), 1, "N, C, H, W"),
        (torch.zeros(3, 1, 8, 8, dtype=torch.int64), 1, "int64"),
        (torch.full((3, 1, 8, 8), torch.nan), 1, "NaN"),
        (torch.zeros(3, 1, 8, 8), 0, "columns"),
    ],
)
def test_grid_errors(images: torch.Tensor, columns: int, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        grid(images, columns)


def test_beside() -> None:
    black = grid(torch.zeros(1, 1, 8, 8), 1)
    white = grid(torch.ones(1, 3, 8, 8), 1)
    array = np.asarray(beside([black, white], ["", "white"]))
    assert array.shape[2] == 3
    assert (array[64:112, 24:72] == 0).all()
    assert (array[64:112, 72:] == 255).all()
    # The caption is above its picture and only there.
    assert (array[:64, 96:144] < 128).any()
    assert (array[:64, :72] == 255).all()


def test_beside_errors() -> None:
    with pytest.raises(ValueError, match="0 pictures"):
        beside([], [])
    with pytest.raises(ValueError, match="1 pictures and 2 captions"):
        beside([grid(torch.zeros(1, 1, 8, 8), 1)], ["a", "b"])


def test_save_png(tmp_path: Path) -> None:
    picture = grid(torch.rand(4, 3, 8, 8), 2)
    save_png(picture, tmp_path / "x.png")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    assert (tmp_path / "x.png").read_bytes() == png_bytes(picture) == png_bytes(picture.copy())
    with Image.open(tmp_path / "x.png") as read:
        assert (np.asarray(read) == np.asarray(picture)).all()


def test_write_file_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_file(path, b"first")
    write_file(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_write_file_errors_name_the_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(OSError, match="could not write it") as caught:
            write_file(path, b"")
        assert caught.value.filename == str(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        write_file(folder, b"")
    assert list(tmp_path.iterdir()) == [folder]
