"""`torch.compile`, with the C++ that it writes for a CPU: the vectors stay what they were."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.clients.conftest import TEXTS

HAS_COMPILER = shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.fixture
def compiler():
    """The default one of torch, which counts what it compiles; afterwards all is forgotten."""
    yield CompileCounterWithBackend("inductor")
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs g++ and the headers of Python")
@pytest.mark.parametrize("model", ["attention"], indirect=True)
def test_a_compiled_model_gives_the_same_vectors(model, compiler):
    texts = [*TEXTS, " ".join(TEXTS)]
    del model.transformers_model.encoder.layer[1:]  # one is compiled sooner, and shows as much
    expected = model.encode(texts), model.encode(TEXTS)
    model.compile(backend=compiler, dynamic=True)
    np.testing.assert_allclose(model.encode(texts), expected[0], atol=1e-5)
    graphs = compiler.frame_count
    np.testing.assert_allclose(model.encode(TEXTS), expected[1], atol=1e-5)
    assert compiler.frame_count == graphs > 0  # other lengths run what was compiled


def test_stock_does_not_run_a_backbone_that_was_compiled_alone(tiny_model, compiler):
    """It calls `forward`, which `nn.Module.compile` does not replace. When this fails, docs can name that way."""
    tiny_model.transformers_model.compile(backend=compiler, dynamic=True)
    tiny_model.encode(TEXTS)
    assert compiler.frame_count == 0
