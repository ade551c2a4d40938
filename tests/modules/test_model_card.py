"""The code of every saved card runs, and its figures are those of the weights beside it."""

from __future__ import annotations

import math
import re
import shutil

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.modules import Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import BoW, Pooling
from transformers import TrainerCallback

from st_vi import (
    MLPHead,
    SupConNLILoss,
    build_viclsr,
    build_vipolyqwen,
    export_stock,
    load,
    train_viclsr,
    train_vipolyqwen,
)
from st_vi.data import nli_to_triplets, sample_nli
from st_vi.modules.model_card import with_own_card
from tests.helpers.cards import card, check, run_code
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

SETTINGS = {"per_device_train_batch_size": 4, "disable_tqdm": True, "use_cpu": True, "max_steps": 2}


@pytest.fixture(scope="module")
def triplets():
    return nli_to_triplets(sample_nli().select(range(48)))["triplets"]


def test_a_model_saved_as_it_was_made_loaded_and_saved_elsewhere(tiny_base, tmp_path):
    build_viclsr(tiny_base).save_pretrained(str(tmp_path / "a"))
    assert "st_vi" not in check(tmp_path / "a")
    again = load(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "moved")
    again.save_pretrained(str(tmp_path / "thư mục b"))
    check(tmp_path / "thư mục b")


@pytest.mark.slow
def test_a_trained_one_and_its_export(tiny_base, triplets, tmp_path):
    model = build_viclsr(tiny_base)
    train_viclsr(model, triplets, tmp_path / "a", **SETTINGS)
    texts = {text for name in ("anchor", "positive", "negative") for text in triplets[name]}
    assert texts > {*check(tmp_path / "a")["sentences"]}
    for trained in (model, load(tmp_path / "a")):  # of the second, the card is the one that was read
        export_stock(trained, tmp_path / "stock")
        names = check(tmp_path / "stock")
        assert "st_vi" not in names and "MLPHead" not in card(tmp_path / "stock")
        assert "Dense({" in card(tmp_path / "stock")
        shutil.rmtree(tmp_path / "stock")


def test_a_stream_among_the_data_sets_is_left_out(tiny_base, triplets, tmp_path):
    model = build_viclsr(tiny_base)
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), report_to="none", per_device_eval_batch_size=len(triplets), **SETTINGS
    )
    held_out = {"stream": triplets.to_iterable_dataset(), "rows": triplets}
    trainer = SentenceTransformerTrainer(model, arguments, triplets, eval_dataset=held_out, loss=SupConNLILoss(model))
    trainer.train()
    measured = trainer.evaluate()
    assert measured["eval_stream_loss"] == pytest.approx(measured["eval_rows_loss"])
    texts = {text for name in ("anchor", "positive", "negative") for text in triplets[name]}
    assert texts > {*model.model_card_data.usage_examples}


