"""Our losses under FSDP: weights in shards over two processes, gradients as of one process with the joint batch."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from st_vi import CachedSupConNLILoss, SupConNLILoss
from tests.helpers.columns import BY_RANK
from tests.helpers.processes import gloo, on_two


def encoder(base):
    return SentenceTransformer(modules=[Transformer(base), Pooling(32, "mean")], device="cpu").double()


def run_rank(rank, folder, base, loss_class):
    with gloo(rank, folder):
        model, mesh = encoder(base), init_device_mesh("cpu", (2,))
        for layer in model[0].model.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        loss = loss_class(model, gather_across_devices=True)
        # The processes have different numbers of distinct inputs, and every forward gathers weights from both.
        loss([model.preprocess(column) for column in BY_RANK[rank]]).backward()
        gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
        torch.save(gradients, f"{folder}/rank{rank}")


@pytest.mark.skipif(not hasattr(torch.cpu.current_stream(), "record_event"), reason="FSDP of torch 2.6 needs a GPU")
@pytest.mark.parametrize("loss_class", [SupConNLILoss, CachedSupConNLILoss])
def test_two_processes_equal_the_joint_batch(loss_class, tiny_base, tmp_path):
    on_two(run_rank, str(tmp_path), str(tiny_base), loss_class)
    model = encoder(str(tiny_base))
    joint = [first + second for first, second in zip(*BY_RANK, strict=True)]
    SupConNLILoss(model)([model.preprocess(column) for column in joint]).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for rank in range(2):
        actual = torch.load(tmp_path / f"rank{rank}")
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, atol=1e-9, rtol=1e-9)
