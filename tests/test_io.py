"""Saving and loading: every kind of value, every kind of damage, disks that fill up."""

import copy
import hashlib
import importlib
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.base import BaseEstimator

from pygen import io, nn


class Model(BaseEstimator):
    def __init__(self, size=1, other=None, device=None, random_state=None):
        self.size = size
        self.other = other
        self.device = device
        self.random_state = random_state


class Ensemble(BaseEstimator):
    def __init__(self, estimator=None):
        self.estimator = estimator


class Private(BaseEstimator):
    pass


@pytest.fixture(autouse=True)
def exported(monkeypatch):
    """Export this file's models from pygen, as its own are."""
    package = importlib.import_module("pygen")
    for name, value in {"Model": Model, "Ensemble": Ensemble, "Path": os.PathLike}.items():
        monkeypatch.setattr(package, name, value, raising=False)
    monkeypatch.setattr(package, "__version__", "0.1", raising=False)


def round_trip(estimator, folder, **options):
    io.save(estimator, folder)
    return io.load(folder, **options)


def same(a, b):
    """Tell whether two values agree in type, shape and every bit; NaN equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        equal = torch.equal(a.detach().nan_to_num(), b.detach().nan_to_num())
        return a.dtype == b.dtype and a.shape == b.shape and equal
    if isinstance(a, np.ndarray):
        return a.dtype.kind == b.dtype.kind and a.shape == b.shape and (a == b).all()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b or (a != a and b != b)


VALUES = [
    None,
    True,
    -3,
    2**100,
    0.1,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "zwölf\n\0\ud7ff",
    np.float32(0.1),
    np.float64(math.nan),
    np.int64(-(2**63)),
    np.uint8(255),
    np.bool_(True),
    np.str_("abc"),
    (),
    (1, (2.5, "x"), [None]),
    [],
    [[1], (2,)],
    {},
    {"a": 1, "$tuple": [1], "b.c": {"d": (1,)}},
    torch.float32,
    torch.bfloat16,
    torch.device("cpu"),
    torch.device("cuda:1"),
    np.array(["cat", "doge"]),
    np.array([["cat"], ["doge"]], object),
    np.array([], "U3"),
    np.array(1.5),
    np.zeros((0, 3), np.int32),
    np.arange(12.0).reshape(3, 4).T,
    np.arange(12)[::-2],
    [np.ones(2), {"x": torch.ones(2)}],
    {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values(tmp_path, value):
    model = Model(size=value, other=[value])
    model.fitted_ = (value,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = round_trip(model, tmp_path / "run")
    assert type(loaded) is Model
    assert same(loaded.size, value)
    assert same(loaded.other, [value])
    assert same(loaded.fitted_, (value,))


DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (7,), (3, 4)])
def test_tensors(tmp_path, dtype, shape):
    model = Model()
    model.x_ = (torch.rand(shape) * 3).to(dtype)
    if dtype != torch.bfloat16:
        model.y_ = model.x_.numpy()
    loaded = round_trip(model, tmp_path)
    assert same(loaded.x_, model.x_)
    if dtype != torch.bfloat16:
        assert same(loaded.y_, model.y_)
        loaded.y_[...] = 0  # an array that can be written to


def test_views_and_shared_memory(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    model = Model()
    model.a_, model.b_, model.c_, model.d_ = base, base.T, base[1:, ::2], base
    model.e_ = torch.zeros(1).expand(5)
    model.f_ = torch.nn.Parameter(base)
    loaded = round_trip(model, tmp_path)
    for name in ("a_", "b_", "c_", "d_", "e_"):
        assert same(getattr(loaded, name), getattr(model, name))
    assert same(loaded.f_, base)
    loaded.a_.zero_()
    assert loaded.d_.sum() == base.sum()


def test_only_fitted_attributes_are_kept(tmp_path):
    model = Model()
    model.kept_ = 1
    model.lost, model._lost_, model.lost__ = 2, 3, 4
    loaded = round_trip(model, tmp_path)
    assert vars(loaded) == {**vars(Model()), "kept_": 1}


def test_nested_estimators(tmp_path):
    ensemble = Ensemble(Model(size=(1, 2)))
    ensemble.estimators_ = [Model(size=i) for i in range(3)]
    for i, member in enumerate(ensemble.estimators_):
        member.means_ = torch.full((2,), float(i))
    ensemble.by_name_ = {"x": Ensemble(Model(size=np.ones(3)))}
    loaded = round_trip(ensemble, tmp_path)
    assert loaded.estimator.size == (1, 2)
    assert [m.size for m in loaded.estimators_] == [0, 1, 2]
    assert same([m.means_ for m in loaded.estimators_], [m.means_ for m in ensemble.estimators_])
    assert same(loaded.by_name_["x"].estimator.size, np.ones(3))
    keys = safetensors.torch.load_file(tmp_path / "model.safetensors").keys()
    assert "estimators_.2.means_" in keys


def test_layout(tmp_path):
    model = Model(size=2)
    model.means_ = np.ones(2)
    io.save(model, tmp_path / "a/b")
    assert sorted(p.name for p in (tmp_path / "a/b").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((tmp_path / "a/b/config.json").read_text())
    assert config["format"] == 1
    assert config["pygen"] == importlib.import_module("pygen").__version__
    assert config["class"] == "Model"
    assert config["params"]["size"] == 2
    assert config["fitted"] == {"means_": {"$array": "means_"}}
    data = (tmp_path / "a/b/model.safetensors").read_bytes()
    assert config["tensors"]["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "generator",
    [np.random.RandomState(0), np.random.default_rng(0), torch.Generator()],
    ids=lambda generator: type(generator).__name__,
)
def test_generators_become_none(tmp_path, generator):
    with pytest.warns(UserWarning, match=r"estimator\.random_state: a .* cannot be saved"):
        io.save(Ensemble(Model(random_state=generator)), tmp_path)
    assert io.load(tmp_path).estimator.random_state is None


def test_device(tmp_path):
    model = Ensemble(Model(device=torch.device("cuda:3")))
    model.x_ = torch.ones(2)
    model.y_ = np.ones(2)
    io.save(model, tmp_path)
    assert io.load(tmp_path).estimator.device == torch.device("cuda:3")
    loaded = io.load(tmp_path, device="meta")
    assert loaded.x_.device == loaded.estimator.device == torch.device("meta")
    assert isinstance(loaded.y_, np.ndarray)
    with pytest.raises(ValueError, match="expected a device of torch, found 'gpu'"):
        io.load(tmp_path, device="gpu")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        1j,
        slice(3),
        len,
        float,
        np.float32,
        np.array([1, "x"], object),
        np.array([1j]),
        np.array(["2020-01-01"], "M8[D]"),
        np.complex64(1),
        np.longdouble(1),
        np.zeros(2, np.longdouble),
        torch.zeros(2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
        {1: 2},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_cannot_be_saved(tmp_path, value):
    model = Ensemble()
    model.items_ = [Model(other=value)]
    with pytest.raises(TypeError, match=r"^items_\.0\.other: expected"):
        io.save(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("estimator", [Private(), Ensemble(Private()), "Model", Model])
def test_classes_that_cannot_be_saved(tmp_path, estimator):
    with pytest.raises(ValueError, match="expected an estimator that pygen exports"):
        io.save(estimator, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("precious")
    with pytest.raises(FileExistsError, match="expected a folder or nothing, found a file"):
        io.save(Model(), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "precious"


# Networks


class MyNet(torch.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layer = torch.nn.Linear(2, width)
        self.norm = torch.nn.BatchNorm1d(width)


def trained(network):
    """A network whose every weight and buffer is its own."""
    for i, value in enumerate(network.state_dict().values()):
        value.copy_(torch.rand(value.shape) * 9 + i)
    return network


def same_networks(a, b):
    return type(a) is type(b) and same(dict(a.state_dict()), dict(b.state_dict()))


NETWORKS = [
    nn.MLPEncoder((1, 3, 3), 4, n_classes=2),
    nn.ConvDecoder(2, (3, 9, 8)),
    nn.MLPDiscriminator((5,), spectral_norm=True),
    nn.DCGANGenerator(3, (1, 8, 8), width=4),
    nn.DCGANDiscriminator((1, 8, 8), width=4, norm="instance"),
    nn.MLPDecoder(2, (4,)).double(),
    nn.MLPGenerator(2, (4,)).to(torch.bfloat16),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_networks_of_pygen(tmp_path, network):
    model = Ensemble()
    model.network_, model.all_ = trained(network), [network]
    before = torch.get_rng_state()
    loaded = round_trip(model, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    for found in (loaded.network_, *loaded.all_):
        assert same_networks(found, network)
        assert found.arguments == network.arguments
        assert not found.training
        assert not any(value.is_meta for value in (*found.parameters(), *found.buffers()))
    keys = safetensors.torch.load_file(tmp_path / "model.safetensors").keys()
    assert {f"network_.{key}" for key in network.state_dict()} < keys


def test_networks_that_pygen_does_not_know(tmp_path):
    model = Ensemble(Model(other=trained(MyNet())))
    model.encoder_ = trained(MyNet())
    io.save(model, tmp_path)
    mine = {"other": MyNet(), "encoder": MyNet()}
    untouched = {name: copy.deepcopy(network) for name, network in mine.items()}
    loaded = io.load(tmp_path, networks=mine)
    assert same_networks(loaded.encoder_, model.encoder_)
    assert same_networks(loaded.estimator.other, model.estimator.other)
    assert all(same_networks(mine[name], untouched[name]) for name in mine)
    for networks, message in {
        (): r"other is a .*MyNet, of which only the weights were saved.*networks=\{'other': \.\.\.\}",
        ("other",): r"encoder is a .*MyNet.*found None",
        ("other", "encoder", "x"): r"expected \['encoder', 'other'\], found also \['x'\]",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            io.load(tmp_path, networks={name: MyNet() for name in networks})
        assert "\n" not in str(caught.value)
    with pytest.raises(
        ValueError, match=r"other: expected a module that fits.*size mismatch"
    ) as caught:
        io.load(tmp_path, networks={"other": MyNet(4), "encoder": MyNet()})
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"expected a module of that kind.*found 'net'"):
        io.load(tmp_path, networks={"other": "net"})


def test_networks_where_none_are(run):
    with pytest.raises(ValueError, match=r"networks: expected none, found also \['encoder'\]"):
        io.load(run, networks={"encoder": MyNet()})


def test_a_function_as_metric_becomes_none(tmp_path):
    class Judged(Model):
        def __init__(self, metric=None):
            self.metric = metric

    importlib.import_module("pygen").Judged = Judged
    try:
        with pytest.warns(
            UserWarning, match="metric: a builtin_function_or_method cannot be saved"
        ):
            io.save(Judged(metric=len), tmp_path)
        assert io.load(tmp_path).metric is None
    finally:
        del importlib.import_module("pygen").Judged


# Damage


def edit(folder, change):
    """Change the parsed config.json in place."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def replace_tensors(folder, data):
    """Put other bytes into model.safetensors and make config.json agree."""
    (folder / "model.safetensors").write_bytes(data)
    edit(folder, lambda c: c["tensors"].update(sha256=hashlib.sha256(data).hexdigest()))


