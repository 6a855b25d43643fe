"""Folders and archives of pictures: classes, splits, modes, sizes, broken files."""

import io
import re
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from pygen.data import load


def picture(value, mode="RGB", size=(6, 4), kind="PNG"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    rng = np.random.default_rng(value)
    pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode=mode).save(stream, kind)
    return stream.getvalue()


def pixels(data):
    array = np.asarray(Image.open(io.BytesIO(data)))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def write(tmp_path, kind, contents):
    """Write names and bytes as a folder, a zip or a tar; return its path."""
    path = tmp_path / f"set{kind}"
    if kind == "":
        for name, data in contents.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    elif kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in contents.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def assert_pictures(loaded, data, labels):
    x, y = loaded
    np.testing.assert_array_equal(x.numpy(), np.stack([pixels(d) for d in data]))
    assert y.tolist() == labels


@pytest.mark.parametrize("kind", ["", ".zip", ".tar.gz"])
@pytest.mark.parametrize("around", ["", "outer/", "outer/inner/"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_classes(tmp_path, kind, around, mode):
    a, b, c = (picture(i, mode) for i in range(3))
    contents = {"dog/1.png": a, "cat/2.png": b, "cat/1.png": c}
    path = write(tmp_path, kind, {around + name: data for name, data in contents.items()})
    assert_pictures(load(path), [c, b, a], [0, 0, 1])
    with pytest.raises(ValueError, match="expected a test split"):
        load(path, "test")


@pytest.mark.parametrize("kind", ["", ".zip", ".tar.gz"])
@pytest.mark.parametrize("around", ["", "outer/"])
def test_train_and_test(tmp_path, kind, around):
    a, b, c = (picture(i) for i in range(3))
    # The class that only train has counts for the labels of test.
    contents = {"train/ant/1.png": a, "train/bee/1.png": b, "test/bee/1.png": c}
    path = write(tmp_path, kind, {around + name: data for name, data in contents.items()})
    assert_pictures(load(path), [a, b], [0, 1])
    assert_pictures(load(path, "test"), [c], [1])
    assert_pictures(load(path, "all"), [a, b, c], [0, 1, 1])


def test_flat_folder_and_system_files(tmp_path):
    a, b = picture(0), picture(1)
    junk = {"__MACOSX/._1.png": b"x", ".hidden.png": b"x", "readme.txt": b"x", "Thumbs.db": b"x"}
    path = write(tmp_path, ".zip", {"2.png": b, "1.png": a, **junk})
    assert_pictures(load(path), [a, b], [0, 0])


def test_jpeg_and_palette(tmp_path):
    jpeg = picture(0, kind="JPEG")
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(1))).quantize(4).save(stream, "PNG")
    expected = np.asarray(Image.open(stream).convert("RGB")).transpose(2, 0, 1)
    x, _ = load(write(tmp_path, "", {"1.JPG": jpeg, "2.png": stream.getvalue()}))
    np.testing.assert_array_equal(x.numpy(), [pixels(jpeg), expected])


@pytest.mark.parametrize(
    ("second", "found"),
    [(picture(1, "L"), "[1, 4, 6]"), (picture(1, size=(5, 4)), "[3, 4, 5]")],
)
def test_pictures_that_differ(tmp_path, second, found):
    path = write(tmp_path, "", {"1.png": picture(0), "2.png": second})
    message = rf"2\.png: expected.*\[3, 4, 6\] as in 1\.png.*{re.escape(found)}.*image_size="
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("grey_first", [True, False])
def test_image_size_widens_grey_pictures(tmp_path, grey_first):
    grey, colour, clear = picture(0, "L"), picture(1), picture(2, "RGBA", (8, 8))
    names = ["1.png", "2.png"] if grey_first else ["2.png", "1.png"]
    path = write(tmp_path, "", {names[0]: grey, names[1]: colour, "3.png": clear})
    x, _ = load(path, image_size=(4, 6))
    assert x.shape == (3, 4, 4, 6)
    i = 0 if grey_first else 1
    np.testing.assert_array_equal(x[i, :3].numpy(), np.repeat(pixels(grey), 3, axis=0))
    np.testing.assert_array_equal(x[1 - i, :3].numpy(), pixels(colour))
    assert (x[:2, 3] == 255).all()
    assert (x[2, 3] < 255).any()


