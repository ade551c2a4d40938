"""LoRA on a tiny Qwen2-VL: what trains, what is saved, what comes back, and that training resumes."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, Qwen2VLForConditionalGeneration
from transformers.utils.versions import require_version

from st_vi import DLELoss, build_vipolyqwen, export_stock, load, train_vipolyqwen
from st_vi.recipes import merge_models
from st_vi.recipes.lora import lora_config, merge_lora
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl
from tests.helpers.vipolyqwen import SETTINGS, BestIsStepThree, Interruption

pytest.importorskip("peft", reason='needs pip install "st-vi[lora]"')
RED = Image.new("RGB", (56, 56), "red")
INPUTS = ["Xin chào", "<ocr> Xin chào", {"text": "<vqa_single> Màu gì?", "image": RED}, RED]


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    """Tied, as Qwen2-VL-2B is."""
    path = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    config = AutoConfig.from_pretrained(path)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    config.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def rows():
    """12 rows with prefixes, a third of them with an image."""
    made = []
    for number, colour in enumerate(("red", "blue", "green", "yellow")):
        made.append(("Màu gì?", Image.new("RGB", (56, 56), colour), f"Màu số {number}.", math.nan, "vqa_single"))
        made.append((f"Trời {colour}.", None, f"Bầu trời màu {colour}.", 0.9, "text_pair"))
        made.append((f"Áo {colour}.", None, "Tôi nghỉ học.", 0.1, "text_pair"))
    names = ("anchor", "anchor_image", "positive", "score", "task")
    types = (Value("string"), ImageFeature(), Value("string"), Value("float64"), Value("string"))
    columns = {name: list(column) for name, column in zip(names, zip(*made, strict=True), strict=True)}
    return Dataset.from_dict(columns, features=Features(dict(zip(names, types, strict=True))))


def built(path, lora=True, **settings):
    torch.manual_seed(0)
    return build_vipolyqwen(path, embedding_dimension=24, max_pixels=56 * 56, lora=lora, **settings)


def shaken(model):
    """With every trainable weight moved, as if trained: LoRA starts as a no-op, which would hide that it is lost."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def prefix_ids(model):
    return model[0].tokenizer.convert_tokens_to_ids(model[0].prefixes)


def kind(name):
    """Which part of the model a weight belongs to."""
    if "lora_" in name:
        return "tower" if "visual." in name else "language"
    if "trainable_tokens_delta" in name:
        return "prefixes"
    return "backbone" if name.startswith("0.") else "head"


