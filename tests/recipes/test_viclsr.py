"""The recipe: the right parts, a training that resumes exactly, a head that comes back, an honest model card."""

from __future__ import annotations

import json

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from transformers import PhobertTokenizer, RobertaConfig, RobertaModel, TrainerCallback

from st_vi import SupConNLILoss, build_viclsr, load, train_viclsr
from st_vi.data import nli_to_triplets, sample_nli
from st_vi.evaluation import GeometryEvaluator, NLISimilarityEvaluator
from tests.conftest import SENTENCES
from tests.helpers.viclsr import SETTINGS, built


@pytest.fixture(scope="module")
def triplets():
    return nli_to_triplets(sample_nli().select(range(48)))["triplets"]  # 16 rows: 4 steps an epoch


def test_parts(tiny_base):
    model = build_viclsr(tiny_base)
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert model[1].pooling_mode == "cls" and type(model[2].activation_function) is torch.nn.Tanh
    assert model.max_seq_length == 64  # 66 positions, of which XLM-R leaves two unused
    assert build_viclsr(tiny_base, max_seq_length=16).max_seq_length == 16
    assert build_viclsr(tiny_base, pooling="mean")[1].pooling_mode == "mean"
    embeddings = model.encode([" ".join(SENTENCES * 9)])  # far more than 64 tokens
    assert embeddings.shape == (1, 32) and abs((embeddings**2).sum() - 1) < 1e-5


def test_a_head_that_starts_as_the_identity_keeps_the_vectors_of_the_encoder(tiny_base):
    model = build_viclsr(tiny_base, "identity", pooling="mean", head_init="identity")
    alone = SentenceTransformer(modules=[model[0], model[1], model[3]])
    assert (model.encode(SENTENCES) == alone.encode(SENTENCES)).all()
    assert (build_viclsr(tiny_base, "identity", pooling="mean").encode(SENTENCES) != alone.encode(SENTENCES)).any()


@pytest.mark.slow
def test_what_training_leaves_is_a_stock_model(tiny_base, triplets, tmp_path):
    """No flag and no export, also after a training that goes on from what stock has read."""
    model = built(tiny_base)
    for place in ("a", "b"):
        train_viclsr(model, triplets, tmp_path / place, **SETTINGS | {"max_steps": 2})
        listed = json.loads((tmp_path / place / "modules.json").read_text())
        assert all(module["type"].startswith("sentence_transformers.") for module in listed)
        assert "requirements" not in json.loads((tmp_path / place / "config_sentence_transformers.json").read_text())
        assert 'model = SentenceTransformer("' in (tmp_path / place / "README.md").read_text(encoding="utf-8")
        plain = SentenceTransformer(str(tmp_path / place), device="cpu", local_files_only=True)
        assert (plain.encode(SENTENCES) == model.encode(SENTENCES)).all()
        assert (load(tmp_path / place, device="cpu").encode(SENTENCES) == model.encode(SENTENCES)).all()
        before, model = model, plain
    assert (before.encode(SENTENCES) != load(tmp_path / "a", device="cpu").encode(SENTENCES)).any()


