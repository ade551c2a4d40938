"""Saved models in and out, against the model card's own code and against plain sentence-transformers."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel
from transformers.utils import logging as transformers_logging

from st_vi.hub import export_stock, import_viclsr, load
from st_vi.modules import MLPHead
from st_vi.recipes import build_vipolyqwen
from tests.conftest import SENTENCES
from tests.helpers.cards import check
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
LONG = " ".join(SENTENCES)  # more tokens than the tiny model has positions


def write_weights(weights, file):
    if file.suffix == ".safetensors":
        save_file(weights, file, metadata={"format": "pt"})
    else:
        torch.save(weights, file)


def edit_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def weights(tiny_base):
    """What the published file holds: backbone, head, and two leftovers of the training code."""
    backbone = {f"roberta.{name}": value for name, value in load_file(tiny_base / SAFETENSORS).items()}
    torch.manual_seed(2)
    return backbone | {
        "mlp.dense.weight": torch.randn(32, 32) / 6,
        "mlp.dense.bias": torch.randn(32),
        "roberta.pooler.dense.weight": torch.randn(32, 32),
        "roberta.embeddings.position_ids": torch.arange(66)[None],
    }


@pytest.fixture(params=[SAFETENSORS, BIN])
def released(request, tiny_base, weights, tmp_path):
    """The weights file of a folder in the published layout."""
    folder = tmp_path / "ViCLSR"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns(SAFETENSORS))
    edit_json(folder / "config.json", architectures=["XLMRobertaForCL"])
    edit_json(folder / "tokenizer_config.json", model_max_length=512)
    write_weights(weights, folder / request.param)
    return folder / request.param


def card_code(folder, weights, texts, activation=lambda x: x, max_length=64):
    """The model card: first token, linear layer, unit length. Built from raw tensors, without from_pretrained."""
    config = XLMRobertaConfig(**json.loads((folder / "config.json").read_text()))
    config._attn_implementation = "eager"
    backbone = XLMRobertaModel(config, add_pooling_layer=False).eval()
    leftovers = ("pooler", "position_ids")
    state = {
        name.removeprefix("roberta."): value
        for name, value in weights.items()
        if name.startswith("roberta.") and not any(part in name for part in leftovers)
    }
    backbone.load_state_dict(state)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.no_grad():
        first = backbone(**batch).last_hidden_state[:, 0]
        return F.normalize(activation(first @ weights["mlp.dense.weight"].T + weights["mlp.dense.bias"]), dim=-1)


def encode(model, texts=SENTENCES):
    return model.encode(texts, convert_to_tensor=True).cpu()


# --- import_viclsr


def test_import_cuts_the_vocabulary_on_the_way(released):
    whole = import_viclsr(released.parent)
    cut = import_viclsr(released.parent, trim_to=SENTENCES[:4])
    assert len(cut.tokenizer) < len(whole.tokenizer)
    texts = SENTENCES[:4]
    torch.testing.assert_close(cut.encode(texts, convert_to_tensor=True), whole.encode(texts, convert_to_tensor=True))
    with pytest.raises(ValueError, match="not Vietnamese"):
        import_viclsr(released.parent, trim_to=["The weather was rainy."] * 10)


@pytest.mark.parametrize(("name", "activation"), [("identity", lambda x: x), ("tanh", torch.tanh)])
def test_import_equals_the_model_card(released, weights, name, activation):
    model = import_viclsr(released.parent, name, local_files_only=True)
    texts = [*SENTENCES, LONG]
    expected = card_code(released.parent, weights, texts, activation)
    torch.testing.assert_close(encode(model, texts), expected, atol=1e-6, rtol=0)
    assert [type(module) for module in model] == [Transformer, Pooling, Dense, Normalize]
    other = card_code(released.parent, weights, texts, {"identity": torch.tanh}.get(name, lambda x: x))
    assert (encode(model, texts) - other).abs().max() > 1e-3


def test_max_seq_length_respects_the_positions(released, weights):
    assert import_viclsr(released.parent).max_seq_length == 64  # 66 positions, of which XLM-R uses two for padding
    short = import_viclsr(released.parent, max_seq_length=7)
    assert short.max_seq_length == 7
    expected = card_code(released.parent, weights, SENTENCES, max_length=7)
    torch.testing.assert_close(encode(short), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("released", [SAFETENSORS], indirect=True)
def test_import_prefers_safetensors(released, weights):
    write_weights({name: torch.zeros_like(value) for name, value in weights.items()}, released.with_name(BIN))
    expected = card_code(released.parent, weights, SENTENCES)
    torch.testing.assert_close(encode(import_viclsr(released.parent)), expected, atol=1e-6, rtol=0)


def test_import_from_a_repository_in_the_cache(released, weights, tmp_path):
    repository, commit = tmp_path / "cache" / "models--huynhtin--ViCLSR", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(released.parent, repository / "snapshots" / commit)
    model = import_viclsr("huynhtin/ViCLSR", cache_folder=str(tmp_path / "cache"), local_files_only=True)
    expected = card_code(released.parent, weights, SENTENCES)
    torch.testing.assert_close(encode(model), expected, atol=1e-6, rtol=0)


def test_training_leaves_the_file_alone(released):
    before, model = released.read_bytes(), import_viclsr(released.parent)
    vectors = encode(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    features = model.preprocess(SENTENCES)
    features = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in features.items()}
    model(features)["sentence_embedding"].sum().backward()
    optimizer.step()
    assert all((p.grad is None) == ("pooler" in name) for name, p in model.named_parameters())
    assert (encode(model) - vectors).abs().max() > 1e-3
    assert released.read_bytes() == before


def test_the_card_of_an_imported_model_runs(released, tmp_path):
    model = import_viclsr(released.parent, local_files_only=True)
    model.save_pretrained(str(tmp_path / "own"))
    export_stock(model, tmp_path / "stock")
    for folder in (tmp_path / "own", tmp_path / "stock"):
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert "cc-by-nc-sa-4.0" in text
        check(folder)


def test_saved_and_reloaded_it_has_the_same_weights(released, tmp_path):
    """The trainer reloads its best checkpoint by name, and strictly."""
    model = import_viclsr(released.parent)
    model.save_pretrained(str(tmp_path / "checkpoint"))
    reloaded = load(tmp_path / "checkpoint").state_dict()
    assert reloaded.keys() == model.state_dict().keys()
    assert (encode(load(tmp_path / "checkpoint")) == encode(model)).all()
    plain = SentenceTransformer(str(tmp_path / "checkpoint"), local_files_only=True)
    assert (encode(plain) == encode(model)).all()


def test_file_may_go_after_loading(released, weights, tmp_path):
    expected = card_code(released.parent, weights, SENTENCES)
    model = import_viclsr(released.parent)
    model.save_pretrained(str(released.parent), create_model_card=False)  # on top of what it came from
    shutil.rmtree(released.parent)
    torch.testing.assert_close(encode(model), expected, atol=1e-6, rtol=0)
    model.save_pretrained(str(tmp_path / "copy"), create_model_card=False)
    assert torch.equal(encode(load(tmp_path / "copy")), encode(model))


PEAK = """
import gc, sys
from pathlib import Path
import torch
from st_vi.hub import import_viclsr

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