def test_a_path_as_it_was_given(tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_viclsr(tiny_base).save_pretrained("out/model")
    assert 'SentenceTransformer("out/model")' in card(tmp_path / "out" / "model")
    check(tmp_path / "out" / "model")


def test_modules_put_together_by_hand_and_loaded_by_stock(tmp_path):
    model = SentenceTransformer(modules=[BoW(["trời", "mưa", "mèo"]), MLPHead(3, 4), Normalize()], device="cpu")
    model.save_pretrained(str(tmp_path / "a"))
    check(tmp_path / "a")
    stock = SentenceTransformer(str(tmp_path / "a"), trust_remote_code=True, device="cpu")
    stock.save_pretrained(str(tmp_path / "b"))
    check(tmp_path / "b")


def test_pushed_to_the_hub_the_card_names_the_repository(tmp_path):
    model = SentenceTransformer(modules=[BoW(["mưa"]), MLPHead(1, 4)], device="cpu")
    model.save_pretrained(str(tmp_path), model_name="ai-do/mot-mo-hinh")
    text = card(tmp_path)
    assert 'st_vi.load("ai-do/mot-mo-hinh")' in text and str(tmp_path) not in text
    assert 'SentenceTransformer("ai-do/mot-mo-hinh", trust_remote_code=True)' in text


@pytest.mark.parametrize("name", ["Mô hình của tôi", "mo-hinh", "nhóm em/mô hình"])
def test_a_name_that_no_repository_has_is_the_title(tmp_path, name):
    model = SentenceTransformer(modules=[BoW(["trời", "mưa", "mèo"]), MLPHead(3, 4), Normalize()], device="cpu")
    model.save_pretrained(str(tmp_path), model_name=name)
    check(tmp_path)
    assert f"\n# {name}\n" in card(tmp_path)


@pytest.mark.slow
def test_modules_inside_a_router(tiny_base, triplets, tmp_path):
    passages = [Transformer(str(tiny_base)), Pooling(32, "mean"), MLPHead(32, 32)]
    router = Router.for_query_document([Transformer(str(tiny_base)), Pooling(32, "cls")], passages)
    model = SentenceTransformer(modules=[router, Normalize()], device="cpu")
    routes = {"anchor": "query", "positive": "document", "negative": "document"}
    train_viclsr(model, triplets, tmp_path / "a", router_mapping=routes, **SETTINGS)
    load(tmp_path / "a").save_pretrained(str(tmp_path / "b"))
    for folder in (tmp_path / "a", tmp_path / "b"):
        names, _, _ = run_code(folder)
        assert names["query_embeddings"].shape == (1, 32) and names["document_embeddings"].shape == (2, 32)
        assert "trust_remote_code=True" in card(folder)


class Stop(TrainerCallback):
    """Interrupts in the third epoch."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.epoch > 2:
            raise KeyboardInterrupt


class Rising(BaseEvaluator):
    """Gives the next of some figures."""

    def __init__(self, *figures):
        super().__init__()
        self.figures, self.primary_metric, self.name = iter(figures), "figure", ""

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        metrics = {"figure": next(self.figures), "other": 0.25}
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    @property
    def description(self):
        return "Rising"


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_figures_are_those_of_the_best_checkpoint(tiny_base, triplets, tmp_path, interrupted):
    settings = SETTINGS | {"max_steps": -1, "num_train_epochs": 3}
    figures = [0.625, 0.875, 0.125]
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            train_viclsr(
                build_viclsr(tiny_base), triplets, tmp_path, Rising(*figures[:2]), callbacks=[Stop()], **settings
            )
        figures, settings = figures[2:], settings | {"resume": True}
    train_viclsr(build_viclsr(tiny_base), triplets, tmp_path, Rising(*figures), **settings)
    table = card(tmp_path).partition("### Metrics")[2].partition("## Training Details")[0]
    assert "0.875" in table and "0.125" not in table
    assert re.search(r"value: 0\.875", card(tmp_path)) and not re.search(r"value: 0\.125", card(tmp_path))


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    return save_tiny_qwen2_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def rows():
    """12 rows, a third with an image; the first has an image and no text."""
    made = []
    for number, colour in enumerate(("red", "blue", "green", "yellow")):
        picture = Image.new("RGB", (56, 56), colour)
        made.append(("" if number == 0 else "Màu gì?", picture, f"Màu số {number}.", math.nan, "vqa_single"))
        made.append((f"Trời {number}.", None, f"Bầu trời số {number}.", 0.9, "text_pair"))
        made.append((f"Áo {number}.", None, "Tôi nghỉ học.", 0.1, "text_pair"))
    names = ("anchor", "anchor_image", "positive", "score", "task")
    types = (Value("string"), ImageFeature(), Value("string"), Value("float64"), Value("string"))
    columns = {name: list(column) for name, column in zip(names, zip(*made, strict=True), strict=True)}
    return Dataset.from_dict(columns, features=Features(dict(zip(names, types, strict=True))))


def test_columns_without_a_value_in_the_first_row(tiny_model):
    rows = Dataset.from_dict(
        {
            "anchor": ["Trời mưa.", "Trời nắng."],
            "score": [float("nan"), 0.5],
            "anchor_image": [None, Image.new("RGB", (8, 8))],
            "positive_image": [None, None],
        },
        features=Features(
            anchor=Value("string"),
            score=Value("float64"),
            anchor_image=ImageFeature(),
            positive_image=ImageFeature(),
        ),
    )
    with_own_card(tiny_model)
    table = tiny_model.model_card_data.compute_dataset_metrics(rows, {}, None)["stats_table"]
    kinds = [cell.strip() for cell in table.splitlines()[2].split("|")[2:-1]]
    assert kinds[:2] == ["string", "float"] and "image" in kinds[2].lower() and kinds[3] == "empty"
    assert "nan" not in table


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_pictures_and_prefixes(tiny_qwen, rows, tmp_path, caplog, lora):
    if lora:
        pytest.importorskip("peft", reason='needs pip install "st-vi[lora]"')
    model = build_vipolyqwen(tiny_qwen, embedding_dimension=24, max_pixels=56 * 56, lora=lora or None)
    model.save_pretrained(str(tmp_path / "untrained"))
    check(tmp_path / "untrained")
    train_vipolyqwen(model, rows, tmp_path / "a", **SETTINGS)
    names = check(tmp_path / "a")
    assert not caplog.records or not any("asset" in record.message for record in caplog.records)
    texts, picture = names["inputs"][:2], names["inputs"][2]
    assert set(texts) <= {*rows["anchor"], *rows["positive"]} and Image.open(picture["image"]).size == (56, 56)
    assert re.search(r'prompt_name="text_pair" steers \(of .*, ocr, ', card(tmp_path / "a"))
    if not lora:  # an adapter is read again from its base, not from here
        load(tmp_path / "a").save_pretrained(str(tmp_path / "b"))
        shutil.rmtree(tmp_path / "a")
        check(tmp_path / "b")
