"""Saving fitted estimators to a folder and loading them again, without pickle.

The folder holds two files:

`config.json`
    The format's version, pygen's version, the estimator's class, constructor parameters and fitted
    attributes, and the SHA-256 of the other file.
`model.safetensors`
    Every tensor and numeric array, by a key such as `means_` or `estimators_.3.means_`.

In `config.json` None, booleans, integers, finite floats, strings and lists stand for themselves;
any other value is an object with one key that says what it is, such as `{"$tuple": [28, 28]}` or
`{"$tensor": "means_"}`.

A network of `pygen.nn` is its class, its arguments and its weights. Of any other torch module only the
weights are saved: no code is, so `load` must be given a module of that kind to put them into.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from pygen.files import write_files

FORMAT = 1
CONFIG = "config.json"
TENSORS = "model.safetensors"

_GENERATORS = (np.random.RandomState, np.random.Generator, torch.Generator)


def save(estimator: BaseEstimator, path: str | os.PathLike[str]) -> None:
    """Save an estimator, fitted or not, to a folder.

    Both files are first written in full under temporary names, so that a failure leaves an
    earlier save in the same folder as it was.

    Parameters
    ----------
    estimator : BaseEstimator
        Of a class that `pygen` exports. Constructor parameters and fitted attributes (whose names
        end in "_" and do not begin with it) are saved: numbers, strings, None, tuples, lists and
        dicts of these, numpy arrays, tensors, torch dtypes and devices, torch modules, and further
        estimators of pygen. A random generator or a function as metric among the parameters is
        saved as None, with a warning.
    path : str or path
        The folder; made where it is missing.

    Raises
    ------
    ValueError
        If the estimator's class is not one that `pygen` exports.
    TypeError
        If a value is of a kind that cannot be saved; names it.
    FileExistsError
        If `path` is a file.
    OSError
        If the files cannot be written: a full disk, missing permission.
    """
    tensors: dict[str, Tensor] = {}
    described = _describe(estimator, "", tensors)
    data = safetensors.torch.save(tensors)
    config = {
        "format": FORMAT,
        "pygen": importlib.import_module("pygen").__version__,
        **described,
        "tensors": {"file": TENSORS, "sha256": hashlib.sha256(data).hexdigest()},
    }
    text = json.dumps(config, indent=2, allow_nan=False)
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder or nothing, found a file")
    write_files(folder, {TENSORS: data, CONFIG: text.encode()})


def load(
    path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    *,
    networks: Mapping[str, nn.Module] | None = None,
) -> Any:
    """Load an estimator from a folder written by `save`.

    Parameters
    ----------
    path : str or path
        The folder.
    device : str or torch.device, optional
        Where tensors are put, and the new value of every constructor parameter `device`. By
        default tensors are put on the CPU, and parameters are as they were.
    networks : mapping of str to Module, optional
        Modules of the kind that was saved where that is not one of `pygen.nn`, by the estimator's
        parameter: ``{"encoder": MyEncoder()}``. They are copied, and the copies get the weights.

    Returns
    -------
    BaseEstimator
        Of the class that was saved, with its parameters and fitted attributes.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its two files is missing.
    ValueError
        If the files are damaged, do not belong together, or were written by a newer pygen; if
        `networks` lacks one that is needed, or holds one that is not or does not fit.
    """
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: expected a folder written by save, found nothing there")
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder written by save, found a file")
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder}: expected {CONFIG} and {TENSORS} as written by save, found no {name}"
            )
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / TENSORS, config)
    saved = _Saved(tensors, None if device is None else _device(device), dict(networks or {}))
    try:
        estimator = _rebuild(config, saved)
        saved.check_used()
        return estimator
    except (LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{folder / CONFIG}: expected the description of an estimator as written by save, "
            f"found: {type(error).__name__}: {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error


# Writing


def _describe(estimator: BaseEstimator, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe an estimator for JSON; its arrays and tensors are added to `tensors`."""
    name = type(estimator).__name__
    if _estimator_class(name) is not type(estimator):
        raise ValueError(
            f"{key or 'estimator'}: expected an estimator that pygen exports, found "
            f"{type(estimator).__module__}.{name}"
        )
    prefix = f"{key}." if key else ""
    params = dict(estimator.get_params(deep=False))
    for param, value in params.items():
        if isinstance(value, _GENERATORS) or (param == "metric" and callable(value)):
            warnings.warn(
                f"{prefix}{param}: a {type(value).__name__} cannot be saved; None takes its place",
                UserWarning,
                stacklevel=3,
            )
            params[param] = None
    fitted = {name: value for name, value in vars(estimator).items() if _is_fitted(name)}
    return {
        "class": name,
        "params": {n: _encode(v, prefix + n, tensors) for n, v in params.items()},
        "fitted": {n: _encode(v, prefix + n, tensors) for n, v in fitted.items()},
    }