@pytest.fixture
def run(tmp_path):
    model = Model(size=1.5)
    model.means_ = torch.ones(3)
    io.save(model, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("missing", ["", "config.json", "model.safetensors"])
def test_missing(run, missing):
    if missing:
        (run / missing).unlink()
    path = run if missing else run / "elsewhere"
    with pytest.raises(FileNotFoundError, match=r"expected .*written by save, found no"):
        io.load(path)


def test_a_file_is_not_a_run(run):
    with pytest.raises(ValueError, match="expected a folder written by save, found a file"):
        io.load(run / "config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("\xff", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ('{"format": NaN}', "NaN is not JSON"),
        ("[1]", "expected an object with a format version, found None"),
        ("{}", "expected an object with a format version, found None"),
        ('{"format": "1"}', "expected an object with a format version, found '1'"),
        ('{"format": 2, "pygen": "9.9"}', r"found 2, written by pygen 9\.9; upgrade pygen"),
    ],
    ids=range(9),
)
def test_wrong_config(run, text, message):
    (run / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        io.load(run)


def network(name, **arguments):
    """Description of a network without weights."""
    return {"$network": {"class": name, "arguments": {"$dict": arguments}, "weights": {}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update({"class": "Unknown"}),
            "class of an estimator of pygen, found 'Unknown'",
        ),
        (lambda c: c.update({"class": "Path"}), "class of an estimator of pygen, found 'Path'"),
        (lambda c: c.update({"class": ["Model"]}), "class of an estimator of pygen"),
        (lambda c: c.pop("class"), "KeyError"),
        (lambda c: c.pop("params"), "KeyError"),
        (lambda c: c.update(params=[]), "AttributeError"),
        (lambda c: c["params"].update(unknown=1), "TypeError: .*unknown"),
        (lambda c: c["fitted"].update(fit=1), "fitted attributes, which end in _, found 'fit'"),
        (lambda c: c["fitted"].update(x_={"$eval": "1"}), "one of the tags that save writes"),
        (lambda c: c["fitted"].update(x_={}), "one of the tags that save writes"),
        (lambda c: c["fitted"].update(x_={"$tensor": "y_"}), r"expected 'y_' in model.safetensors"),
        (lambda c: c["fitted"].update(x_={"$dtype": "load"}), "expected a dtype of torch"),
        (lambda c: c["fitted"].update(x_={"$device": "gpu"}), "expected a device of torch"),
        (lambda c: c["fitted"].update(x_={"$scalar": ["O", 1]}), "expected a dtype of numbers"),
        (lambda c: c["fitted"].update(x_={"$scalar": ["u1", 300]}), "OverflowError"),
        (lambda c: c["fitted"].update(x_={"$float": "x"}), "could not convert string to float"),
        (lambda c: c["fitted"].update(x_=network("load")), "class of a network of pygen.nn, found"),
        (lambda c: c["fitted"].update(x_=network("Network")), "TypeError"),
        (lambda c: c["fitted"].update(x_=network("MLPEncoder", shape=0)), "TypeError"),
        (
            lambda c: c["fitted"].update(x_=network("MLPEncoder", shape=[3], n_outputs=2)),
            "x: expected a module that fits the saved weights, .*Missing key",
        ),
    ],
    ids=range(20),
)
def test_wrong_description(run, change, message):
    edit(run, change)
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        io.load(run)