def test_what_trains(tiny_qwen):
    model = built(tiny_qwen)
    assert {kind(name) for name, p in model.named_parameters() if p.requires_grad} == {"language", "prefixes", "head"}
    assert not [name for name, p in model.named_parameters() if kind(name) == "head" and not p.requires_grad]
    layers = {name.split(".lora_")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_" in name}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert [tuple(p.shape) for n, p in model.named_parameters() if kind(n) == "prefixes"] == [(5, 64)]


def with_the_head_of(model, other):
    """LoRA draws random numbers before the head does."""
    for mine, theirs in zip(list(model)[1:], list(other)[1:], strict=True):
        mine.load_state_dict(theirs.state_dict())
    return model


def test_an_untrained_adapter_changes_nothing(tiny_qwen):
    plain = built(tiny_qwen, lora=None)
    model = with_the_head_of(built(tiny_qwen), plain)
    assert abs(model.encode(INPUTS) - plain.encode(INPUTS)).max() <= 1e-6


def test_a_config_of_ones_own_is_copied(tiny_qwen):
    config = lora_config(rank=3, vision=True)
    model = built(tiny_qwen, config)
    assert config.trainable_token_indices is None and config.base_model_name_or_path is None
    used = model[0].model.peft_config["default"]
    assert used.r == 3 and used.lora_alpha == 6 and used.trainable_token_indices == prefix_ids(model)
    layers = {n.split(".lora_")[0].split(".")[-1] for n, _ in model.named_parameters() if kind(n) == "tower"}
    assert layers == {"qkv", "proj", "fc1", "fc2"}
    config.trainable_token_indices = [1]
    with pytest.raises(ValueError, match="trainable_token_indices"):
        built(tiny_qwen, config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_the_vectors_are_the_same(tiny_qwen, tmp_path, dtype):
    model = shaken(built(tiny_qwen, model_kwargs={"dtype": dtype}))
    assert {p.dtype for p in model.parameters()} == {dtype}
    plain = with_the_head_of(built(tiny_qwen, None, model_kwargs={"dtype": dtype}), model)
    vectors = model.encode(INPUTS)
    assert abs(vectors - plain.encode(INPUTS)).max() > 0.1  # the adapter matters
    model.save_pretrained(str(tmp_path))
    settings = {"model_kwargs": {"dtype": dtype}}
    for again in (load(tmp_path, **settings), SentenceTransformer(str(tmp_path), trust_remote_code=True, **settings)):
        assert abs(again.encode(INPUTS) - vectors).max() <= 1e-6
        assert prefix_ids(again) == prefix_ids(model)
        rows = [m[0].model.get_input_embeddings()(torch.tensor(prefix_ids(model))) for m in (model, again)]
        assert torch.equal(*rows)


def test_in_half_precision_the_vectors_are_the_same_without_an_adapter_too(tiny_qwen, tmp_path):
    settings = {"model_kwargs": {"dtype": torch.bfloat16}}
    model = built(tiny_qwen, None, **settings)
    frequencies = [b for n, b in model.named_buffers() if n.endswith("inv_freq")]
    assert frequencies and {b.dtype for b in frequencies} == {torch.float32}
    model.save_pretrained(str(tmp_path))
    assert abs(load(tmp_path, **settings).encode(INPUTS) - model.encode(INPUTS)).max() <= 1e-6


def test_the_folder_holds_the_adapter_and_not_the_base(tiny_qwen, tmp_path):
    model = shaken(built(tiny_qwen))
    model.save_pretrained(str(tmp_path))
    weights = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors")}
    assert weights == {
        "adapter_model.safetensors",
        "1_AttentionPooling/model.safetensors",
        "2_MLPHead/model.safetensors",
    }
    adapter = sum(p.numel() * 4 for n, p in model[0].named_parameters() if kind("0." + n) in ("language", "prefixes"))
    assert adapter <= (tmp_path / "adapter_model.safetensors").stat().st_size < adapter + 10_000
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_qwen)
    assert config["trainable_token_indices"] == prefix_ids(model)


def test_saved_again_after_loading_it_is_still_the_same(tiny_qwen, tmp_path):
    model = shaken(built(tiny_qwen))
    model.save_pretrained(str(tmp_path / "once"))
    load(tmp_path / "once").save_pretrained(str(tmp_path / "twice"))
    assert abs(load(tmp_path / "twice").encode(INPUTS) - model.encode(INPUTS)).max() <= 1e-6


def test_a_loaded_adapter_is_frozen_until_it_is_set(tiny_qwen, tmp_path):
    model = shaken(built(tiny_qwen))
    model.save_pretrained(str(tmp_path))
    again = load(tmp_path)
    assert {kind(name) for name, p in again.named_parameters() if p.requires_grad} == {"head"}
    again.set_adapter("default")
    trainable = [{name for name, p in m.named_parameters() if p.requires_grad} for m in (model, again)]
    assert trainable[0] == trainable[1]


def merged_vectors(model, folder, **settings):
    """The vectors of `model` with its adapter, merged, and saved and loaded after that."""
    vectors = [model.encode(INPUTS)]
    merge_lora(model)
    assert not [name for name, _ in model.named_parameters() if "lora_" in name or "trainable_tokens" in name]
    vectors.append(model.encode(INPUTS))
    model.save_pretrained(str(folder), create_model_card=False)
    assert (folder / "model.safetensors").is_file() and not (folder / "adapter_config.json").exists()
    again = load(folder, **settings)
    for whole in (model, again):
        with pytest.raises(ValueError, match="no adapter to merge"):
            merge_lora(whole)
    return [*vectors, again.encode(INPUTS)]


@pytest.fixture(scope="module")
def adapter(tiny_qwen, tmp_path_factory):
    """A saved model with an adapter, of tower and language model."""
    path = tmp_path_factory.mktemp("adapter")
    # A tenth of what `shaken` adds, so that merging rounds by less than 1e-6.
    torch.manual_seed(1)
    model = built(tiny_qwen, lora_config(vision=True)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    model.save_pretrained(str(path))
    return path


def second_adapter(model):
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], trainable_token_indices=prefix_ids(model))
    model.add_adapter(config, "second")
    return shaken(model)


