"""NumPy files: layouts, types, keys, and headers that lie."""

import io
import pickle
import re

import numpy as np
import pytest

from pygen.data import load


def save(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    return tmp_path / "a.npy"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [((2, 5, 6), False), ((2, 1, 5, 6), False), ((2, 3, 5, 6), False), ((2, 4, 5, 6), False)]
    + [((2, 5, 6, c), True) for c in (1, 3, 4)],
)
def test_layouts(tmp_path, shape, channels_last, order):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    x, y = load(save(tmp_path, np.asarray(array, order=order)))
    expected = array.transpose(0, 3, 1, 2) if channels_last else array.reshape(2, -1, 5, 6)
    np.testing.assert_array_equal(x.numpy(), expected)
    assert x.is_contiguous()
    assert y.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["float16", "<f4", ">f4", "float64"])
def test_floats_become_the_nearest_level(tmp_path, dtype):
    levels = np.arange(256).reshape(1, 16, 16)
    x, _ = load(save(tmp_path, (levels / 255).astype(dtype)))
    np.testing.assert_array_equal(x[:, 0].numpy(), levels)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.nan, np.inf, 255.0])
def test_floats_out_of_range(tmp_path, wrong):
    array = np.full((1, 5, 5), 0.5)
    array[0, 2, 2] = wrong
    with pytest.raises(ValueError, match=r"a\.npy: expected floats in \[0, 1\]"):
        load(save(tmp_path, array))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 5, 5), np.int64), "found int64; convert it with astype"),
        (np.zeros((2, 5, 5), bool), "found bool"),
        (np.zeros((2, 5, 5), complex), "found type complex128"),
        (np.array([["a"]]), "found type <U1"),
        (np.zeros((5, 5), np.uint8), r"found \[5, 5\]"),
        (np.zeros((2, 5, 5, 2), np.uint8), r"found \[2, 5, 5, 2\]"),
        (np.zeros((2, 3, 5, 3), np.uint8), "which can be either"),
        (np.zeros((2, 1, 1, 5, 5), np.uint8), r"found \[2, 1, 1, 5, 5\]"),
        (np.zeros((0, 5, 5), np.uint8), r"at least one picture.*found shape \[0, 1, 5, 5\]"),
        (np.zeros((0, 5, 5)), "found none"),
    ],
)
def test_wrong_arrays(tmp_path, array, message):
    with pytest.raises(ValueError, match=rf"a\.npy: expected.*{message}"):
        load(save(tmp_path, array))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(ValueError, match="expected an array of numbers, found type object"):
        load(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"expected an \.npy array"):
        load(tmp_path / "a.npy")


def test_header_that_claims_too_much(tmp_path):
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**40, 28, 28)}
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "a.npy").write_bytes(stream.getvalue() + bytes(100))
    with pytest.raises(ValueError, match=f"expected {2**40 * 784} bytes.*found 100"):
        load(tmp_path / "a.npy")


def test_every_truncation(tmp_path):
    path = save(tmp_path, np.zeros((1, 3, 3), np.uint8))
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"a\.npy: expected"):
            load(path)


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("column", [False, True])
def test_npz_with_splits(tmp_path, write, column):
    labels = np.arange(5, dtype=np.uint8)
    labels = labels[:, None] if column else labels
    path = tmp_path / "a.npz"
    write(path, x_train=IMAGES[:3], y_train=labels[:3], x_test=IMAGES[3:], y_test=labels[3:])
    for split, chosen in {"train": [0, 1, 2], "test": [3, 4], "all": [0, 1, 2, 3, 4]}.items():
        x, y = load(path, split)
        np.testing.assert_array_equal(x[:, 0].numpy(), IMAGES[chosen])
        assert y.tolist() == chosen


@pytest.mark.parametrize(
    ("arrays", "labels"),
    [
        ({"images": IMAGES, "labels": np.arange(5)}, [0, 1, 2, 3, 4]),
        ({"images": IMAGES}, [0] * 5),
        ({"arr_0": IMAGES}, [0] * 5),
        ({"x_train": IMAGES}, [0] * 5),
    ],
)
def test_npz_without_splits(tmp_path, arrays, labels):
    np.savez(tmp_path / "a.npz", **arrays)
    x, y = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(x[:, 0].numpy(), IMAGES)
    assert y.tolist() == labels
    with pytest.raises(ValueError, match="expected a test split"):
        load(tmp_path / "a.npz", "test")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "expected the keys.*found pictures"),
        ({"images": IMAGES, "labels": np.arange(4)}, r"labels\.npy: expected 5.*found int64 \[4\]"),
        ({"images": IMAGES, "labels": np.zeros(5)}, "expected 5 integer labels.*found float64"),
        ({"images": IMAGES[0]}, r"a\.npz/images\.npy: expected the shape"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a.npz")


def test_splits_of_different_shapes(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES, x_test=IMAGES[:, :5])
    with pytest.raises(ValueError, match=re.escape("found [1, 5, 7] and [1, 6, 7]")):
        load(tmp_path / "a.npz", "all")
