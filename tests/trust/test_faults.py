"""Kills, full disks and dead workers, in real processes: nothing is lost, and nothing waits for ever."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from st_vi import load
from st_vi.encoding import encode_corpus
from tests.conftest import SENTENCES
from tests.helpers.processes import forked
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl
from tests.trust import lives

pytestmark = pytest.mark.slow

LIMIT = 300  # seconds for a process; one that takes longer hangs


@pytest.fixture(scope="module")
def processes():
    """Makes processes that have imported everything when they begin."""
    return forked()


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    return save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))


def run(context, target, *args, **kwargs):
    process = context.Process(target=target, args=args, kwargs=kwargs, daemon=False)
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        pytest.fail(f"{target.__name__} hangs")
    return process.exitcode


def error_of(context, target, *args):
    """What a process told of its failure."""
    here, there = context.Pipe(duplex=False)
    assert run(context, target, *args, there) == 0
    return here.recv() if here.poll() else pytest.fail("no error")


def weights(folder):
    return {
        f"{file.relative_to(folder)} {name}": value
        for file in [folder / "model.safetensors", *folder.glob("[0-9]_*/model.safetensors")]
        for name, value in load_file(file).items()
    }


def assert_same_end(one, two, steps):
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys() and len(first) > 10
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    logs = [json.loads((end / f"checkpoint-{steps}" / "trainer_state.json").read_text()) for end in (one, two)]
    assert logs[0]["log_history"][:steps] == logs[1]["log_history"][:steps]


def was_being_written(output, since):
    """Whether a checkpoint that was begun at this time or later lacks what is written last."""
    states = [folder / "trainer_state.json" for folder in output.glob("checkpoint-*")]
    new = [
        file for file in states if max(path.stat().st_mtime for path in [file.parent, *file.parent.rglob("*")]) >= since
    ]
    try:
        return not all(json.loads(file.read_text()) for file in new)
    except (FileNotFoundError, ValueError):
        return True


@pytest.mark.parametrize("system", ["viclsr", "vipolyqwen"])
def test_kills_and_the_same_weights(processes, system, tiny_base, tiny_qwen, tmp_path, record_property):
    train, base = {"viclsr": (lives.viclsr, tiny_base), "vipolyqwen": (lives.vipolyqwen, tiny_qwen)}[system]
    seed = int(os.environ.get("ST_VI_KILL_SEED") or random.SystemRandom().randrange(10**6))
    chance, within = random.Random(seed), 0
    for _ in range(lives.KILLS):
        plug = lives.Plug(steps=chance.randrange(3), delay=chance.uniform(0, 0.1))
        began = time.time()
        assert run(processes, train, base, tmp_path / "killed", [plug]) == -signal.SIGKILL, f"seed {seed}"
        within += was_being_written(tmp_path / "killed", began)
    assert run(processes, train, base, tmp_path / "killed") == 0
    assert run(processes, train, base, tmp_path / "whole", save_steps=lives.SETTINGS["max_steps"]) == 0
    shown = f"{system}: {lives.KILLS} kills, {within} of them while a checkpoint was written; ST_VI_KILL_SEED={seed}"
    record_property("shown", shown)
    assert_same_end(tmp_path / "whole", tmp_path / "killed", lives.SETTINGS["max_steps"])


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
def test_a_full_disk_leaves_the_checkpoint_before(processes, file, tiny_base, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(processes, lives.viclsr, tiny_base, whole, max_steps=6) == 0
    room = (whole / "checkpoint-4" / file).stat().st_size - 10_000
    kind, message = error_of(processes, lives.viclsr_on_a_full_disk, tiny_base, out, 3, room)
    assert kind == "OSError"
    assert f"{out}/checkpoint-4 could not be written completely" in message and "MiB are free" in message
    assert f"{out}/checkpoint-2 is complete: make room, and go on with resume=True" in message
    assert load(out / "checkpoint-2").encode(SENTENCES).shape == (8, 32)
    assert run(processes, lives.viclsr, tiny_base, out, max_steps=6) == 0  # now there is room
    assert_same_end(whole, out, 6)


def test_a_full_disk_at_the_very_end(processes, tiny_base, tmp_path):
    kind, message = error_of(processes, lives.viclsr_on_a_full_disk, tiny_base, tmp_path, None, 10_000)
    assert kind == "OSError"
    assert f"{tmp_path} could not be written completely" in message
    assert f"{tmp_path}/checkpoint-6 is complete" in message


def test_a_dead_worker_ends_the_training(processes, tiny_base, tmp_path):
    kind, message = error_of(processes, lives.viclsr_with_a_dying_worker, tiny_base, tmp_path / "out")
    assert kind == "RuntimeError" and "DataLoader worker" in message


@pytest.mark.parametrize("size", [100, 1500], ids=["manifest", "shard"])
def test_a_full_disk_leaves_the_shards_before(processes, size, tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "model"))
    kind, message = error_of(processes, lives.encode_on_a_full_disk, tmp_path / "model", tmp_path / "out", size)
    out = tmp_path / "out"
    assert kind == "OSError" and str(out) in message and "make room and call this again" in message
    before = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    assert sorted(before) == ["shard-00000.parquet", "shard-00001.parquet"]
    result = encode_corpus(load(tmp_path / "model", device="cpu"), lives.CORPUS, out, shard_rows=10)
    assert (result.shards, result.reused) == (4, 2)
    encode_corpus(load(tmp_path / "model", device="cpu"), lives.CORPUS, tmp_path / "whole", shard_rows=10)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
