"""CIFAR-10 batches, binary or pickled (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

import io
import pickle
import re
from functools import partial
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pygen.data.files import Files
from pygen.data.splits import Arrays, Splits

BATCH = re.compile(r"(data_batch_\d+|test_batch)(\.bin)?")
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_CLASSES = 10


def cifar_batches(files: Files) -> Splits | None:
    """Return the parts of a folder or archive of CIFAR-10 batches, None if it has none.

    Raises
    ------
    ValueError
        If there are batches in more than one sub-folder, both binary and pickled ones, or a
        number is missing.
    """
    found = [name for name in files if BATCH.fullmatch(PurePosixPath(name).name)]
    kinds = {(str(PurePosixPath(n).parent), PurePosixPath(n).suffix) for n in found}
    if len(kinds) > 1:
        kinds_text = ", ".join(f"{folder} ({end or 'pickled'})" for folder, end in sorted(kinds))
        raise ValueError(
            f"{files.origin}: expected the CIFAR-10 batches of one distribution, found several: "
            f"{kinds_text}; keep or pass one of them"
        )
    numbers = sorted(_number(name) for name in found if _number(name))
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(
            f"{files.origin}: expected data_batch_1 to data_batch_{len(numbers)}, found "
            f"{', '.join(sorted(found))}; put the missing batches there"
        )
    splits = {
        "train": [n for n in found if "data_batch" in PurePosixPath(n).name],
        "test": [n for n in found if "test_batch" in PurePosixPath(n).name],
    }
    return {s: partial(_read_batches, files, names) for s, names in splits.items() if names} or None


def _number(name: str) -> int:
    """Return a training batch's number, 0 for the test batch."""
    digits = re.findall(r"\d+", PurePosixPath(name).name)
    return int(digits[0]) if digits else 0


def _read_batches(files: Files, names: list[str]) -> Arrays:
    # Read in the order of storage, put together in the order of the batches' numbers.
    batches = {_number(name): _read_batch(files, name) for name in names}
    ordered = [batches[number] for number in sorted(batches)]
    return np.concatenate([x for x, _ in ordered]), np.concatenate([y for _, y in ordered])


def _read_batch(files: Files, name: str) -> Arrays:
    parse = parse_binary if name.endswith(".bin") else parse_pickle
    images, labels = parse(files[name], files.where(name))
    if labels.min() < 0 or labels.max() >= _CLASSES:
        raise ValueError(
            f"{files.where(name)}: expected labels 0 to {_CLASSES - 1}, "
            f"found {labels.min()} to {labels.max()}"
        )
    return images, labels


def parse_binary(data: bytes, where: str) -> Arrays:
    """Read one binary batch: records of a label byte and 3072 bytes of red, green and blue.

    Raises
    ------
    ValueError
        If the length is not a positive multiple of 3073 bytes.
    """
    record = 1 + _PIXELS
    if len(data) == 0 or len(data) % record:
        raise ValueError(
            f"{where}: expected a CIFAR-10 binary batch, a positive multiple of {record} bytes, "
            f"found {len(data)}"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, 1:].reshape(-1, *_SHAPE), records[:, 0].astype(np.int64)


def parse_pickle(data: bytes, where: str) -> Arrays:
    """Read one pickled batch: a dict with `data`, uint8 [N, 3072], and `labels`, a list of N.

    Nothing that the pickle names is imported or called; see `_BatchUnpickler`.

    Raises
    ------
    ValueError
        If the pickle is damaged, holds anything else than such a dict, or names anything but
        the constructors of numpy arrays.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
    # A hostile or damaged pickle can make an unpickler raise nearly anything.
    except Exception as error:
        raise ValueError(
            f"{where}: expected a pickled CIFAR-10 batch of numpy arrays, lists and strings, "
            f"found: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(batch, dict):
        raise ValueError(f"{where}: expected a pickled dict, found a {type(batch).__name__}")
    batch = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    images = _array_of(batch, "data", where)
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != _PIXELS:
        raise ValueError(
            f"{where}: expected 'data' to be uint8 [N, {_PIXELS}], "
            f"found {images.dtype} {list(images.shape)}"
        )
    labels = _array_of(batch, "labels", where)
    if labels.shape != (len(images),) or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: expected 'labels' to be {len(images)} (at least 1) integers, "
            f"found {labels.dtype} {list(labels.shape)}"
        )
    return images.reshape(-1, *_SHAPE), labels.astype(np.int64)


def _array_of(batch: dict[Any, Any], key: str, where: str) -> npt.NDArray[Any]:
    if key not in batch:
        raise ValueError(f"{where}: expected the key {key!r}, found {sorted(map(str, batch))}")
    value = batch[key]
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, list) and all(type(item) is int for item in value):
        try:
            return np.array(value, np.int64)
        except OverflowError:
            pass  # an integer beyond 64 bits is no label: fall through to the error
    raise ValueError(
        f"{where}: expected {key!r} to be a numpy array or a list of integers, "
        f"found a {type(value).__name__}"
    )


class _DType:
    """Stands in for `numpy.dtype`: integers only."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = _text(code)
        if not re.fullmatch(r"[iu][1248]", self.code):
            raise pickle.UnpicklingError(f"an array of type {self.code!r}, not of integers")
        self.byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = {"<": "<", ">": ">"}.get(_text(state[1]), "=")

    def array(self, data: Any) -> npt.NDArray[Any]:
        raw = data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))
        return np.frombuffer(raw, np.dtype(self.byte_order + self.code))


class _Array:
    """Stands in for the `numpy.ndarray` that `_reconstruct` makes empty and `BUILD` fills."""

    array: npt.NDArray[Any] = np.empty(0, np.uint8)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, data = state
        self.array = dtype.array(data).reshape(shape, order="F" if fortran_order else "C")


def _from_buffer(data: Any, dtype: _DType, shape: tuple[int, ...], order: Any, *_: Any) -> _Array:
    made = _Array()
    made.array = dtype.array(data).reshape(shape, order="F" if _text(order) == "F" else "C")
    return made


def _scalar(dtype: _DType, data: Any) -> int:
    (value,) = dtype.array(data)
    return int(value)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}, not as latin1")
    return text.encode("latin1")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


class _Fields(dict[Any, Any]):
    """A dict with strings as keys only: hashing a tuple nested a million deep is a crash."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, bytes)):
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a key, not a string")
        super().__setitem__(key, value)


class _NoClass:
    """Stands in for `numpy.ndarray` itself, which pickles pass as an argument only."""


# numpy 1 pickles say numpy.core, numpy 2 ones numpy._core.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NoClass,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _BatchUnpickler(pickle._Unpickler):
    """Reads pickles whose every name is one of `_STAND_INS`; nothing else can be called.

    numpy's own constructors trust their pickle (a forged dtype corrupts memory), so plain classes
    take their place and check. The unpickler is the one written in Python because the one in C
    allocates its memo by an index that the file claims: 8 bytes can ask for 64 GB.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"a reference to {module}.{name}, which is not allowed")
        return _STAND_INS[module, name]

    def load_empty_dict(self) -> None:
        self.append(_Fields())  # type: ignore[attr-defined]

    def load_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        fields = _Fields()
        for key, value in zip(items[::2], items[1::2], strict=True):
            fields[key] = value
        self.append(fields)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        opcode: load
        for opcode, load in pickle._Unpickler.dispatch.items()
        if opcode not in (pickle.EMPTY_SET[0], pickle.ADDITEMS[0], pickle.FROZENSET[0])
    }
    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dict
    dispatch[pickle.DICT[0]] = load_dict
