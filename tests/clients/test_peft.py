"""PEFT the stock way: an adapter is added, trained, saved and loaded, and the head comes along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

from st_vi import SupConNLILoss, load
from tests.clients.conftest import TEXTS

peft = pytest.importorskip("peft", reason='needs pip install "st-vi[lora]"')


@pytest.mark.slow
def test_an_adapter_and_the_head_are_trained_and_come_back(model, tmp_path):
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query", "value"]))
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    start = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in start} >= {"0", "2"} and all("lora_" in n for n in start if n[0] == "0")

    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"), max_steps=2, learning_rate=0.01, save_strategy="no", report_to="none", use_cpu=True
    )
    rows = Dataset.from_dict({"anchor": TEXTS[:3], "positive": TEXTS[3:]})
    SentenceTransformerTrainer(model, arguments, train_dataset=rows, loss=SupConNLILoss(model)).train()
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert all(not torch.equal(now[n], value) for n, value in start.items() if "lora_B" in n or n[0] == "2")

    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert Path(tmp_path, "saved", "adapter_model.safetensors").is_file()
    assert not Path(tmp_path, "saved", "model.safetensors").exists()
    for again in (
        load(tmp_path / "saved", device="cpu"),
        SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu"),
    ):
        np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
