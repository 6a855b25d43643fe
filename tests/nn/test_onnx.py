"""Accelerated networks become ONNX programs after `fold` or `restore`, read by ONNX's own evaluator."""

import pytest
import torch
from published_forms import CHANNELS, FORMS, LATENT

import pygen
from pygen.nn import fold

pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
evaluator = pytest.importorskip(
    "onnx.reference", reason="exported programs are executed by onnx's reference evaluator"
).ReferenceEvaluator


@pytest.fixture(params=FORMS)
def generator(request):
    """Accelerated, with running statistics of its own."""
    torch.manual_seed(0)
    network = pygen.accelerate(FORMS[request.param][0](), verbose=False)
    for _ in range(5):
        network(torch.randn(8, LATENT, 1, 1))
    return network.eval()


@pytest.mark.parametrize("prepare", [fold, pygen.restore])
def test_exported(generator, prepare):
    z = torch.randn(4, LATENT, 1, 1)
    expected = generator(z).detach()
    program = evaluator(torch.onnx.export(prepare(generator), (z,), dynamo=True).model_proto)
    (found,) = program.run(None, {program.input_names[0]: z.numpy()})
    assert found.shape == (4, CHANNELS, 32, 32)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