def test_image_size_crops_at_the_centre(tmp_path):
    # Black on both sides, farther from the centre square than the resampling filter reaches.
    array = np.zeros((4, 16), np.uint8)
    array[:, 2:14] = 255
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    path = write(tmp_path, "", {"1.png": stream.getvalue()})
    for size in (2, 4, (4, 4)):
        x, _ = load(path, image_size=size)
        assert x.shape[2:] == ((size, size) if isinstance(size, int) else size)
        assert (x == 255).all()
    whole, _ = load(path, image_size=(1, 4))
    assert whole[0, 0, 0, 1:3].tolist() == [255, 255]
    assert ((whole[0, 0, 0, [0, 3]] > 60) & (whole[0, 0, 0, [0, 3]] < 200)).all()


def test_image_size_of_other_formats(tmp_path):
    array = np.zeros((3, 2, 8, 3), np.uint8)
    array[:, :, 3:5] = (10, 20, 30)
    np.save(tmp_path / "a.npy", array)
    x, _ = load(tmp_path / "a.npy", image_size=2)
    assert x.shape == (3, 3, 2, 2)
    assert x[0, :, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("size", [0, -1, (3,), (3, 4, 5), (3, 0), (2.5, 3)])
def test_wrong_image_size(size):
    with pytest.raises(ValueError, match="image_size: expected a positive int"):
        load("digits", image_size=size)


@pytest.mark.parametrize("kind", ["", ".zip"])
@pytest.mark.parametrize("suffix", ["PNG", "JPEG"])
def test_undecodable_picture(tmp_path, kind, suffix):
    whole = picture(0, kind=suffix, size=(64, 64))
    for bad in (b"", b"no picture", whole[:30], whole[: len(whole) // 2]):
        path = write(tmp_path, kind, {"a/1.png": whole, "b/2.png": bad})
        with pytest.raises(ValueError, match=r"b/2\.png: expected a picture that decodes"):
            load(path)


def test_sixteen_bits_are_refused(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(stream, "PNG")
    with pytest.raises(ValueError, match="mode I;16, not 8 bits per channel"):
        load(write(tmp_path, "", {"1.png": stream.getvalue()}))


def test_mixed_depths(tmp_path):
    path = write(tmp_path, "", {"cat/1.png": picture(0), "2.png": picture(1)})
    with pytest.raises(ValueError, match=r"found cat/1\.png beside 2\.png"):
        load(path)
    path = write(tmp_path, ".zip", {"a/b/1.png": picture(0), "c/d/2.png": picture(1)})
    with pytest.raises(ValueError, match="expected every picture as CLASS/picture"):
        load(path)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04" + bytes(30)])
def test_broken_zip(tmp_path, data):
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"set\.zip: expected a zip archive, found damage"):
        load(tmp_path / "set.zip")


def test_zip_with_a_damaged_member(tmp_path):
    path = write(tmp_path, ".zip", {"a/1.png": picture(0)})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"set\.zip/a/1\.png: expected a readable file.*CRC"):
        load(path)


def test_folder_that_holds_one_archive(tmp_path):
    data = picture(0)
    write(tmp_path, ".zip", {"a/1.png": data})
    (tmp_path / "notes.txt").write_text("where it came from")
    assert_pictures(load(tmp_path), [data], [0])


@pytest.mark.parametrize("kind", ["", ".zip", ".tar.gz"])
def test_nothing_to_read(tmp_path, kind):
    path = write(tmp_path, kind, {"notes.txt": b"x"})
    with pytest.raises(ValueError, match=r"expected IDX files.*found 1 files: notes\.txt"):
        load(path)
