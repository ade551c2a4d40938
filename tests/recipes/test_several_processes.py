"""Two processes train one model into one folder, as `accelerate launch` runs them."""

import json
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from st_vi import SupConNLILoss, build_viclsr, load, train_viclsr
from st_vi.data import nli_to_triplets, sample_nli
from st_vi.modules.saved_module import declare_requirement


def run_rank(rank, folder, base, port):
    torch.set_num_threads(1)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **meeting}
    model = build_viclsr(base)
    train_viclsr(
        model,
        nli_to_triplets(sample_nli("train").select(range(96))),
        f"{folder}/model",
        loss=SupConNLILoss(model, gather_across_devices=True),
        per_device_train_batch_size=4,
        max_steps=4,
        save_strategy="steps",
        save_steps=1,
        use_cpu=True,
        ddp_backend="gloo",
    )
    dist.destroy_process_group()


def test_two_processes_save_into_one_folder(tiny_base, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(run_rank, (str(tmp_path), str(tiny_base), port), nprocs=2)
    for folder in (tmp_path / "model", tmp_path / "model" / "checkpoint-4"):
        config = json.loads((folder / "config_sentence_transformers.json").read_text())
        assert config["requirements"] == {"st-vi": ">=0.1"}
        assert load(folder).encode("Trời mưa to.").shape == (32,)


def test_a_config_that_another_process_is_writing(tmp_path):
    config = tmp_path / "config_sentence_transformers.json"
    config.write_text('{"half": ')
    declare_requirement(str(tmp_path))
    assert config.read_text() == '{"half": '
    config.write_text('{"whole": 1}')
    declare_requirement(str(tmp_path))
    assert json.loads(config.read_text()) == {"whole": 1, "requirements": {"st-vi": ">=0.1"}}
    assert list(tmp_path.iterdir()) == [config]