torch.set_num_threads(1)
baseline = peak()
for name in sys.argv[1:]:
    model = import_viclsr(Path(name).parent, local_files_only=True)
    assert all(parameter.sum().isfinite() for parameter in model.parameters())  # every page is read
    print((peak() - baseline) / Path(name).stat().st_size)
    del model
    gc.collect()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_import_holds_the_weights_once(released_large):
    """One process reads both formats in turn: its peak may never pass 1.3 times one file."""
    run = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, released_large)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ratios = [float(line) for line in run.stdout.split()]
    assert len(ratios) == 2
    assert max(ratios) < 1.3, ratios
    assert min(ratios) > 0.9, "the weights were not read: this measures nothing"


@pytest.fixture
def released_large(tiny_base, tmp_path):
    """200 MB in each format, of ones."""
    files = []
    for name in (BIN, SAFETENSORS):
        folder = tmp_path / Path(name).stem
        shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns(SAFETENSORS))
        edit_json(folder / "config.json", vocab_size=100_000, hidden_size=512)
        with torch.device("meta"):
            config = XLMRobertaConfig(**json.loads((folder / "config.json").read_text()))
            shapes = XLMRobertaModel(config, add_pooling_layer=False).state_dict()
        weights = {f"roberta.{key}": torch.ones(value.shape) for key, value in shapes.items()}
        weights |= {"mlp.dense.weight": torch.ones(512, 512), "mlp.dense.bias": torch.ones(512)}
        write_weights(weights, folder / name)
        files.append(folder / name)
    return files


