"""Ranks against a naive loop over raw cosines."""

from __future__ import annotations

import io
import math
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from scipy.stats import spearmanr
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from st_vi import build_vipolyqwen
from st_vi.data import sample_nli, sample_sts
from st_vi.evaluation import CompositionEvaluator, TaskRetrievalEvaluator
from st_vi.inputs.pictures import open_image
from st_vi.recipes import vipolyqwen_evaluator
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


def cosine(u, v):
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


def test_figures_against_a_loop(tiny_model):
    nli = sample_nli("test").filter(lambda row: row["label"] == "entailment").select(range(30))
    sts = sample_sts("test").select(range(20))
    anchors = [*nli["hypothesis"], *sts["sentence1"]]
    positives = [*nli["premise"][:15], *nli["premise"][:15], *sts["sentence2"]]  # 15 answers, each twice
    tasks = ["instr"] * 30 + ["text_pair"] * 20
    scores = [None] * 30 + [score / 5 for score in sts["score"]]
    metrics = TaskRetrievalEvaluator(anchors, positives, tasks, np.array(scores, dtype=float), name="dev")(tiny_model)

    for task in ("instr", "text_pair"):
        rows = [i for i, name in enumerate(tasks) if name == task]
        corpus, ranks = sorted({positives[i] for i in rows}), []
        vectors = {text: tiny_model.encode(text) for text in corpus}
        own = []
        for i in rows:
            anchor = tiny_model.encode(anchors[i])
            own.append(cosine(anchor, vectors[positives[i]]))
            ranks.append(1 + sum(cosine(anchor, v) > own[-1] + 1e-6 for t, v in vectors.items() if t != positives[i]))
        for k in (1, 5, 10):
            assert metrics[f"dev_{task}_recall@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]), abs=1e-6)
        assert metrics[f"dev_{task}_mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-6)
        assert metrics[f"dev_{task}_chance"] == 1 / len(corpus)
    assert metrics["dev_text_pair_spearman"] == pytest.approx(spearmanr(own, scores[30:]).statistic, abs=1e-4)
    assert "dev_instr_spearman" not in metrics
    mean = (metrics["dev_instr_recall@1"] + metrics["dev_text_pair_recall@1"]) / 2
    assert metrics["dev_mean_recall@1"] == pytest.approx(mean)


def test_perfect_and_collapsed_models(tiny_model):
    texts = sample_nli("test")["premise"][::3]
    evaluator = TaskRetrievalEvaluator(texts, texts, ["instr"] * len(texts))
    assert evaluator(tiny_model)["instr_mean_rank"] == 1.0
    for parameter in tiny_model[2].parameters():
        parameter.data.zero_()
    tiny_model[2].layers[0].bias.data[0] = 1.0  # every text at one point
    metrics = evaluator(tiny_model)
    assert metrics["instr_recall@1"] == metrics["instr_recall@10"] == 0


def test_options_of_the_own_row(tiny_model):
    texts = sample_nli("test")["premise"][::3][:4]
    options = [[texts[1], texts[2]], None, [texts[2]], ["Không liên quan."]]
    metrics = TaskRetrievalEvaluator(texts, texts, ["vqa_single"] * 4, options=options)(tiny_model)
    assert metrics["vqa_single_option_accuracy"] == pytest.approx(2 / 3)  # an option that is the answer is no better


def test_prompts_go_to_the_anchors_of_their_task(tiny_model):
    tiny_model.prompts = {"hoi": "Cô giáo: "}
    texts = sample_nli("test")["premise"][::3][:8]
    with_prompt = [f"Cô giáo: {text}" for text in texts]
    asked = TaskRetrievalEvaluator(texts, with_prompt, ["instr"] * 8, prompt_names={"instr": "hoi"})(tiny_model)
    assert asked["instr_recall@1"] == 1.0
    assert math.isclose(asked["instr_mean_rank"], 1.0)
    with pytest.raises(ValueError, match="one length"):
        TaskRetrievalEvaluator(texts, texts[:3], ["instr"] * 8)


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory):
    torch.manual_seed(0)
    return build_vipolyqwen(save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl")), 16).eval()


def pictures(count, size=(56, 56)):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for _ in range(count)]


def in_forms(picture, folder, number):
    """One image as a PIL image, a path, bytes, what an Arrow column holds, and another file format."""
    path, buffer = Path(folder) / f"{number}.png", io.BytesIO()
    picture.save(path)
    picture.save(buffer, "BMP")
    return [picture, path, buffer.getvalue(), {"bytes": buffer.getvalue(), "path": None}, picture.copy()]


def test_several_captions_share_their_picture_whatever_its_form(vision_model, tmp_path):
    """The model is perfect: what a caption says of an image is here the image itself."""
    forms = [in_forms(picture, tmp_path, number) for number, picture in enumerate(pictures(4))]
    captions = [picture for several in forms for picture in [several[0]] * 5]
    answers = [form for several in forms for form in several]
    metrics = TaskRetrievalEvaluator(captions, answers, ["ocr"] * 20)(vision_model)
    assert metrics["ocr_recall@1"] == metrics["ocr_mrr"] == 1.0 and metrics["ocr_chance"] == 1 / 4


def test_captions_of_a_picture_are_right_whatever_form_each_row_gives_it(vision_model, tmp_path):
    """None of two captions is nearer than the other: both are right, or one of the rows is lost."""
    path, picture = tmp_path / "a.png", pictures(1)[0]
    open_image(picture).save(path)
    anchors = [str(path), {"image": str(path)}, {"image": [path]}, {"image": picture, "text": ""}]
    evaluator = TaskRetrievalEvaluator(anchors, ["a", {"text": "b"}, "b", "c"], ["ocr"] * 4)
    metrics = evaluator(vision_model)
    assert metrics["ocr_recall@1"] == metrics["ocr_chance"] == 1


def test_the_row_of_an_unreadable_picture_is_named():
    with pytest.raises(ValueError, match=r"Row 1 of positives: cannot read the image b'no image'"):
        TaskRetrievalEvaluator(["a", "b"], ["c", {"image": b"no image"}], ["ocr"] * 2)


def test_all_captions_of_one_picture_are_right(vision_model, tmp_path):
    forms = [in_forms(picture, tmp_path, number) for number, picture in enumerate(pictures(3))]
    anchors = [form for several in forms for form in several[:3]]
    captions = [{"image": forms[row // 3][0], "text": " ".join("abc"[row % 3] * 2)} for row in range(9)]
    evaluator = TaskRetrievalEvaluator(anchors, captions, ["ocr"] * 9)
    metrics = evaluator(vision_model)
    vectors = vision_model.encode([open_image(forms[row // 3][0]) for row in range(9)], normalize_embeddings=True)
    cosines = vectors @ vision_model.encode(captions, normalize_embeddings=True).T
    for row in range(9):
        own = [column // 3 == row // 3 for column in range(9)]
        best = cosines[row, own].max()
        assert evaluator.ranks["ocr"][row] == 1 + (cosines[row, np.logical_not(own)] >= best).sum()
    assert metrics["ocr_chance"] == pytest.approx(1 / 3)


def test_equal_queries_as_in_the_stock_evaluator(tiny_model):
    """Every third premise is asked three times, with three answers."""
    rows = sample_nli("test").select(range(60))
    anchors, answers = rows["premise"][:], rows["hypothesis"][:]
    metrics = TaskRetrievalEvaluator(anchors, answers, ["nli"] * 60)(tiny_model)
    corpus = {text: text for text in answers}
    right = {}
    for anchor, answer in zip(anchors, answers, strict=True):
        right.setdefault(anchor, set()).add(answer)
    assert max(map(len, right.values())) > 1
    stock = InformationRetrievalEvaluator(
        {str(row): anchor for row, anchor in enumerate(anchors)},
        corpus,
        {str(row): right[anchor] for row, anchor in enumerate(anchors)},
        mrr_at_k=[1000],
        accuracy_at_k=[1, 5, 10],
        write_csv=False,
    )(tiny_model)
    for k in (1, 5, 10):
        assert metrics[f"nli_recall@{k}"] == pytest.approx(stock[f"cosine_accuracy@{k}"])
    assert metrics["nli_mrr"] == pytest.approx(stock["cosine_mrr@1000"])


def test_every_distinct_input_is_encoded_once(tiny_model, monkeypatch):
    seen = []
    encode = tiny_model.encode
    monkeypatch.setattr(tiny_model, "encode", lambda inputs, **k: seen.extend(inputs) or encode(inputs, **k))
    texts = sample_nli("test")["premise"][::3][:6]
    options = [[texts[1], texts[2], texts[0]]] * 3 + [[texts[1], "Khác."]] * 3
    decomposed = [texts[0], *texts[:5]]
    metrics = TaskRetrievalEvaluator(decomposed, decomposed, ["vqa"] * 6, options=options)(tiny_model)
    assert sorted(seen) == sorted([*texts[:5], *texts[:5], "Khác."])
    assert metrics["vqa_recall@1"] == 1.0


def test_texts_that_differ_in_blanks_or_composition_are_one_answer(tiny_model):
    composed, decomposed = "Trời m\u01b0a.", "Trời  m\u0075\u031ba."
    metrics = TaskRetrievalEvaluator([composed, composed, "Nắng."], [composed, decomposed, "Nắng."], ["x"] * 3)(
        tiny_model
    )
    assert metrics["x_recall@1"] == 1.0 and metrics["x_chance"] == 0.5


def test_right_answers_among_the_options_are_not_wrong(tiny_model):
    metrics = TaskRetrievalEvaluator(["a", "a"], ["b", "a"], ["x"] * 2, options=[["a"], ["b"]])(tiny_model)
    assert "x_option_accuracy" not in metrics


def test_a_model_that_gives_no_numbers_finds_nothing(tiny_model):
    for parameter in tiny_model[2].parameters():
        parameter.data.fill_(math.nan)
    assert TaskRetrievalEvaluator(["a", "b"], ["a", "b"], ["x"] * 2)(tiny_model)["x_recall@1"] == 0


class Lazy(Sequence):
    """Images that are made when they are asked for, and how many of them there are at once."""

    def __init__(self, count):
        self.count, self.alive, self.most = count, weakref.WeakSet(), 0

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        picture = Image.new("RGB", (56, 56), (row, 0, 0))
        self.alive.add(Kept(picture))
        self.most = max(self.most, len(self.alive))
        return picture


class Kept:
    """As long as its image is there: images themselves cannot be in a set."""

    def __init__(self, picture):
        picture.kept = self


def test_pictures_are_decoded_a_batch_at_a_time(vision_model):
    lazy = Lazy(24)
    metrics = TaskRetrievalEvaluator(lazy, lazy, ["ocr"] * 24, batch_size=4)(vision_model)
    assert metrics["ocr_recall@1"] == 1.0
    assert lazy.most <= 8  # of a batch, and of the one before it


def test_rows_with_pictures_are_an_evaluator_that_holds_none(vision_model, tmp_path):
    rows = []
    for number, picture in enumerate(pictures(3)):
        for form in in_forms(picture, tmp_path, number)[1:3]:
            rows.append((None, str(form) if isinstance(form, Path) else str(tmp_path / f"{number}.png"), "Chữ."))
    anchors, paths, positives = zip(*rows, strict=True)
    data = {"anchor": anchors, "anchor_image": paths, "positive": positives, "task": ["ocr"] * 6}
    evaluator = vipolyqwen_evaluator(Dataset.from_dict({key: list(value) for key, value in data.items()}))
    assert len(set(evaluator.anchor_keys)) == 3 and len(set(evaluator.positive_keys)) == 1
    assert not any(isinstance(value, Image.Image) for value in vars(evaluator.anchors).values())
    assert evaluator(vision_model)["ocr_recall@1"] == 1.0
    broken = DatasetDict(a=Dataset.from_dict({"anchor": ["a", None], "positive": ["b", "c"], "task": ["ocr"] * 2}))
    with pytest.raises(ValueError, match="a, column 'anchor', row 1: a row has neither"):
        vipolyqwen_evaluator(broken)
    for column in ("anchor", "positive", "task"):
        with pytest.raises(ValueError, match=f"dataset 'a': missing column '{column}'"):
            vipolyqwen_evaluator({"a": broken["a"].remove_columns(column)})
    with pytest.raises(ValueError, match="dataset 'a' must have rows of a single task, got no rows"):
        vipolyqwen_evaluator({"a": broken["a"].select([])})


@pytest.mark.parametrize("options", ["Mưa", ["Mưa", None], [1, 2], ["Mưa", " "], ["<|image_pad|>"]])
def test_options_of_rows_are_lists_of_texts(options):
    rows = Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "task": ["ocr"], "options": [options]})
    with pytest.raises(ValueError, match="column 'options', row 0: "):
        vipolyqwen_evaluator(rows)


def test_composition_of_pictures(vision_model):
    """One image with several probes goes to the model once."""
    picture, other = pictures(2)
    probes = CompositionEvaluator([picture, picture], [picture.copy(), picture], [other, "Một con mèo."])
    assert probes(vision_model)["composition_accuracy"] == 1.0