def _encode(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """Turn a value into what JSON can hold; `key` is its path, such as `estimators_.3.means_`."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if kind in (list, tuple):
        items = [_encode(item, f"{key}.{i}", tensors) for i, item in enumerate(value)]
        return items if kind is list else {"$tuple": items}
    if kind is dict:
        return {
            "$dict": {_text(k, key): _encode(v, f"{key}.{k}", tensors) for k, v in value.items()}
        }
    if isinstance(value, np.generic):
        return {"$scalar": [value.dtype.str, _encode(_plain(value, key), key, tensors)]}
    if kind in (np.ndarray, np.memmap):
        return _encode_array(value, key, tensors)
    if isinstance(value, Tensor):
        return {"$tensor": _add(value, key, tensors)}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"$device": str(value)}
    if isinstance(value, BaseEstimator):
        return {"$estimator": _describe(value, key, tensors)}
    if isinstance(value, nn.Module):
        return {"$network": _describe_network(value, key, tensors)}
    raise _unsaveable(value, key)


def _encode_array(value: Any, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if value.dtype.kind in "biuf":
        native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        try:
            return {"$array": _add(torch.from_numpy(native), key, tensors)}
        except TypeError as error:  # numpy.longdouble, which torch lacks
            raise _unsaveable(value, key) from error
    flat = value.reshape(-1).tolist()
    if value.dtype.kind in "UO" and all(type(item) is str for item in flat):
        is_object = value.dtype.kind == "O"
        return {"$strings": {"object": is_object, "shape": list(value.shape), "values": flat}}
    raise _unsaveable(value, key)


def _describe_network(network: nn.Module, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe a module for JSON: what makes it, where pygen has its class, and where its weights are."""
    kind = type(network)
    own = _network_class(kind.__name__) is kind
    arguments: Any = network.arguments if own else {}
    return {
        "class": kind.__name__ if own else f"{kind.__module__}.{kind.__qualname__}",
        "arguments": _encode(arguments, f"{key}.arguments", tensors) if own else None,
        "weights": {
            name: _encode(value, f"{key}.{name}", tensors)
            for name, value in network.state_dict().items()
        },
    }


def _add(value: Tensor, key: str, tensors: dict[str, Tensor]) -> str:
    """Add a copy of a tensor under a key that is still free; return that key."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise _unsaveable(value, key)
    while key in tensors:  # a dict's key may hold a dot: {"a.b": x, "a": {"b": y}}
        key += "'"
    # The format has no strides and no shared memory.
    tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return key


def _plain(value: np.generic, key: str) -> Any:
    if value.dtype.kind not in "biufU" or isinstance(value, np.longdouble):
        raise _unsaveable(value, key)
    return value.item()


def _text(name: Any, key: str) -> str:
    if type(name) is not str:
        raise TypeError(f"{key}: expected a dict with strings as keys, found the key {name!r}")
    return name


def _unsaveable(value: Any, key: str) -> TypeError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        kind += f" of {value.dtype}"
    return TypeError(
        f"{key}: expected numbers, strings, None, tuples, lists, dicts, numpy arrays, dense "
        f"tensors, torch modules or estimators of pygen, found a {kind}, which cannot be saved"
    )


def _is_fitted(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_") and not name.endswith("__")


def _estimator_class(name: Any) -> type[BaseEstimator] | None:
    """Return the estimator class that pygen exports under a name, None if there is none."""
    found = getattr(importlib.import_module("pygen"), name, None) if type(name) is str else None
    is_estimator = isinstance(found, type) and issubclass(found, BaseEstimator)
    return found if is_estimator else None


def _network_class(name: Any) -> type[nn.Module] | None:
    """Return the class of networks that pygen.nn exports under a name, None if there is none."""
    package: Any = importlib.import_module("pygen.nn")
    found = getattr(package, name, None) if type(name) is str and name in package.__all__ else None
    is_network = isinstance(found, type) and issubclass(found, package.Network)
    return found if is_network else None


# Reading


@dataclass
class _Saved:
    """What a description is made into an estimator with."""

    tensors: dict[str, Tensor]
    device: torch.device | None
    networks: dict[str, nn.Module]
    needed: set[str] = field(default_factory=set)

    def network(self, name: str, saved_class: str) -> nn.Module:
        """A copy of the user's module of a name."""
        self.needed.add(name)
        given = self.networks.get(name)
        if not isinstance(given, nn.Module):
            raise ValueError(
                f"{name} is a {saved_class}, of which only the weights were saved; expected a module of that kind"
                f" to put them into, load(path, networks={{{name!r}: ...}}), found {given!r}"
            )
        return deepcopy(given)

    def check_used(self) -> None:
        """Refuse networks that were given for nothing."""
        unused = sorted(set(self.networks) - self.needed)
        if unused:
            raise ValueError(
                f"networks: expected {sorted(self.needed) or 'none'}, found also {unused}"
            )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes().decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, found damage: {error}") from error
    version = config.get("format") if isinstance(config, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{path}: expected an object with a format version, found {version!r}")
    if version > FORMAT:
        raise ValueError(
            f"{path}: expected format {FORMAT} or older, found {version}, written by pygen "
            f"{config.get('pygen')}; upgrade pygen"
        )
    return config


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _read_tensors(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    entry = config.get("tensors")
    expected = entry.get("sha256") if isinstance(entry, dict) else None
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path}: expected the file that {CONFIG} describes (SHA-256 {expected}), found "
            f"another (SHA-256 {found}): it was changed, cut short, or saving was interrupted; "
            f"save the estimator again"
        )
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, found damage: {error}") from error


def _rebuild(config: dict[str, Any], saved: _Saved) -> BaseEstimator:
    """Make the estimator that a description stands for; the inverse of `_describe`."""
    cls = _estimator_class(config["class"])
    if cls is None:
        raise ValueError(f"expected the class of an estimator of pygen, found {config['class']!r}")
    params = {n: _decode(v, saved, n) for n, v in config["params"].items()}
    if saved.device is not None and "device" in params:
        params["device"] = saved.device
    estimator = cls(**params)
    for name, value in config["fitted"].items():
        if not _is_fitted(name):
            raise ValueError(f"expected names of fitted attributes, which end in _, found {name!r}")
        setattr(estimator, name, _decode(value, saved, name))
    return estimator


def _decode(value: Any, saved: _Saved, name: str) -> Any:
    """Turn what JSON held into the value it stands for, of the name; the inverse of `_encode`."""
    if isinstance(value, list):
        return [_decode(item, saved, name) for item in value]
    if not isinstance(value, dict):
        return value
    entry: tuple[Any, Any] = next(iter(value.items())) if len(value) == 1 else (None, None)
    tag, content = entry
    match tag:
        case "$float":
            return float(content)
        case "$tuple":
            return tuple(_decode(item, saved, name) for item in content)
        case "$dict":
            return {k: _decode(v, saved, k) for k, v in content.items()}
        case "$scalar":
            return _decode_scalar(content[0], _decode(content[1], saved, name))
        case "$array":
            return _tensor(content, saved.tensors).numpy()
        case "$strings":
            kind: Any = object if content["object"] else str
            return np.array(content["values"], kind).reshape(content["shape"])
        case "$tensor":
            return _tensor(content, saved.tensors).to(saved.device or "cpu")
        case "$dtype":
            return _decode_dtype(content)
        case "$device":
            return _device(content)
        case "$estimator":
            return _rebuild(content, saved)
        case "$network":
            return _rebuild_network(content, saved, name.removesuffix("_"))
    raise ValueError(f"expected one of the tags that save writes, found {value}")


def _rebuild_network(content: dict[str, Any], saved: _Saved, name: str) -> nn.Module:
    """Make the module that a description stands for; the inverse of `_describe_network`."""
    kind, arguments = content["class"], content["arguments"]
    if arguments is None:
        network = saved.network(name, kind)
    else:
        cls = _network_class(kind)
        if cls is None:
            raise ValueError(f"expected the class of a network of pygen.nn, found {kind!r}")
        # Without memory: the weights come from the file, and no random number is drawn.
        with torch.device("meta"):
            network = cls(**_decode(arguments, saved, name))
    weights = {key: _decode(value, saved, key) for key, value in content["weights"].items()}
    try:
        # The saved tensors themselves, which keeps their dtype.
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reasons = " ".join(str(error).split())
        raise ValueError(
            f"{name}: expected a module that fits the saved weights, {reasons}"
        ) from None
    return network.eval()


def _tensor(key: str, tensors: dict[str, Tensor]) -> Tensor:
    if key not in tensors:
        raise ValueError(f"expected {key!r} in {TENSORS}, found {sorted(tensors)}")
    return tensors[key]


def _decode_scalar(dtype: str, value: Any) -> np.generic:
    kind = np.dtype(dtype)
    if kind.kind not in "biufU":
        raise ValueError(f"expected a dtype of numbers or strings, found {dtype!r}")
    return kind.type(value)


def _device(name: str | torch.device) -> torch.device:
    """Return a device by name; one that torch does not know is a ValueError."""
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"expected a device of torch, found {name!r}: {error}") from error


def _decode_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"expected a dtype of torch, found {name!r}")
    return dtype