class Interruption(TrainerCallback):
    """Pull the plug after five steps."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_an_interrupted_training_ends_with_the_same_weights(tiny_base, triplets, tmp_path):
    whole = built(tiny_base)
    train_viclsr(whole, triplets, tmp_path / "whole", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train_viclsr(built(tiny_base), triplets, tmp_path / "cut", callbacks=[Interruption()], **SETTINGS)
    resumed = build_viclsr(tiny_base)  # another random head: all must come from the checkpoint
    trainer = train_viclsr(resumed, triplets, tmp_path / "cut", resume=True, **SETTINGS)
    assert trainer.state.global_step == 8
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert (load(tmp_path / "cut").encode(SENTENCES) == whole.encode(SENTENCES)).all()


class BestIsStepThree(BaseEvaluator):
    """Likes the model best after three steps."""

    def __init__(self):
        super().__init__()
        self.primary_metric, self.head = "liked", None

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        if steps == 3:
            self.head = {name: value.clone() for name, value in model[2].state_dict().items()}
        return {"liked": float(steps == 3)}


@pytest.mark.parametrize("in_sequence", [False, True])
def test_the_best_checkpoint_brings_its_head_back(tiny_base, triplets, tmp_path, in_sequence):
    judge = BestIsStepThree()
    evaluator = SequentialEvaluator([GeometryEvaluator(SENTENCES), judge]) if in_sequence else judge
    model = built(tiny_base)
    steps = {"eval_strategy": "steps", "eval_steps": 3}
    train_viclsr(model, triplets, tmp_path, evaluator=evaluator, **SETTINGS | steps)
    for name, value in judge.head.items():
        assert torch.equal(model[2].state_dict()[name], value)


def test_an_evaluator_that_judges_nothing_picks_no_checkpoint(tiny_base, triplets, tmp_path):
    model = built(tiny_base)
    trainer = train_viclsr(model, triplets, tmp_path, evaluator=GeometryEvaluator(SENTENCES), **SETTINGS)
    assert any("eval_uniformity" in entry for entry in trainer.state.log_history)
    assert trainer.state.best_model_checkpoint is None


def test_training_learns_its_rows_and_the_card_says_how(tiny_base, triplets, tmp_path):
    rows = sample_nli().select(range(48))
    evaluator = NLISimilarityEvaluator(rows["premise"], rows["hypothesis"], rows["label"], name="seen")
    model = built(tiny_base)
    before = evaluator(model)["seen_triplet_accuracy"]
    loss = SupConNLILoss(model, hard_negative_weight=0.25)
    once = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
    settings = SETTINGS | once | {"num_train_epochs": 15, "learning_rate": 3e-3}
    trainer = train_viclsr(model, triplets, tmp_path, evaluator=evaluator, loss=loss, **settings)
    assert trainer.evaluate()["eval_seen_triplet_accuracy"] > max(before, 0.8)
    model.save_pretrained(str(tmp_path))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    for fact in (
        "SupConNLILoss",
        '"hard_negative_weight": 0.25',
        "2603.21084",
        "language:\n- vi",
        "seen_triplet_accuracy",
    ):
        assert fact in card, fact


def test_bad_rows_stop_before_the_first_step(tiny_base, tmp_path):
    rows = Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "negative": [""]})
    with pytest.raises(ValueError, match="column 'negative', row 0"):
        train_viclsr(build_viclsr(tiny_base), rows, tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tiny_phobert(tmp_path_factory):
    """A random PhoBERT: its slow tokenizer on syllables and joined words, 34 positions of which 32 count."""
    path = tmp_path_factory.mktemp("phobert")
    words = ["sinh_viên", "đại_học", "sinh", "viên", "đại", "học", "giỏi"]
    letters = sorted({letter for word in words for letter in word})
    vocabulary = [*letters, *(f"{letter}@@" for letter in letters)]
    (path / "vocab.txt").write_text("".join(f"{token} 1\n" for token in vocabulary), encoding="utf-8")
    (path / "bpe.codes").write_text("", encoding="utf-8")
    tokenizer = PhobertTokenizer(str(path / "vocab.txt"), str(path / "bpe.codes"))
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=34, pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1,
        tokenizer_class="PhobertTokenizer",
    )  # fmt: skip
    RobertaModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_phobert_is_segmented_and_kept_within_its_positions(tiny_phobert, tmp_path):
    model = build_viclsr(tiny_phobert)
    assert type(model[0]).__name__ == "WordSegmentedTransformer"
    assert model.max_seq_length == 32
    text = "sinh viên đại học giỏi"
    plain = model.preprocess([text])["input_ids"]
    assert torch.equal(plain, torch.tensor([model.tokenizer("sinh_viên đại_học giỏi")["input_ids"]]))
    assert not torch.equal(
        plain, build_viclsr(tiny_phobert, segment_words=False).preprocess(["sinh viên đại học giỏi"])["input_ids"]
    )

    long_text = ["sinh viên đại học giỏi " * 50]
    assert model.encode(long_text).shape == (1, 16)
    model.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert type(loaded[0]).__name__ == "WordSegmentedTransformer" and loaded.max_seq_length == 32
    assert (loaded.encode(long_text) == model.encode(long_text)).all()