WAYS_IN = {
    "loaded": lambda model: model,
    "trained further": lambda model: model.set_adapter("default") or shaken(model.train()),
    "the second of two": second_adapter,
    "the first of two": lambda model: second_adapter(model).set_adapter("default") or model,
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_merged_it_is_a_whole_model_whatever_way_the_adapter_came(adapter, tmp_path, way):
    before, merged, again = merged_vectors(WAYS_IN[way](load(adapter)), tmp_path)
    assert abs(merged - before).max() <= 2e-6  # rounding
    assert (again == merged).all()


@pytest.mark.slow
@pytest.mark.parametrize("merged_first", [False, True])
def test_an_adapter_and_a_whole_model_in_one_folder_are_refused(adapter, tmp_path, merged_first):
    """Stock would apply the adapter, whichever of the two was saved last."""
    model, merged = load(adapter), load(adapter)
    merge_lora(merged)
    for one in (merged, model) if merged_first else (model, merged):
        one.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"has an adapter and a whole model, .*: one was saved over the other"):
        load(tmp_path)
    whole, part = ("config.json", "model.safetensors"), ("adapter_config.json", "adapter_model.safetensors")
    for name in whole if merged_first else part:
        (tmp_path / name).unlink()
    assert abs(load(tmp_path).encode(INPUTS) - merged.encode(INPUTS)).max() <= 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("vision", [False, True])
def test_a_new_adapter_merges_too(tiny_qwen, tmp_path, vision):
    before, merged, again = merged_vectors(shaken(built(tiny_qwen, lora_config(vision=vision))), tmp_path)
    assert abs(merged - before).max() <= 2e-6
    assert (again == merged).all()


def test_merged_in_half_precision_it_is_the_same_but_for_rounding(adapter, tmp_path):
    half = {"model_kwargs": {"dtype": torch.bfloat16}}
    before, merged, again = merged_vectors(load(adapter, **half), tmp_path, **half)
    assert abs(merged - before).max() <= 0.05
    assert (again == merged).all()


@pytest.mark.slow
def test_merged_over_a_base_with_the_names_of_the_hub(tmp_path):
    """Qwen2-VL's own files name its weights as the model with a language head does."""
    base = save_tiny_qwen2_vl(tmp_path / "base")
    Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(base)).save_pretrained(base)
    shaken(built(base)).save_pretrained(str(tmp_path / "adapter"))
    before, merged, again = merged_vectors(load(tmp_path / "adapter"), tmp_path / "merged")
    assert abs(merged - before).max() <= 2e-6
    assert (again == merged).all()


