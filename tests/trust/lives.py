"""What the processes of `test_faults.py` do."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import resource
import signal
import threading
from contextlib import contextmanager

import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from sentence_transformers import SentenceTransformer
from tqdm import tqdm
from transformers import TrainerCallback

from st_vi import build_viclsr, build_vipolyqwen, load, train_viclsr, train_vipolyqwen
from st_vi.data import nli_to_triplets, sample_nli
from st_vi.encoding import encode_corpus
from tests.conftest import SENTENCES
from tests.helpers.fuzz import SHARE

KILLS = max(4, round(20 * SHARE))
SETTINGS = {
    "max_steps": 4 * KILLS + 4,  # a life has four steps at most
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}
CORPUS = [{"text": f"{SENTENCES[i % 8]} {i}"} for i in range(40)]


class Plug(TrainerCallback):
    """SIGKILL to its own process: `delay` seconds after it has ended as many steps, or two steps later."""

    def __init__(self, steps, delay):
        self.steps, self.delay = steps, delay

    def on_train_begin(self, args, state, control, **kwargs):
        if self.steps == 0:
            threading.Timer(self.delay, kill_me).start()

    def on_step_end(self, *args, **kwargs):
        self.steps -= 1
        if self.steps == -2:
            kill_me()
        self.on_train_begin(*args, **kwargs)


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


class FullDisk(TrainerCallback):
    """From the end of a step on, or of the training, no file can be larger than so many bytes.

    A stand-in for a disk without room, for it needs no disk of its own: what is written ends in the middle.
    """

    def __init__(self, step, size):
        self.step, self.size = step, size

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            limit_files(self.size)

    def on_train_end(self, *args, **kwargs):
        limit_files(self.size)


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def begin():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gc.freeze()  # collect garbage of this process, and not of what the server imported
    SentenceTransformer._create_model_card = lambda *args: None  # most of the time of a checkpoint; nobody reads it
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process leaves behind


def viclsr(base, output, callbacks=(), model=None, **settings):
    begin()
    model = model or build_viclsr(base)
    rows = nli_to_triplets(sample_nli().select(range(48)))["triplets"]
    train_viclsr(model, rows, output, resume=True, callbacks=callbacks, **SETTINGS | settings)


def vipolyqwen(base, output, callbacks=(), **settings):
    begin()
    model = build_vipolyqwen(base, embedding_dimension=24, max_pixels=56 * 56)
    rows, settings = task_rows(), SETTINGS | {"prefix_dropout": 0.5} | settings
    train_vipolyqwen(model, rows, output, resume=True, callbacks=callbacks, **settings)


def task_rows():
    """16 rows of three tasks, half of them with an image."""
    made = []
    for colour, name in (("red", "đỏ"), ("blue", "xanh dương"), ("green", "xanh lá"), ("yellow", "vàng")):
        picture = Image.new("RGB", (56, 56), colour)
        made.append(("Cái áo màu gì?", picture, f"Cái áo màu {name}.", math.nan, "vqa_single"))
        made.append(("", picture, f"Tấm vải {name}.", math.nan, "ocr"))
        made.append((f"Tường sơn {name}.", None, f"Bức tường có màu {name}.", 0.9, "text_pair"))
        made.append((f"Xe màu {name}.", None, "Hôm nay chợ đông người.", 0.1, "text_pair"))
    types = {"anchor": Value("string"), "anchor_image": ImageFeature(), "positive": Value("string")}
    types |= {"score": Value("float64"), "task": Value("string")}
    return Dataset.from_list([dict(zip(types, row, strict=True)) for row in made], features=Features(types))


@contextmanager
def telling(told):
    """Send an error to the process that waits for it."""
    try:
        yield
    except Exception as error:
        told.send((type(error).__name__, str(error)))


def viclsr_on_a_full_disk(base, output, step, size, told):
    with telling(told):
        viclsr(base, output, [FullDisk(step, size)], max_steps=6)


def viclsr_with_a_dying_worker(base, output, told):
    model = build_viclsr(base)
    preprocess = model[0].preprocess

    def dies_in_a_worker(*args, **kwargs):
        if torch.utils.data.get_worker_info() is not None:
            kill_me()
        return preprocess(*args, **kwargs)

    model[0].preprocess = dies_in_a_worker
    multiprocessing.set_start_method("fork", force=True)  # the usual one on Linux with this Python
    with telling(told):
        viclsr(base, output, model=model, dataloader_num_workers=1)


def encode_on_a_full_disk(model, output, size, told):
    begin()

    def rows():
        for number, row in enumerate(CORPUS):
            if number == 30:  # two shards are written: rows are read one shard ahead
                limit_files(size)
            yield row

    with telling(told):
        encode_corpus(load(model, device="cpu"), rows(), output, shard_rows=10)