def test_files_that_do_not_belong_together(run):
    data = (run / "model.safetensors").read_bytes()
    for other in (data[:-1], data[:20], b"", data[:-1] + b"\1"):
        (run / "model.safetensors").write_bytes(other)
        with pytest.raises(ValueError, match=r"model\.safetensors: expected the file that.*again"):
            io.load(run)


def test_damaged_safetensors(run):
    data = (run / "model.safetensors").read_bytes()
    for other in (data[:-1], data[:20], b"", b"\xff" * 100):
        replace_tensors(run, other)
        with pytest.raises(ValueError, match=r"model\.safetensors: expected a safetensors file"):
            io.load(run)


def test_missing_tensor(run):
    replace_tensors(run, safetensors.torch.save({"other_": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"expected 'means_' in .*found \['other_'\]"):
        io.load(run)


# Failing writes

FULL_DISK = """
import resource, signal, sys
import numpy as np
from sklearn.base import BaseEstimator
import pygen
from pygen import io, nn

class Model(BaseEstimator):
    pass

pygen.Model = Model
pygen.__version__ = "0.1"
model = Model()
model.means_ = np.zeros(10_000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for folder in sys.argv[1:]:
    for limit in (0, 100, 50_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            io.save(model, folder)
        except OSError as error:
            print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX's")
def test_disk_that_takes_no_more(run, tmp_path):
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL_DISK, str(run), str(tmp_path / "new/run")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    messages = done.stdout.splitlines()
    problem = "could not write model.safetensors and config.json: File too large"
    assert [message.partition("] ")[2] for message in messages] == (
        [f"{run}: {problem}"] * 3 + [f"{tmp_path / 'new/run'}: {problem}"] * 3
    )
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("fails_at", [0, 1])
def test_crash_between_the_renames(run, monkeypatch, fails_at):
    class Crash(BaseException):
        pass

    replace, calls = Path.replace, []

    def crash(source, target):
        calls.append(target)
        if len(calls) > fails_at:
            raise Crash
        replace(source, target)

    monkeypatch.setattr(Path, "replace", crash)
    other = Model()
    other.means_ = torch.zeros(3)
    with pytest.raises(Crash):
        io.save(other, run)
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "model.safetensors"]
    if fails_at == 0:
        assert same(io.load(run).means_, torch.ones(3))
    else:
        with pytest.raises(ValueError, match="saving was interrupted"):
            io.load(run)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="could not write"):
        io.save(Model(), tmp_path / "file/run")


def test_saving_again_replaces(run):
    model = Model(size=2)
    model.means_ = torch.zeros(5)
    loaded = round_trip(model, run)
    assert loaded.size == 2
    assert same(loaded.means_, torch.zeros(5))