def test_no_weights_file(released):
    released.unlink()
    with pytest.raises(FileNotFoundError, match=r"ViCLSR has neither model\.safetensors nor pytorch_model\.bin"):
        import_viclsr(released.parent)


def test_other_architecture(released):
    edit_json(released.parent / "config.json", model_type="bert")
    with pytest.raises(ValueError, match=r"'xlm-roberta'.*'bert'"):
        import_viclsr(released.parent)


@pytest.mark.parametrize("lost", [("mlp.dense.weight", "mlp.dense.bias"), ("mlp.dense.bias",)])
def test_head_is_missing(released, weights, lost):
    write_weights({name: value for name, value in weights.items() if name not in lost}, released)
    with pytest.raises(ValueError, match=r"has no head.*AutoModel drops it silently"):
        import_viclsr(released.parent)


@pytest.mark.parametrize(("name", "shape"), [("mlp.dense.weight", (16, 32)), ("mlp.dense.bias", (16,))])
def test_head_has_the_wrong_shape(released, weights, name, shape):
    write_weights(weights | {name: torch.zeros(shape)}, released)
    with pytest.raises(ValueError) as raised:
        import_viclsr(released.parent)
    message = str(raised.value)
    assert name in message and str(shape) in message and str((32,) * len(shape)) in message


def test_backbone_is_not_made_up(released, weights):
    lost = "roberta.encoder.layer.1.output.dense.weight"
    write_weights({name: value for name, value in weights.items() if name != lost}, released)
    with pytest.raises(ValueError, match=f"lacks 1 weights.*{lost}"):
        import_viclsr(released.parent)
    unprefixed = {name.removeprefix("roberta."): value for name, value in weights.items()}
    write_weights(unprefixed, released)
    with pytest.raises(ValueError, match=r"roberta\.embeddings\.word_embeddings\.weight"):
        import_viclsr(released.parent)


@pytest.mark.parametrize("length", [0, 100, -1000])
def test_damaged_file(released, length):
    released.write_bytes(released.read_bytes()[:length])
    with pytest.raises(ValueError, match="damaged"):
        import_viclsr(released.parent)


@pytest.mark.parametrize("released", [BIN], indirect=True)
def test_pickled_code_does_not_run(released, weights, tmp_path):
    class Exploit:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploited",)

    torch.save(weights | {"extra": Exploit()}, released)
    with pytest.raises(ValueError, match="not a file of plain weights"):
        import_viclsr(released.parent)
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("released", [SAFETENSORS], indirect=True)
def test_licence_is_told_once(released, caplog):
    transformers_logging.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING, "st_vi.hub"):
        model = import_viclsr(released.parent)
        import_viclsr(released.parent)
    (notice,) = [record.getMessage() for record in caplog.records if record.name == "st_vi.hub"]
    assert "CC BY-NC-SA 4.0" in notice and "non-commercial" in notice and "arXiv 2603.21084" in notice
    assert model.model_card_data.license == "cc-by-nc-sa-4.0"


# --- export_stock


@pytest.fixture
def offline_model(tiny_model):
    tiny_model.model_card_data.local_files_only = True  # the model card looks for its base model otherwise
    return tiny_model


def module_types(path):
    return [module["type"] for module in json.loads((path / "modules.json").read_text())]


