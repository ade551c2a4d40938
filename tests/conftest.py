"""Tiny models built from configs, so that every test runs offline."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it: a test that wants the network shall fail at once
os.environ.setdefault("OMP_NUM_THREADS", "1")  # more only get in each other's way on models this small
if "ST_VI_CACHE" not in os.environ:  # example models are trained once for all tests, by the code as it is now
    os.environ["ST_VI_CACHE"] = tempfile.mkdtemp(prefix="st-vi-cache-")
    atexit.register(shutil.rmtree, os.environ["ST_VI_CACHE"], ignore_errors=True)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started behind a shell's "&": tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "pytest" in sys.modules:  # until all is imported and collected: there is no garbage, and looking for it takes time
    gc.disable()

# Plotly imports jsonschema, which would make a grammar of addresses out of this for more than a second.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import pytest

from tests.helpers.browser import browser  # noqa: F401

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerFast

# What `dev` leaves out, and `.ci/run` tests: an extra with an environment of its own, and one with a cluster.
without = {"optimum": "graphs/test_openvino.py", "ray": "encoding/test_ray.py"}
collect_ignore = [file for package, file in without.items() if find_spec(package) is None]

SENTENCES = [
    "Trời mưa to nên đường phố ngập nước.",
    "Hôm nay trời nắng đẹp, gió nhẹ.",
    "Cô giáo đang giảng bài cho học sinh lớp năm.",
    "Con mèo đen nằm ngủ trên mái nhà.",
    "Anh ấy mua ba cân cam ở chợ Bến Thành.",
    "Đội bóng thắng trận chung kết với tỉ số hai không.",
    "Nhà máy tạm ngừng sản xuất vì mất điện.",
    "Quyển sách này nói về lịch sử Hà Nội.",
]


FIRST = ("browser", "notebooks", "processes")
"""The groups that take longest: half of the notebooks and the site, the other half, and what starts processes."""


def pytest_configure(config: pytest.Config) -> None:
    """With several workers, groups begin in the order of their tests: ``--no-loadscope-reorder`` of xdist."""
    config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True, tryfirst=True)  # groups before xdist reads them, the order after everything else
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """What needs a browser comes last, and the notebooks before the site, which shows what they gave.

    With several workers (xdist), a group of tests is one worker's, mostly a file, so that its models are made once.
    What takes longest begins first, then the files with most tests.
    """

    def place(item: pytest.Item) -> int:
        built = ("test_site.py", "test_live_demo.py", "test_charts.py")
        return 1 if item.path.parent.name == "notebooks" else 2 if item.path.name in built else 0

    def group(item: pytest.Item) -> str:
        if place(item):
            return "notebooks" if re.match(r"test_\d[13579]_", item.path.name) else "browser"
        if isinstance(item, pytest.Function) and vars(item.module).keys() & {"on_two", "forked"}:
            return "processes"  # which are forked from one server a worker
        return item.nodeid.partition("::")[0]

    in_worker = hasattr(config, "workerinput")
    for item in items if in_worker else ():
        item.add_marker(pytest.mark.xdist_group(group(item)))
    yield
    items.sort(key=place)
    if in_worker:
        rank, sizes = {name: number for number, name in enumerate(FIRST)}, Counter(map(group, items))
        items.sort(key=lambda item: (rank.get(group(item), len(FIRST)), -sizes[group(item)]))


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_unconfigure() -> None:
    gc.freeze()  # pytest collects garbage at its end


@pytest.hookimpl(tryfirst=True)  # before a name is printed, or kept for --last-failed
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tests have the names that pytest can run again: xdist ends them with their group, ``@tests/test_x.py``."""
    name, _, group = report.nodeid.rpartition("@")
    if hasattr(report, "node") and (group in FIRST or name.startswith(f"{group}::")):  # it comes from a worker
        report.nodeid = name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests want to be seen when they pass, such as seeds: `record_property("shown", text)`."""
    for report in terminalreporter.getreports("passed"):
        for text in (value for name, value in report.user_properties if name == "shown"):
            terminalreporter.write_line(str(text))


@pytest.fixture(autouse=True)
def garbage_of_its_own() -> None:
    """Leave what is there by now out of garbage collection: the trainer collects after every training."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_template_of_model_cards() -> Iterator[None]:
    """Every saved model has a card, and jinja2 would compile its template each time: a third of a short training."""
    import jinja2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", functools.cache(jinja2.Environment.compile))
        yield


def tiny_tokenizer(max_length: int = 64) -> PreTrainedTokenizerFast:
    """A BPE tokenizer with XLM-R's special tokens, trained on `SENTENCES` (Unigram training is not reproducible)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=max_length,
    )


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer XLM-R of width 32, saved as transformers saves it; no dropout."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    path = tmp_path_factory.mktemp("tiny-xlmr")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def tiny_model(tiny_base: Path) -> SentenceTransformer:
    """CLS pooling, one-layer tanh head, unit length: the shape of ViCLSR. A fresh copy for each test."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    from st_vi.modules import MLPHead

    torch.manual_seed(1)
    transformer = Transformer(str(tiny_base))
    return SentenceTransformer(
        modules=[transformer, Pooling(32, "cls"), MLPHead(32, 32, activation="tanh"), Normalize()], device="cpu"
    )
