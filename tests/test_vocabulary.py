"""`trim_vocabulary`: the same pieces and the same vectors where no piece is lost, for every kind of tokenizer."""

from __future__ import annotations

import json
import signal
from importlib.util import find_spec

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import BoW, Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaModel,
)
from typer.testing import CliRunner

from st_vi import Qwen2VLTransformer, load, trim_vocabulary
from st_vi.__main__ import app
from st_vi.cli.common import InterruptedRun
from st_vi.hub import export_stock
from st_vi.recipes import merge_lora
from st_vi.vocabulary import trim
from st_vi.vocabulary.pieces import always_kept, count_pieces, pieces_of, tokenizer_spec, with_parts
from st_vi.vocabulary.trim import _cut_embeddings, unwritable
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

ENGLISH = [
    "The weather was rainy, and all of the streets were flooded with water.",
    "Yesterday we bought three kilograms of oranges on the market.",
    "A quick brown fox jumps over the lazy sleeping dog.",
]
TEXTS = [*SENTENCES, *map(str.lower, SENTENCES)]
NAMES = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"}


def unigram() -> Tokenizer:
    """Words, halves of words and letters, with made-up scores: XLM-R's layout, `<mask>` last."""
    words = {f"▁{word}" for text in SENTENCES + ENGLISH for word in text.lower().split()}
    halves = {part for word in words for part in (word[: len(word) // 2], word[len(word) // 2 :]) if len(part) > 1}
    letters = {letter for text in SENTENCES + ENGLISH for letter in text + text.lower()} | {"▁"}
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [(piece, -3.0 - i / 100) for i, piece in enumerate(sorted(words - letters))]
    pieces += [(piece, -8.0 - i / 100) for i, piece in enumerate(sorted(halves - words - letters))]
    pieces += [(letter, -20.0) for letter in sorted(letters)] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram([*special, *pieces], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        SENTENCES + ENGLISH, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "<unused>", "<unk>", "<s>", "</s>", "<mask>"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES + ENGLISH, trainer)
    return tokenizer


@pytest.fixture(params=[unigram, bpe, word_piece], ids=lambda make: make.__name__)
def model(request, tmp_path) -> SentenceTransformer:
    tokenizer = request.param()
    tokenizer.normalizer = normalizers.NFC()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    names = {f"{role}_token": token for role, token in NAMES.items()}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    fast.save_pretrained(tmp_path / "base")
    kinds = (BertConfig, BertModel) if request.param is word_piece else (XLMRobertaConfig, XLMRobertaModel)
    ids = {f"{role}_token_id": fast.convert_tokens_to_ids(NAMES[role]) for role in ("bos", "pad", "eos")}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    config = kinds[0](vocab_size=len(fast) + 3, max_position_embeddings=70, initializer_range=0.3, **sizes, **ids)
    kinds[1](config).save_pretrained(tmp_path / "base")
    modules = [Transformer(str(tmp_path / "base")), Pooling(32, "mean")]
    return SentenceTransformer(modules=modules, device="cpu")


def vectors(model, texts=TEXTS):
    return model.encode(texts, convert_to_tensor=True)


@pytest.mark.slow
def test_vectors_stay_and_the_rest_goes(model, tmp_path):
    before, tokens = vectors(model), [model.tokenizer.tokenize(text) for text in TEXTS]
    english, size = vectors(model, ENGLISH), len(model.tokenizer)
    weights = sum(p.numel() for p in model.parameters())
    report = trim_vocabulary(model, TEXTS, held_out=TEXTS + ENGLISH)

    assert [model.tokenizer.tokenize(text) for text in TEXTS] == tokens
    torch.testing.assert_close(vectors(model), before)
    assert report.largest_change_whole < 1e-6 < report.largest_change and report.pieces_lost > 0
    assert (report.pieces_before, report.pieces) == (size, len(model.tokenizer)) and report.pieces < 0.8 * size
    assert model[0].model.get_input_embeddings().weight.shape == (report.pieces, 32)
    assert model[0].model.config.vocab_size == report.pieces
    assert (report.weights_before, report.weights_before - report.weights) == (
        weights,
        32 * (size + 3 - report.pieces),  # with the rows that had no piece
    )
    assert report.unknown == 0 and not unwritable(model.tokenizer, ENGLISH)  # letter by letter
    assert "letters" not in str(report) and f"{report.pieces:,}" in str(report)

    for save in (lambda: model.save_pretrained(str(tmp_path / "new")), lambda: export_stock(model, tmp_path / "new")):
        save()
        again = load(tmp_path / "new", device="cpu")
        torch.testing.assert_close(vectors(again), before)
        torch.testing.assert_close(vectors(again, ENGLISH), vectors(model, ENGLISH))
        assert [again.tokenizer.convert_tokens_to_ids(t) for t in NAMES.values()] == [
            model.tokenizer.convert_tokens_to_ids(t) for t in NAMES.values()
        ]
    assert not torch.allclose(vectors(model, ENGLISH), english)


def test_what_is_kept(model):
    """Everything that the texts use, special tokens, letters, and for BPE what a piece is merged from; no more."""
    tokenizer, spec = model.tokenizer, tokenizer_spec(model.tokenizer)
    used = set(count_pieces(tokenizer, TEXTS))
    report = trim_vocabulary(model, TEXTS, held_out=[])
    names = {number: piece for piece, number in pieces_of(spec).items()}
    there = set(pieces_of(tokenizer_spec(model.tokenizer)))
    needed = used | always_kept(tokenizer, spec)
    assert {names[number] for number in needed if number in names} <= there
    if spec["model"]["type"] != "BPE":
        padding = {0} if "XLM" in type(model[0].model).__name__ else set()
        assert len(there) == report.pieces == len(needed | padding)
    else:
        assert len(there) == len(with_parts(spec, used) | needed)
        assert there <= set(names.values())


def test_room_for_some(model):
    counts = count_pieces(model.tokenizer, TEXTS)
    least = len(always_kept(model.tokenizer, tokenizer_spec(model.tokenizer)))
    most = [
        n for n, _ in counts.most_common() if n not in always_kept(model.tokenizer, tokenizer_spec(model.tokenizer))
    ]
    frequent = set(model.tokenizer.convert_ids_to_tokens(most[:5]))
    report = trim_vocabulary(model, TEXTS, max_pieces=least + 25)
    assert least < report.pieces <= least + 25
    assert frequent <= set(model.tokenizer.get_vocab())
    with pytest.raises(ValueError, match="max_pieces=20 is less than"):
        trim_vocabulary(model, TEXTS, max_pieces=20)


def test_rare_pieces_and_prompts(model):
    query = "market "
    piece = model.tokenizer.tokenize(query)[0]
    every = set(model.tokenizer.get_vocab())
    trim_vocabulary(model, TEXTS * 2, min_count=3, keep=[query])
    there = set(model.tokenizer.get_vocab())
    assert piece in there < every and model.tokenizer.tokenize(query)[0] == piece


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there are no texts"),
        (["", " "], "there are no texts"),
        (
            ENGLISH * 10,
            r"not Vietnamese: 0 of the first 30 have .*'The weather was.* vietnamese=False \(--any-language\)",
        ),
        (["Trời mưa.", None], "expected texts, and number 1 is None"),
    ],
)
def test_bad_texts_leave_the_model_as_it_was(texts, message, tiny_model):
    before, size = vectors(tiny_model), len(tiny_model.tokenizer)
    with pytest.raises(ValueError, match=message):
        trim_vocabulary(tiny_model, texts)
    assert len(tiny_model.tokenizer) == size
    torch.testing.assert_close(vectors(tiny_model), before)
    assert trim_vocabulary(tiny_model, ENGLISH * 10, vietnamese=False).pieces < size


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["word_embeddings"]},
        {"trainable_token_indices": [7]},
        {"modules_to_save": ["word_embeddings"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_an_adapter_around_the_embeddings_is_merged_first(tiny_model, settings, wrapped):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(**{"r": 2, "target_modules": ["query"], **settings})
    if wrapped:
        tiny_model[0].model = peft.get_peft_model(tiny_model[0].model, config)
    else:
        tiny_model.add_adapter(config)
    with pytest.raises(ValueError, match=r"call st_vi\.recipes\.merge_lora"):
        trim_vocabulary(tiny_model, TEXTS)
    merge_lora(tiny_model)
    trim_vocabulary(tiny_model, TEXTS)


def test_a_string_is_one_text(tiny_base):
    """Also held out, where each of its letters would be one."""
    text, first, second = "Cô giáo giảng bài.", *(SentenceTransformer(str(tiny_base)) for _ in range(2))
    as_text, as_list = (
        trim_vocabulary(model, ENGLISH * 10, keep=given, held_out=given, vietnamese=False)
        for model, given in ((first, text), (second, [text]))
    )
    assert as_text == as_list and as_text.held_out == 1
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match="first module is a text Transformer"):
        trim_vocabulary(SentenceTransformer(modules=[BoW(["xin", "chào"])]), TEXTS)

    class Slow:
        backend_tokenizer = None

    with pytest.raises(ValueError, match="a Slow cannot be cut: it is not a fast tokenizer"):
        tokenizer_spec(Slow())
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    with pytest.raises(ValueError, match="a WordLevel tokenizer cannot be cut"):
        tokenizer_spec(words)


@pytest.mark.parametrize("tied", [True, False])
def test_output_embeddings_go_with_the_input_ones(tied):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = XLMRobertaConfig(vocab_size=20, tie_word_embeddings=tied, initializer_range=0.5, **sizes)
    model = XLMRobertaForMaskedLM(config).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    kept = [0, 1, 2, 3, 7, 11, 19]
    old, new = torch.tensor([[0, 7, 19, 2]]), torch.tensor([[0, 4, 6, 2]])
    before = model(old).logits[..., kept]
    _cut_embeddings(model, kept)
    torch.testing.assert_close(model(new).logits, before)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


@pytest.mark.slow
@pytest.mark.parametrize("marks", [{}, {"image_token_ids": ["<|image_pad|>"], "audio_token_ids": [None]}])
def test_qwen2_vl_keeps_its_special_tokens(tmp_path, marks):
    """Byte-level BPE: every text and image still goes in, and its ids stand where configuration and processor say."""
    from PIL import Image

    save_tiny_qwen2_vl(tmp_path / "base")
    model = SentenceTransformer(modules=[Qwen2VLTransformer(str(tmp_path / "base")), Pooling(64, "mean")], device="cpu")
    for name, tokens in marks.items():
        ids = [token and model.tokenizer.convert_tokens_to_ids(token) for token in tokens]
        setattr(model[0].processor, name, ids)
    picture = Image.new("RGB", (56, 56), "red")
    inputs = [*SENTENCES[:3], {"text": SENTENCES[0], "image": picture}, picture]
    before, size = vectors(model, inputs), len(model.tokenizer)
    report = trim_vocabulary(model, SENTENCES[:3], keep=["hình ảnh"], held_out=["xyz 漢字"])
    assert report.pieces < size
    torch.testing.assert_close(vectors(model, inputs), before)
    config = model[0].model.config
    assert model.tokenizer.convert_ids_to_tokens(config.image_token_id) == "<|image_pad|>"
    model.save_pretrained(str(tmp_path / "new"))
    again = load(tmp_path / "new", device="cpu")
    torch.testing.assert_close(vectors(again, inputs), before)
    assert again.tokenizer.decode(again.tokenizer("漢字").input_ids) == "漢字"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))), reason="needs st-vi[onnx]")
