"""CIFAR-10 batches, binary and pickled; hostile pickles run nothing and eat nothing."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from pygen.data import load
from pygen.data.cifar import parse_pickle


def make_batch(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n).tolist()


BATCHES = {"data_batch_1": make_batch(3, 1), "data_batch_2": make_batch(2, 2)}
TEST = {"test_batch": make_batch(2, 3)}


def binary(images, labels):
    return np.c_[np.array(labels, np.uint8), images].tobytes()


def pickled(images, labels, protocol=2):
    return pickle.dumps({"data": images, "labels": labels, "batch_label": "x"}, protocol)


def python2_pickle(images, labels):
    """Write what Python 2's cPickle wrote: byte strings for keys and for the array's data."""

    def text(value):
        return b"U" + bytes((len(value),)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    long_data = images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t"
        + text(b"b") + b"tR(" + number(1) + b"(" + number(len(images)) + number(3072) + b"t"
        + b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR("
        + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
        + b"I00\nT" + struct.pack("<i", len(long_data)) + long_data + b"tb"
    )  # fmt: skip
    items = b"".join(number(label) for label in labels)
    return (
        b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](" + items + b"e"
        + text(b"batch_label") + text(b"training batch 1 of 5") + b"u."
    )  # fmt: skip


def write_folder(folder, pack, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, batch in {**BATCHES, **TEST}.items():
        (folder / f"{name}{end}").write_bytes(pack(*batch))
    (folder / "batches.meta").write_bytes(b"not read")
    return folder


def write_tar(path, pack, end=""):
    # The distributed archive is not in the batches' order either.
    names = ["test_batch", "data_batch_2", "data_batch_1"]
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            data = pack(*{**BATCHES, **TEST}[name])
            info = tarfile.TarInfo(f"cifar-10-batches/{name}{end}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def assert_batches(loaded, batches):
    images = np.concatenate([x for x, _ in batches]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(loaded[0].numpy(), images)
    np.testing.assert_array_equal(loaded[1].numpy(), np.concatenate([y for _, y in batches]))


@pytest.mark.parametrize(("pack", "end"), [(binary, ".bin"), (pickled, ""), (python2_pickle, "")])
@pytest.mark.parametrize("archived", [False, True])
def test_both_distributions(tmp_path, pack, end, archived):
    path = tmp_path / "cifar.tar.gz" if archived else tmp_path / "cifar"
    (write_tar if archived else write_folder)(path, pack, end)
    train, test = list(BATCHES.values()), list(TEST.values())
    assert_batches(load(path), train)
    assert_batches(load(path, "test"), test)
    assert_batches(load(path, "all"), train + test)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", ["core", "_core"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_protocol_and_numpy(protocol, core, order):
    images, labels = make_batch(4, 0)
    data = pickled(np.asarray(images, order=order), labels, protocol)
    # Numpy 1 and 2 differ in one module's name; frames of protocol 4 hold lengths: use 3 there.
    if protocol < 4:
        data = data.replace(b"numpy._core.", b"numpy.core.").replace(
            b"numpy.core.", f"numpy.{core}.".encode()
        )
    x, y = parse_pickle(data, "batch")
    np.testing.assert_array_equal(x, images.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("kind", [">i2", "<i8", "u1"])
@pytest.mark.parametrize("as_list", [True, False])
def test_labels_as_numpy_numbers(kind, as_list):
    images, labels = make_batch(4, 0)
    numbers = np.array(labels, kind)
    x, y = parse_pickle(pickled(images, list(numbers) if as_list else numbers), "batch")
    assert x.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(y, labels)


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickle_runs_nothing(tmp_path, protocol):
    images, _ = make_batch(1, 0)
    hostile = {"data": images, "labels": Command(f"touch {tmp_path / 'ran'}")}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(hostile, protocol))
    with pytest.raises(ValueError, match=r"data_batch_1: expected.*posix.system.*not allowed"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


HUGE_ARRAY = (
    b"\x80\x02}(X\x04\0\0\0datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    b"\x8a\x06\0\0\0\0\0\x10\x85U\x01b\x87Ru."
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"not a pickle",
        b"\x80\x02r\xff\xff\xff\xff.",  # a memo index that asks for 64 GB
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x3f.",  # a bytearray of 4 EB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x3f.",  # bytes of 4 EB
        b"}(" + b")" + b"\x85" * 1_000_000 + b"Nu.",  # a key nested a million deep
        b"(" + b")" + b"\x85" * 1_000_000 + b"Nd.",
        b"\x80\x04\x8f(" + b")" + b"\x85" * 1_000_000 + b"\x90.",
        HUGE_ARRAY,
        b"]" * 100_000 + b".",
        b"cbuiltins\neval\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n)\x81.",
        b"\x80\x02}X\x04\0\0\0datacnumpy.core.multiarray\n_reconstruct\n)\x81s.",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.array(["a"], object), "labels": [0]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.float32), "labels": [0]}),
    ],
    ids=range(18),
)
def test_broken_pickle(data):
    with pytest.raises(ValueError, match="batch: expected"):
        parse_pickle(data, "batch")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"data": make_batch(2, 0)[0]}, "expected the key 'labels'"),
        ({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}, r"found uint8 \[2, 5\]"),
        ({"data": np.zeros((2, 3072), np.int64), "labels": [0, 1]}, r"found int64 \[2, 3072\]"),
        ({"data": make_batch(2, 0)[0], "labels": [0]}, "to be 2 .*integers, found int64"),
        ({"data": make_batch(1, 0)[0], "labels": [0.5]}, "list of integers, found a list"),
        ({"data": make_batch(1, 0)[0], "labels": [2**70]}, "list of integers, found a list"),
        ({"data": make_batch(1, 0)[0], "labels": [10]}, "labels 0 to 9, found 10 to 10"),
        ({"data": make_batch(1, 0)[0], "labels": [-1]}, "labels 0 to 9, found -1 to -1"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "at least 1"),
    ],
)
def test_wrong_contents(tmp_path, batch, message):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch))
    with pytest.raises(ValueError, match=f"data_batch_1: .*{message}"):
        load(tmp_path)


def test_every_truncation_of_a_pickle():
    data = pickled(*make_batch(1, 0))
    tail, head = range(len(data) - 200, len(data)), range(200)
    for length in (*head, *tail):
        with pytest.raises(ValueError, match="batch: expected"):
            parse_pickle(data[:length], "batch")


@pytest.mark.parametrize("length", [0, 1, 3072, 3074, 6145])
def test_binary_of_wrong_length(tmp_path, length):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(length))
    with pytest.raises(ValueError, match=rf"data_batch_1\.bin: expected.*3073.*found {length}"):
        load(tmp_path)


def test_binary_with_wrong_label(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(ValueError, match="expected labels 0 to 9, found 11"):
        load(tmp_path)


def test_no_test_batch(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073))
    with pytest.raises(ValueError, match="expected a test split"):
        load(tmp_path, "test")


def test_gap_between_batches(tmp_path):
    write_folder(tmp_path, binary, ".bin")
    (tmp_path / "data_batch_1.bin").unlink()
    with pytest.raises(ValueError, match=r"expected data_batch_1 to data_batch_1, found .*_2\.bin"):
        load(tmp_path)


def test_two_distributions_in_one_folder(tmp_path):
    write_folder(tmp_path / "py", pickled)
    write_folder(tmp_path / "bin", binary, ".bin")
    with pytest.raises(ValueError, match=r"found several: bin \(\.bin\), py \(pickled\)"):
        load(tmp_path)


def test_truncated_tar(tmp_path):
    path = write_tar(tmp_path / "cifar.tar.gz", pickled)
    data = path.read_bytes()
    # The last bytes only pad the archive: every batch is whole without them.
    for length in range(0, len(data) - 200, 997):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cifar\.tar\.gz.*: expected"):
            load(path)


def test_single_batch_file_names_the_mend(tmp_path):
    folder = write_folder(tmp_path, binary, ".bin")
    with pytest.raises(ValueError, match="pass the folder that holds the batches"):
        load(folder / "data_batch_1.bin")
