"""Two processes train one model into one folder, as `accelerate launch` runs them."""

import json
import os
import socket

import pytest
import torch
from torch import Tensor
from transformers import set_seed

from st_vi import SupConNLILoss, build_viclsr, load, train_viclsr
from st_vi.data import nli_to_triplets, sample_nli
from st_vi.modules.saved_module import declare_requirement
from tests.helpers.processes import leave_together, on_two


def train(base, folder, rows=8, processes=1, **arguments):
    """ViCLSR for a few steps, each on so many rows of all processes together."""
    set_seed(3)
    model = build_viclsr(base)
    train_viclsr(
        model,
        nli_to_triplets(sample_nli("train"))["triplets"],
        folder,
        loss=SupConNLILoss(model, gather_across_devices=processes > 1),
        per_device_train_batch_size=rows // processes,
        use_cpu=True,
        seed=3,
        **arguments,
    )


def run_rank(rank, port, folder, base, arguments):
    torch.set_num_threads(1)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **meeting}
    train(base, folder, processes=2, ddp_backend="gloo", **arguments)
    leave_together()


def train_on_two(base, folder, **arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    on_two(run_rank, port, str(folder), str(base), arguments)


def weights(folder) -> Tensor:
    """All but the biases of keys: no output depends on them, their gradient is rounding, of which Adam makes steps."""
    state = load(folder, device="cpu").state_dict()
    return torch.cat([state[name].flatten() for name in sorted(state) if not name.endswith("key.bias")])


def test_two_processes_save_into_one_folder(tiny_base, tmp_path):
    train_on_two(tiny_base, tmp_path / "model", max_steps=4, save_strategy="steps", save_steps=1)
    for folder in (tmp_path / "model", tmp_path / "model" / "checkpoint-4"):
        json.loads((folder / "config_sentence_transformers.json").read_text())  # whole, not half
        assert load(folder).encode("Trời mưa to.").shape == (32,)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_on_one_and_two_processes(tiny_base, tmp_path, record_property):
    # One dataset, since stock draws among several by the number of batches; and within the first epoch, at whose end
    # two processes fill their last batches up in another way than one does.
    arguments = {"max_steps": 10, "learning_rate": 2e-3, "save_strategy": "no"}
    train(tiny_base, tmp_path / "one", **arguments)
    train(tiny_base, tmp_path / "again", **arguments)
    train(tiny_base, tmp_path / "untrained", **arguments | {"learning_rate": 1e-12})
    for name in ("two", "two-again"):
        train_on_two(tiny_base, tmp_path / name, **arguments)
    one = weights(tmp_path / "one")
    assert torch.equal(one, weights(tmp_path / "again"))
    assert torch.equal(weights(tmp_path / "two"), weights(tmp_path / "two-again"))
    moved = (one - weights(tmp_path / "untrained")).abs().max().item()
    apart = (one - weights(tmp_path / "two")).abs().max().item()
    record_property("shown", f"one process and two: weights differ by {apart:.1e} at most, training moved {moved:.1e}")
    assert apart < 1e-5 < 5e-3 < moved


def test_a_config_that_another_process_is_writing(tmp_path):
    config = tmp_path / "config_sentence_transformers.json"
    config.write_text('{"half": ')
    declare_requirement(str(tmp_path))
    assert config.read_text() == '{"half": '
    config.write_text('{"whole": 1}')
    declare_requirement(str(tmp_path))
    assert json.loads(config.read_text()) == {"whole": 1, "requirements": {"st-vi": ">=0.1"}}
    assert list(tmp_path.iterdir()) == [config]