@pytest.mark.parametrize(
    "head",
    [
        MLPHead(32, 24, activation="identity"),
        MLPHead(32, 24, activation="tanh"),
        MLPHead(32, 24, activation="tanh", layer_norm=True),
        MLPHead(32, 24, num_layers=2, activation="gelu", layer_norm=True),
    ],
    ids=["viclsr", "simcse", "norm", "vipolyqwen"],
)
def test_export_loads_in_plain_sentence_transformers(offline_model, head, tmp_path):
    offline_model[2] = head
    offline_model.prompts, offline_model.default_prompt_name = {"query": "hỏi: "}, "query"
    offline_model.similarity_fn_name, offline_model.max_seq_length = "euclidean", 11
    offline_model.model_card_data.license = "cc-by-nc-sa-4.0"
    export_stock(offline_model, tmp_path)

    assert all(name.startswith("sentence_transformers.") for name in module_types(tmp_path))
    assert "requirements" not in json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert "cc-by-nc-sa-4.0" in (tmp_path / "README.md").read_text()
    plain = SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    torch.testing.assert_close(encode(plain), encode(offline_model), atol=1e-6, rtol=0)
    assert (plain.prompts["query"], plain.default_prompt_name) == ("hỏi: ", "query")
    assert (plain.similarity_fn_name, plain.max_seq_length) == ("euclidean", 11)


def test_export_in_half_precision(offline_model, tmp_path, caplog):
    export_stock(offline_model.bfloat16(), tmp_path)
    assert "Error" not in caplog.text  # the model card encodes a few texts
    plain = SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(encode(plain), encode(offline_model), atol=1e-6, rtol=0)


def test_export_of_the_released_model_equals_the_model_card(released, weights, tmp_path):
    export_stock(import_viclsr(released.parent, local_files_only=True), tmp_path / "stock")
    plain = SentenceTransformer(str(tmp_path / "stock"), local_files_only=True)
    expected = card_code(released.parent, weights, SENTENCES)
    torch.testing.assert_close(encode(plain), expected, atol=1e-6, rtol=0)


def test_export_leaves_the_model_as_it_was(offline_model, tmp_path, monkeypatch):
    modules, addresses = (
        list(offline_model),
        [parameter.data_ptr() for parameter in offline_model.parameters()],
    )
    saved = []
    monkeypatch.setattr(SentenceTransformer, "save_pretrained", lambda self, *args, **kwargs: saved.append(self))
    export_stock(offline_model, tmp_path)
    (stock,) = saved
    assert [type(module) for module in stock] == [Transformer, Pooling, Dense, Normalize]
    assert all(ours is theirs for ours, theirs in zip(modules, stock, strict=True) if type(theirs) is not Dense)
    assert list(offline_model) == modules
    assert [parameter.data_ptr() for parameter in offline_model.parameters()] == addresses
    assert offline_model.model_card_data.model is offline_model


def test_export_replaces_whatever_has_to_stock(offline_model, tmp_path):
    class Doubled(Normalize):
        def to_stock(self):
            return [Normalize(), Normalize()]

    offline_model[3] = Doubled()
    export_stock(offline_model, tmp_path)
    assert [name.rpartition(".")[2] for name in module_types(tmp_path)][2:] == [
        "Dense",
        "Normalize",
        "Normalize",
    ]


class OwnNormalize(Normalize):
    """A module that stock cannot load."""


