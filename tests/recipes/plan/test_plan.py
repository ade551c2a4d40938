"""Plans against torch: what autograd saves, what its counter of operations counts, what a model weighs."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, XLMRobertaConfig
from typer.testing import CliRunner

from st_vi.__main__ import app
from st_vi.hub import load
from st_vi.recipes import lora_config
from st_vi.recipes.plan import plan_encoding, plan_training, read_shape
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

pytestmark = pytest.mark.slow

PRECISIONS = ["float32", "autocast", "bfloat16"]
ROWS, TOKENS = 4, 64


@pytest.fixture(scope="module")
def text_base(tmp_path_factory):
    """Folders of an XLM-R with one layer and with three."""
    folders = []
    for layers in (1, 3):
        config = XLMRobertaConfig(
            vocab_size=100,
            hidden_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=TOKENS + 2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        folders.append(tmp_path_factory.mktemp(f"text-{layers}"))
        AutoModel.from_config(config).save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def qwen_base(tmp_path_factory):
    sizes = {"width": 64, "vision_width": 64}
    return [
        save_tiny_qwen2_vl(tmp_path_factory.mktemp(f"qwen-{n}") / "base", layers=n, vision_layers=n, **sizes)
        for n in (1, 3)
    ]


def model_of(folder, precision, attention="sdpa"):
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation=attention).train()


def saved_bytes(model, run, precision):
    """Bytes of all tensors that autograd saves, each once, without weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            result = run(model)
        kept = sum(storage.nbytes() for place, storage in storages.items() if place not in own)
    del result
    return kept


def of_a_layer(folders, run, precision, weights):
    """Bytes that one layer of three saves for a token; in autocast without the casts of its weights."""
    one, three = (saved_bytes(model_of(folder, precision), run, precision) for folder in folders)
    return (three - one) / 2 - (2 * weights if precision == "autocast" else 0)


def read(model, padding=0):
    """Inputs of full length, or the first of them padded."""
    mask = torch.ones(ROWS, TOKENS, dtype=torch.long)
    mask[0, TOKENS - padding :] = 0
    return model(torch.full((ROWS, TOKENS), 7), mask).last_hidden_state


def linear_weights(module):
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, torch.nn.Linear))


def fuses_grouped_heads():
    """Whether torch has a fused attention on the CPU for heads that share keys and values; 2.6 has not."""
    query, shared = torch.ones(1, 4, 2, 16), torch.ones(1, 2, 2, 16)
    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            scaled_dot_product_attention(query, shared, shared, enable_gqa=True)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("padding", [0, 1])
def test_activations_of_text_layers_are_what_autograd_saves(text_base, qwen_base, precision, padding):
    """Padding adds what `plan_training` says that it does."""
    bases = [(text_base, "encoder.layer")]
    if padding or fuses_grouped_heads():
        bases.append((qwen_base, "language_model.layers"))
    for folders, layers in bases:
        text = read_shape(folders[1]).text
        layer = model_of(folders[1], "float32").get_submodule(layers)[0]
        run = partial(read, padding=padding)
        found = of_a_layer(folders, run, precision, linear_weights(layer)) / (ROWS * TOKENS)
        size = 4 if precision == "float32" else 2
        masked = size * (TOKENS + 2 * (text.hidden - text.key_values)) if padding else 0
        # transformers 5.5 also keeps a table of positions in each layer: 4 % of one as small as this
        assert text.kept_bytes(precision, False) + masked == pytest.approx(found, rel=0.05 if padding else 0.03)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_activations_of_the_vision_tower_are_what_autograd_saves(qwen_base, precision):
    def see(model):
        pixels = torch.randn(64, 1176, dtype=model.dtype)
        return model.visual(pixels, grid_thw=torch.tensor([[1, 8, 8]]))

    shape = read_shape(qwen_base[1])
    layer = model_of(qwen_base[1], "float32").visual.blocks[0]
    found = of_a_layer(qwen_base, see, precision, linear_weights(layer)) / 64
    assert shape.vision.kept_bytes(precision, False) == pytest.approx(found, rel=0.03)


def test_operations_are_those_that_torch_counts(text_base, qwen_base):
    for folder in (text_base[1], qwen_base[1]):
        model, shape = model_of(folder, "float32", "eager").eval(), read_shape(folder)  # fused ones are not counted
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            read(model)
        pooler = 2 * ROWS * 64 * 64 if shape.idle else 0
        assert shape.text.flops(TOKENS, ROWS) == pytest.approx(counter.get_total_flops() - pooler, rel=0.02)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.visual(torch.randn(256, 1176), grid_thw=torch.tensor([[1, 16, 16]]))
    assert shape.vision.flops(256) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("rank", [0, 8])
def test_operations_of_a_step_are_those_that_torch_counts(qwen_base, rank):
    model = model_of(qwen_base[1], "float32", "eager")
    if rank:
        pytest.importorskip("peft", reason='needs pip install "st-vi[lora]"')
        model.add_adapter(lora_config(rank))
        model.enable_input_require_grads()
    with FlopCounterMode(display=False) as counter:
        read(model).sum().backward()
    plan = plan_training(qwen_base[1], ROWS, TOKENS, inputs=1, lora_rank=rank)
    assert plan.at_once.flops == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("name", ["vi-mini", "poly-mini"])
def test_included_models_are_known_by_name(name):
    assert read_shape(name).weights == sum(p.numel() for p in load(name, device="cpu")[0].model.parameters())