def test_a_model_that_peft_wrapped_merges(tiny_qwen, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = built(tiny_qwen, None)
    model[0].model = get_peft_model(model[0].model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    before, merged, again = merged_vectors(shaken(model), tmp_path)
    assert abs(merged - before).max() <= 2e-6
    assert (again == merged).all()
    assert model[0].model.name_or_path == ""  # of no file: a new adapter is not of what was merged into


def test_disabled_adapters_are_not_merged(adapter):
    model = load(adapter)
    model.disable_adapters()
    with pytest.raises(ValueError, match="enable_adapters"):
        merge_lora(model)


def test_disabled_adapters_are_not_exported(adapter, tmp_path):
    """In a file there is no switch: loaded, they would be enabled."""
    model = load(adapter)
    model.disable_adapters()
    with pytest.raises(ValueError, match=r"enable_adapters\(\) first"):
        export_stock(model, tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


def test_disabled_adapters_of_a_model_that_peft_wrapped_are_not_merged(tiny_qwen):
    from peft import LoraConfig, get_peft_model

    model = built(tiny_qwen, None)
    model[0].model = get_peft_model(model[0].model, LoraConfig(r=2, target_modules=["q_proj"]))
    model[0].model.disable_adapter_layers()
    with pytest.raises(ValueError, match="enable_adapter_layers"):
        merge_lora(model)


def test_an_adapter_whose_base_is_gone_names_it(tmp_path):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    built(base).save_pretrained(str(tmp_path / "adapter"))
    base.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=rf"adapter is an adapter of '{base}', .* adapter_config.json"):
        load(tmp_path / "adapter")


@pytest.mark.parametrize("merge", [merge_lora, lambda model: merge_models([model, model])], ids=["LoRA", "models"])
def test_an_adapter_of_merged_weights_is_not_one_of_the_base(tiny_qwen, rows, tmp_path, merge):
    """Loaded with the weights from before the merge, its vectors were others, without an error."""
    model = shaken(built(tiny_qwen, lora=merge is merge_lora or None))
    model = merge(model) or model
    model[0].model.add_adapter(lora_config())
    with pytest.raises(ValueError, match=r"in no file, as after a merge, .* save the model without it"):
        train_vipolyqwen(model, rows, tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()
    model.save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(FileNotFoundError, match="adapter is an adapter of '', and no such model is found"):
        load(tmp_path / "adapter")


def test_an_adapter_that_could_not_be_loaded_again_is_refused(tiny_qwen):
    """transformers saves DoRA's magnitudes under other names than it reads."""
    config = lora_config()
    config.use_dora = True
    with pytest.raises(ValueError, match="use_dora"):
        built(tiny_qwen, config)


def test_embeddings_are_not_trained_in_two_ways(tiny_qwen):
    config = lora_config()
    config.modules_to_save = ["embed_tokens"]
    with pytest.raises(ValueError, match="modules_to_save: leave out embed_tokens"):
        built(tiny_qwen, config)


def test_a_base_without_rows_for_the_prefixes_is_refused(tmp_path):
    save_tiny_qwen2_vl(tmp_path, spare_rows=4)
    with pytest.raises(ValueError, match="none to spare"):
        built(tmp_path)
    save_tiny_qwen2_vl(tmp_path / "enough", spare_rows=5)
    assert built(tmp_path / "enough").encode("Xin chào").shape == (24,)


def test_the_advice_for_such_a_base_works(tmp_path):
    """Resized and saved, with a tokenizer that does not know the prefixes."""
    base = save_tiny_qwen2_vl(tmp_path / "base", spare_rows=0)
    backbone = AutoModel.from_pretrained(base)
    backbone.resize_token_embeddings(backbone.config.get_text_config().vocab_size + 5)
    backbone.save_pretrained(base)
    model = shaken(built(base))
    model.save_pretrained(str(tmp_path / "saved"))
    assert abs(load(tmp_path / "saved").encode(INPUTS) - model.encode(INPUTS)).max() <= 1e-6


def trained(model):
    """What an adapter saves, and the head. The base's rows beneath the prefixes are never used."""
    return {n: v.clone() for n, v in model.state_dict().items() if kind(n) != "backbone"}


def test_an_interrupted_training_ends_with_the_same_weights(tiny_qwen, rows, tmp_path):
    whole, start = built(tiny_qwen), trained(built(tiny_qwen))
    frozen = {n: p.clone() for n, p in whole.named_parameters() if not p.requires_grad}
    train_vipolyqwen(whole, rows, tmp_path / "whole", **SETTINGS)
    for name, value in whole.named_parameters():
        if name in frozen:
            assert torch.equal(value, frozen[name]), name
    parts = {kind(name) for name, value in trained(whole).items() if not torch.equal(value, start[name])}
    assert parts == {"language", "prefixes", "head"}
    with pytest.raises(KeyboardInterrupt):
        train_vipolyqwen(built(tiny_qwen), rows, tmp_path / "cut", callbacks=[Interruption()], **SETTINGS)
    torch.manual_seed(7)  # what the checkpoint does not bring back would differ
    resumed = build_vipolyqwen(tiny_qwen, embedding_dimension=24, max_pixels=56 * 56, lora=True)
    train_vipolyqwen(resumed, rows, tmp_path / "cut", resume=True, **SETTINGS)
    for name, value in trained(whole).items():
        assert torch.equal(trained(resumed)[name], value), name
    vectors = whole.encode(INPUTS)
    assert abs(resumed.encode(INPUTS) - vectors).max() <= 1e-6
    assert abs(load(tmp_path / "cut").encode(INPUTS) - vectors).max() <= 1e-6


class BestAdapterIsStepThree(BestIsStepThree):
    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        if steps == 3:
            self.vectors = model.encode(INPUTS)
        return super().__call__(model, output_path, epoch, steps)


def test_the_best_checkpoint_comes_back(tiny_qwen, rows, tmp_path):
    evaluator = BestAdapterIsStepThree()
    model = built(tiny_qwen)
    trainer = train_vipolyqwen(
        model, rows, tmp_path, evaluator, **SETTINGS | {"eval_strategy": "steps", "eval_steps": 3}
    )
    assert trainer.state.global_step == 6
    best = {n: v for n, v in evaluator.weights.items() if kind(n) != "backbone"}
    assert {kind(name) for name in best} == {"language", "prefixes", "head"}
    for name, value in best.items():
        assert torch.equal(trained(model)[name], value), name
    for same in (model, load(tmp_path)):
        assert abs(same.encode(INPUTS) - evaluator.vectors).max() <= 1e-6


@pytest.mark.parametrize("vision", [False, True])
def test_two_learning_rates(tiny_qwen, rows, tmp_path, vision):
    model = built(tiny_qwen, lora_config(vision=vision))
    before = {n: p.clone() for n, p in model.named_parameters()}
    # All rows in a batch: one image alone has no negative, and gives the tower no gradient.
    settings = SETTINGS | {"max_steps": 2, "per_device_train_batch_size": 12, "save_strategy": "no", "warmup_steps": 0}
    trainer = train_vipolyqwen(model, rows, tmp_path, **settings)
    rates = {id(p): group["initial_lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault(kind(name), set()).add(rates[id(parameter)])
    expected = {"language": {1e-3}, "prefixes": {1e-3}, "head": {1e-3}}
    assert found == expected | ({"tower": {2e-6}} if vision else {})
    moved = {kind(n) for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(found)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_qwen, reentrant):
    gradients = []
    rows = [{"text": "<vqa_single> Màu gì?", "image": RED}, "<ocr> Xin chào"]
    for checkpointing in (False, True):
        model = shaken(built(tiny_qwen)).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            assert model[0].model.is_gradient_checkpointing
        features = [model.preprocess(rows), model.preprocess(rows[::-1])]
        sum(DLELoss(model)(features, torch.tensor([[0.0, 0.9], [0.0, 0.1]])).values()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert {kind(name) for name in gradients[0]} == {"language", "prefixes", "head"}
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
        assert gradient.abs().max() > 0, name


def test_the_stock_argument_trains_with_gradient_checkpointing(tiny_qwen, rows, tmp_path):
    model = built(tiny_qwen)
    start = trained(model)
    settings = SETTINGS | {"max_steps": 2, "save_strategy": "no", "gradient_checkpointing": True}
    train_vipolyqwen(model, rows, tmp_path, **settings)
    assert model[0].model.is_gradient_checkpointing
    parts = {kind(name) for name, value in trained(model).items() if not torch.equal(value, start[name])}
    assert parts == {"language", "prefixes", "head"}


def test_without_peft_the_extra_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "st-vi\[lora\]"'):
        build_vipolyqwen("no/such-model", lora=True)


def test_an_older_transformers_is_refused(tiny_qwen, tmp_path, monkeypatch):
    built(tiny_qwen).save_pretrained(str(tmp_path))

    def older(requirement, hint):
        return require_version(requirement.replace(">=5", ">=99"), hint)

    monkeypatch.setattr("st_vi.modules.qwen2_vl.require_version", older)
    with pytest.raises(ImportError, match=r"transformers>=99.18[^$]*LoRA needs it"):
        build_vipolyqwen("no/such-model", lora=True)
    with pytest.raises(ImportError, match=r"transformers>=99.18[^$]*LoRA needs it"):
        load(tmp_path, device="cpu")


def test_command_line(tiny_qwen, tmp_path):
    from typer.testing import CliRunner

    from st_vi.__main__ import app

    lines = [{"anchor": f"câu {n}", "positive": f"câu số {n}", "task": "text_pair", "score": n / 4} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    options = ["--base", tiny_qwen, "--train", tmp_path / "rows.jsonl", "--output", tmp_path / "out", "--epochs", 1]
    options += ["--batch-size", 4, "--accumulation", 1, "--lora", "--lora-rank", 3]
    result = CliRunner().invoke(app, ["train", "vipolyqwen", *map(str, options)])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 3
    assert load(tmp_path / "out").encode("Xin chào").shape == (1024,)