@pytest.mark.parametrize("nested", [False, True])
def test_export_refuses_what_stock_cannot_express(offline_model, nested, tmp_path):
    offline_model[3] = Router({"text": [OwnNormalize()]}) if nested else OwnNormalize()
    with pytest.raises(ValueError, match=r"test_hub\.OwnNormalize.*save_pretrained.*st_vi\.load"):
        export_stock(offline_model, tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


# --- load


@pytest.fixture
def saved(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    return tmp_path / "saved"


def test_load_needs_no_flag(tiny_model, saved):
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(saved), local_files_only=True)
    loaded = load(saved, device="cpu", local_files_only=True)
    assert torch.equal(encode(loaded), encode(tiny_model))
    assert type(loaded[2]) is MLPHead
    assert loaded.trust_remote_code is False


@pytest.fixture
def bait(saved, monkeypatch):
    """A module that can be imported from the model's folder and from the path."""
    (saved / "bait.py").write_text("from sentence_transformers.base.modules.normalize import Normalize as Bait\n")
    monkeypatch.syspath_prepend(saved)
    importlib.invalidate_caches()
    yield "bait.Bait"
    assert not [name for name in sys.modules if name.endswith("bait")]


FOREIGN = [
    "os.system",
    "st_vi",
    "st_vi.os.system",
    "st_vi.hub.load",
    "st_vi.modules.mlp_head.MLPHead.__init__",
    "st_vi.modules.mlp_head.Module",
    "st_vi.modules.mlp_head.nn.Linear",
    "st_vi.modules.requirement.declare_requirement",
    "st_vi_evil.modules.mlp_head.MLPHead",
    "sentence_transformers_evil.Module",
]


def change_type(saved, index, name):
    file = saved / "modules.json"
    modules = json.loads(file.read_text())
    modules[index]["type"] = name
    file.write_text(json.dumps(modules))


@pytest.mark.parametrize("index", [0, 2, 3])
def test_load_imports_no_foreign_module(saved, bait, index, monkeypatch):
    change_type(saved, index, bait)
    monkeypatch.setattr(SentenceTransformer, "__init__", lambda *args, **kwargs: pytest.fail("went on loading"))
    with pytest.raises(ValueError, match=bait):
        load(saved)


@pytest.mark.parametrize("name", FOREIGN)
def test_load_refuses_what_is_no_module_of_ours(saved, name):
    change_type(saved, 2, name)
    with pytest.raises(ValueError, match=f"{re.escape(name)}.*st_vi.load does not import it"):
        load(saved, local_files_only=True)


def test_load_reaches_into_a_router(tiny_model, tmp_path, bait):
    path = tmp_path / "routed"
    tiny_model[2] = Router({"text": [tiny_model[2]]})
    tiny_model.save_pretrained(str(path), create_model_card=False)
    loaded = load(path, device="cpu", local_files_only=True)
    assert type(loaded[2].sub_modules["text"][0]) is MLPHead
    assert torch.equal(encode(loaded), encode(tiny_model))

    (config,) = path.glob("2_Router/router_config.json")
    config.write_text(config.read_text().replace("st_vi.modules.mlp_head.MLPHead", bait))
    with pytest.raises(ValueError, match=bait):
        load(path, local_files_only=True)


@pytest.mark.parametrize(
    "arguments",
    [{"trust_remote_code": True}, {"model_kwargs": {"trust_remote_code": True}}],
    ids=["plain", "nested"],
)
def test_load_takes_no_flag(saved, arguments):
    with pytest.raises(ValueError, match="no remote code"):
        load(saved, **arguments)


@pytest.mark.parametrize("name", ["outputs/none", "./none", "/no/such", Path("none"), "a/b/c"])
def test_load_names_a_model_that_is_not_there(name):
    with pytest.raises(FileNotFoundError, match=f"no such folder: {name}$|no model '{name}': there is no such folder"):
        load(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} has no model: neither modules.json nor config.json is in it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["modules.json"], "has no modules.json: without it, only the encoder"),
        (["tokenizer.json", "tokenizer_config.json"], "has no vocabulary: the files of its tokenizer"),
        (["1_Pooling/config.json"], "no configuration of the Pooling in '1_Pooling'"),
    ],
)
def test_load_misses_files_that_were_not_copied(saved, names, message):
    for name in names:
        (saved / name).unlink()
    with pytest.raises(ValueError, match=message):
        load(saved, local_files_only=True)


def test_load_misses_the_vocabulary_of_a_model_for_images(tmp_path):
    """Its prefixes are added to a tokenizer without tokens."""
    tiny_qwen = save_tiny_qwen2_vl(tmp_path / "base")
    build_vipolyqwen(tiny_qwen, embedding_dimension=8).save_pretrained(str(tmp_path / "model"))
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has no vocabulary: the files of its tokenizer"):
        load(tmp_path / "model", local_files_only=True)


def test_load_refuses_weights_of_another_shape(saved):
    edit_json(saved / "config.json", intermediate_size=48)
    with pytest.raises(ValueError, match=r"other shapes than its configuration describes: .* has \(.*\), not \(.*48"):
        load(saved, local_files_only=True)


def test_load_without_modules_json_is_stock(tiny_base):
    expected = encode(SentenceTransformer(str(tiny_base), device="cpu", local_files_only=True))
    assert torch.equal(encode(load(tiny_base, device="cpu", local_files_only=True)), expected)


def test_every_module_of_ours_can_be_loaded():
    from st_vi import modules
    from st_vi.hub import _own_classes

    assert set(_own_classes().values()) == {
        cls for cls in vars(modules).values() if isinstance(cls, type) and issubclass(cls, Module)
    }