def test_weights_are_those_of_the_model(text_base, qwen_base):
    for folder in (text_base[1], qwen_base[1]):
        assert read_shape(folder).weights == sum(p.numel() for p in model_of(folder, "float32").parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("xlm-roberta-base", 278),
        ("FacebookAI/xlm-roberta-large", 560),
        ("vinai/phobert-base-v2", 135),
        ("intfloat/multilingual-e5-small", 118),
        ("Qwen/Qwen2-VL-2B-Instruct", 2209),
        ("Qwen/Qwen2-VL-7B-Instruct", 7746),
        ("vi-mini", 13),
    ],
)
def test_published_sizes(name, millions):
    """As their cards and weights files say; Qwen2-VL without the output layer, which an encoder does not have."""
    assert round(read_shape(name).weights / 1e6) == millions


def test_the_largest_batch_fits_and_one_more_does_not():
    for settings in ({}, {"gradient_checkpointing": True}, {"devices": 4, "sharding": "fsdp"}, {"lora_rank": 16}):
        plan = plan_training("Qwen2-VL-2B-Instruct", 10_000, 256, pixels=200_704, batch_size=64, **settings)
        for name in ("at_once", "cached"):
            devices = settings.get("devices", 1)
            most = getattr(plan, name).largest
            for rows, fits in ((most, True), (most + 1, False)):
                again = plan_training(
                    "Qwen2-VL-2B-Instruct",
                    10_000,
                    256,
                    pixels=200_704,
                    batch_size=rows * devices,
                    mini_batch=plan.mini_batch,
                    **settings,
                )
                assert (getattr(again, name).memory.peak <= plan.usable) == fits, (settings, name, rows)


def test_what_a_setting_saves():
    def memory(**settings):
        return plan_training("xlm-roberta-large", 1000, 256, batch_size=64, **settings).at_once.memory

    plain, whole = memory(), 559_890_432
    assert plain.optimizer == 2 * plain.gradients == pytest.approx(8 * whole, rel=0.01)
    assert memory(gradient_checkpointing=True).activations < plain.activations / 5
    split = memory(devices=4, sharding="fsdp")
    assert split.optimizer == plain.optimizer / 4 and split.gradients == plain.gradients / 4
    assert split.weights < plain.weights / 2
    assert memory(devices=4, sharding="zero1").gradients == 2 * plain.gradients  # and the copy that is sent
    low = memory(lora_rank=8)
    assert low.gradients < plain.gradients / 50 and low.activations == plain.activations


def test_hours_are_operations_over_speed():
    one = plan_training("vi-mini", 1000, 100, batch_size=10, tflops=1, utilisation=0.5, epochs=2)
    flops = 3 * 2 * 1000 * read_shape("vi-mini").text.flops(100, 3)
    assert one.at_once.flops == pytest.approx(flops) and one.at_once.hours == pytest.approx(flops / 0.5e12 / 3600)
    assert one.cached.flops == pytest.approx(flops * 4 / 3) and one.steps == 200
    four = plan_training("vi-mini", 1000, 100, batch_size=40, tflops=1, utilisation=0.5, epochs=2, devices=4)
    assert four.at_once.hours == pytest.approx(one.at_once.hours / 4) and four.batch == 10


def test_an_encoding():
    plan = plan_encoding("vi-mini", 1_000_000, 700, max_length=256, shard_rows=50_000, within_hours=0.001)
    assert plan.vectors == 3_000_000 and plan.shards == 20 and plan.dimension == 384
    assert plan.index_bytes == {"float32": 4.608e9, "float16": 2.304e9, "int8": 1.152e9, "binary": 1.44e8}
    assert plan.shard_bytes == 50_000 * 3 * 384 * 4
    assert plan.workers == -(-plan.hours // 0.001)
    assert plan.flops == pytest.approx(1e6 * read_shape("vi-mini").text.flops(234, 3))


def test_json_has_every_number():
    arguments = ["train", "--base", "vi-mini", "--rows", "1000", "--max-length", "64", "--json"]
    found = json.loads(CliRunner().invoke(app, ["plan", *arguments]).stdout)
    assert found["at_once"]["fits"] and found["cached"]["largest"] > found["at_once"]["largest"]
    arguments = ["encode", "--base", "vi-mini", "--rows", "1000", "--tokens", "64", "--json"]
    assert json.loads(CliRunner().invoke(app, ["plan", *arguments]).stdout)["vectors"] == 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "rows must be positive, got 0"),
        ({"max_length": 513}, "vi-mini reads at most 512 tokens, got max_length=513"),
        ({"pixels": 100}, "vi-mini has no vision tower"),
        ({"sharding": "zero9"}, "sharding must be one of"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"utilisation": 1.5}, "are shares, got 0.1 and 1.5"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        plan_training("vi-mini", **{"rows": 10, "max_length": 10} | settings)


def test_a_chunk_is_no_longer_than_the_model_reads():
    with pytest.raises(ValueError, match="vi-mini reads at most 512 tokens, got max_length=513"):
        plan_encoding("vi-mini", rows=10, tokens=1000, max_length=513)


def test_models_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"of the type 'gpt2'; plans are for bert, roberta"):
        read_shape(tmp_path)
    with pytest.raises(ValueError, match=r"no/such: no configuration: .* or one of xlm-roberta-base"):
        read_shape("no/such")