@pytest.mark.parametrize("model", [unigram, bpe], indirect=True)
def test_onnx_of_a_cut_model(model, tmp_path):
    from st_vi.graphs.encoder import OnnxEncoder
    from st_vi.graphs.export import export_onnx

    trim_vocabulary(model, [*SENTENCES[:4], SENTENCES[0].lower()])
    export_onnx(model, tmp_path)
    graph = torch.from_numpy(OnnxEncoder(tmp_path, threads=1).encode(SENTENCES))
    torch.testing.assert_close(graph, vectors(model, SENTENCES), atol=1e-5, rtol=0)


def test_the_report_is_json(tiny_model):
    report = trim_vocabulary(tiny_model, TEXTS * 3)
    assert report.held_out == 2  # every 20th of 48
    assert json.loads(json.dumps(report.as_dict()))["pieces"] == report.pieces


def test_the_command(tiny_base, tmp_path, monkeypatch):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 3))
    model = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean")], device="cpu")
    model.save_pretrained(str(tmp_path / "model"))
    result = CliRunner().invoke(app, ["trim", str(tmp_path / "model"), str(file), "--output", str(tmp_path / "cut")])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    cut = load(tmp_path / "cut", device="cpu")
    assert len(cut.tokenizer) == report["pieces"] <= report["pieces_before"]
    torch.testing.assert_close(vectors(cut), vectors(model))
    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformer, "save_pretrained", lambda *args: signal.raise_signal(signal.SIGINT))
        result = CliRunner().invoke(
            app, ["trim", str(tmp_path / "model"), str(file), "--output", str(tmp_path / "int")]
        )
        assert isinstance(result.exception, InterruptedRun) and "int, which is not complete" in str(result.exception)
    # The model itself would be written over.
    result = CliRunner().invoke(app, ["trim", str(tmp_path / "model"), str(file), "--output", str(tmp_path / "model")])
    assert isinstance(result.exception, ValueError) and "is not an empty folder" in str(result.exception)
    result = CliRunner().invoke(app, ["trim", str(tmp_path / "model"), str(file), "--output", "x", "--column", "line"])
    assert isinstance(result.exception, ValueError) and "missing column 'line'" in str(result.exception)


def test_texts_and_those_held_out_of_them(monkeypatch):
    monkeypatch.setattr(trim, "_MEASURED", 2)
    texts = [f"sấm {number}" for number in range(100)]
    counted, measured = trim._texts(texts, None, True)
    assert measured == [texts[19], texts[39]] and counted == [text for text in texts if text not in measured]
    with pytest.raises(ValueError, match="there are no texts"):
        trim._texts(["  "], None, False)
