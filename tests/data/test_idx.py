"""IDX files: the round trip, the label file, every way in which they can be broken."""

import gzip
import re
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pygen.data import load
from pygen.data.idx import parse_idx


def idx_bytes(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def write_pair(folder, prefix, n, *, end="", dot="-", seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 5, 4), dtype=np.uint8)
    labels = rng.integers(0, 10, n, dtype=np.uint8)
    pack = gzip.compress if end == ".gz" else bytes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}-images{dot}idx3-ubyte{end}").write_bytes(pack(idx_bytes(images)))
    (folder / f"{prefix}-labels{dot}idx1-ubyte{end}").write_bytes(pack(idx_bytes(labels)))
    return images, labels


def assert_equals(loaded, images, labels):
    x, y = loaded
    assert x.numpy().dtype == np.uint8
    assert y.numpy().dtype == np.int64
    np.testing.assert_array_equal(x[:, 0].numpy(), images)
    np.testing.assert_array_equal(y.numpy(), labels)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_folder_of_four(tmp_path, end, dot, below):
    train = write_pair(tmp_path / below, "train", 7, end=end, dot=dot)
    test = write_pair(tmp_path / below, "t10k", 3, end=end, dot=dot, seed=1)
    assert_equals(load(tmp_path), *train)
    assert_equals(load(tmp_path, "test"), *test)
    assert_equals(
        load(tmp_path, "all"), *(np.concatenate(p) for p in zip(train, test, strict=True))
    )


def test_tar_made_of_the_current_folder(tmp_path):
    images, labels = write_pair(tmp_path, "train", 3)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for file in tmp_path.glob("*ubyte"):
            archive.add(file, f"./{file.name}")
    assert_equals(load(tmp_path / "set.tar"), images, labels)


def test_single_file_finds_its_labels(tmp_path):
    images, labels = write_pair(tmp_path, "t10k", 3, end=".gz")
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    assert_equals(load(file), images, labels)
    assert_equals(load(file, "all"), images, labels)
    with pytest.raises(ValueError, match=r'expected a test split.*split="all"'):
        load(file, "test")


def test_file_without_the_standard_name_has_labels_zero(tmp_path):
    images = np.arange(40, dtype=np.uint8).reshape(2, 5, 4)
    (tmp_path / "faces.idx").write_bytes(idx_bytes(images))
    assert_equals(load(tmp_path / "faces.idx"), images, [0, 0])


@pytest.mark.parametrize("whole_folder", [True, False])
def test_missing_label_file(tmp_path, whole_folder):
    write_pair(tmp_path, "train", 3)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    path = tmp_path if whole_folder else tmp_path / "train-images-idx3-ubyte"
    with pytest.raises(FileNotFoundError, match="expected its label file train-labels-idx1-ubyte"):
        load(path)


def test_two_sets_in_one_folder(tmp_path):
    write_pair(tmp_path / "MNIST/raw", "train", 3)
    write_pair(tmp_path / "FashionMNIST/raw", "train", 3)
    with pytest.raises(ValueError, match="FashionMNIST/raw, MNIST/raw"):
        load(tmp_path)


def test_count_mismatch(tmp_path):
    write_pair(tmp_path, "train", 3)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(4)))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: expected 3 labels.*found 4"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found an empty file"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x00", r"magic 00000803\), found 00000801"),
        (b"\x00\x00\x0d\x03" + bytes(12), "found 00000d03"),
        (b"\x89PNG\r\n", "found 89504e47"),
        (b"\x00\x00\x08\x03\x00\x00", "header of 16 bytes, found 6"),
        (b"\x00\x00\x08\x03" + b"\x80\x00\x00\x00" * 3, f"expected {2**93} bytes of data.*found 0"),
        (idx_bytes(np.zeros((2, 3, 4))) + b"x", "expected 24 bytes of data.*found 25"),
        (b"\x1f\x8b\x08broken", "expected intact gzip data"),
    ],
)
def test_broken_file(tmp_path, data, message):
    (tmp_path / "faces.idx").write_bytes(data)
    with pytest.raises(ValueError, match=rf"faces\.idx: .*{message}"):
        load(tmp_path / "faces.idx")


def test_empty_set(tmp_path):
    (tmp_path / "faces.idx").write_bytes(idx_bytes(np.zeros((0, 28, 28))))
    with pytest.raises(ValueError, match=re.escape("found shape [0, 1, 28, 28]")):
        load(tmp_path / "faces.idx")


arrays = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
        lambda data: np.frombuffer(data, np.uint8).reshape(shape)
    )
)


@given(array=arrays, compressed=st.booleans())
def test_round_trip(array, compressed):
    data = idx_bytes(array)
    read = parse_idx(gzip.compress(data) if compressed else data, "file", 3)
    np.testing.assert_array_equal(read, array)


@given(array=arrays, compressed=st.booleans(), data=st.data())
@settings(max_examples=200)
def test_truncation_is_a_value_error(array, compressed, data):
    whole = gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array)
    length = data.draw(st.integers(0, len(whole) - 1))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cut.idx"
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.idx: expected"):
            load(file)
