"""`Qwen2VLTransformer`: ids against hand-written strings, batches against one by one, a reload against the original."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.interpretability import get_n_patches
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from sentence_transformers.util import fullname

from st_vi.modules import AttentionPooling, qwen2_vl
from st_vi.modules.qwen2_vl import Qwen2VLTransformer
from st_vi.stock.videos import place_moments, share_pixels
from st_vi.tasks import PREFIXES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

BUDGET = {"min_pixels": 28 * 28, "max_pixels": 8 * 28 * 28}


@pytest.fixture(scope="session")
def tiny_qwen2_vl(tmp_path_factory):
    return save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))


@pytest.fixture(scope="module")
def plain(tiny_qwen2_vl):
    """Shared by tests that leave it as it is."""
    return Qwen2VLTransformer(str(tiny_qwen2_vl), **BUDGET).eval()


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


WIDE, TALL = picture(84, 56), picture(28, 56, seed=1)  # 3×2 and 1×2 visual tokens
MIXED = [
    "Trời mưa to nên đường phố ngập nước.",
    WIDE,
    {"text": "Có mấy con mèo?", "image": TALL},
    {"image": [TALL, WIDE], "text": "Hai bức ảnh này khác nhau ở đâu?"},
    {"text": "Nắng.", "image": None},
]


def vision(*tokens):
    return "".join(f"<|vision_start|>{'<|image_pad|>' * n}<|vision_end|>" for n in tokens)


def ids_of(module, string):
    return module.tokenizer(string, add_special_tokens=False)["input_ids"]


def rows_of(features):
    return [
        row[mask.bool()].tolist() for row, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
    ]


# Where the prompt, the images and the text go


@pytest.mark.parametrize("prompt", ["<ocr>", "<ocr> "])
def test_plain_template(plain, prompt):
    assert rows_of(plain.preprocess(MIXED)) == [
        ids_of(plain, string)
        for string in (
            MIXED[0],
            vision(6),
            vision(2) + "Có mấy con mèo?",
            vision(2, 6) + "Hai bức ảnh này khác nhau ở đâu?",
            "Nắng.",
        )
    ]
    features = plain.preprocess(MIXED, prompt=prompt)
    assert rows_of(features) == [
        ids_of(plain, string)
        for string in (
            "<ocr> " + MIXED[0],
            vision(6) + "<ocr>",
            vision(2) + "<ocr> Có mấy con mèo?",
            vision(2, 6) + "<ocr> Hai bức ảnh này khác nhau ở đâu?",
            "<ocr> Nắng.",
        )
    ]
    assert "prompt_length" not in features


def test_chat_template(tiny_qwen2_vl):
    chat = Qwen2VLTransformer(str(tiny_qwen2_vl), template="chat", **BUDGET)

    def as_user(content):
        system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        return ids_of(chat, f"{system}<|im_start|>user\n{content}<|im_end|>\n")

    assert rows_of(chat.preprocess(["Nắng.", TALL, MIXED[2]], prompt="<vqa_multi>")) == [
        as_user("<vqa_multi> Nắng."),
        as_user(vision(2) + "<vqa_multi>"),
        as_user(vision(2) + "<vqa_multi> Có mấy con mèo?"),
    ]


def test_conversations_keep_their_order_and_the_prompt_goes_to_the_last_user_message(plain):
    conversation = [
        {"role": "user", "content": "Xin chào."},
        {"role": "assistant", "content": "Chào bạn."},
        {"role": "user", "content": [{"type": "text", "text": "Ảnh gì?"}, {"type": "image", "image": TALL}]},
    ]
    before = [dict(message) for message in conversation]
    expected = ids_of(plain, "Xin chào.Chào bạn.<instr> Ảnh gì?" + vision(2))
    assert rows_of(plain.preprocess([conversation], prompt="<instr>")) == [expected]
    beside_text = plain.preprocess(["Nắng.", conversation], prompt="<instr>")
    assert rows_of(beside_text) == [ids_of(plain, "<instr> Nắng."), expected]
    assert conversation == before


def test_prompts_by_name(tiny_qwen2_vl):
    backbone = Qwen2VLTransformer(str(tiny_qwen2_vl), **BUDGET)
    prompts = backbone.default_prompts()
    assert prompts == {name: f"<{name}> " for name in ("text_pair", "instr", "ocr", "vqa_single", "vqa_multi")}
    model = SentenceTransformer(modules=[backbone, AttentionPooling(64)], prompts=prompts, device="cpu")
    steered = model.encode(MIXED[2], prompt_name="ocr")
    by_hand = model.encode({"image": TALL, "text": "<ocr> Có mấy con mèo?"})
    np.testing.assert_allclose(steered, by_hand, atol=1e-6)
    assert np.abs(steered - model.encode(MIXED[2])).max() > 1e-3


# Prefixes


@pytest.mark.parametrize("spare_rows", [8, 2])
def test_prefixes_are_single_tokens_that_start_as_the_mean(tmp_path, spare_rows):
    path = save_tiny_qwen2_vl(tmp_path, spare_rows=spare_rows)
    stock, module = Transformer(str(path)), Qwen2VLTransformer(str(path))
    old, new = (m.model.get_input_embeddings().weight.detach() for m in (stock, module))
    tokens = len(stock.tokenizer)
    assert old.shape[0] == tokens + spare_rows and new.shape[0] == tokens + max(spare_rows, 5)
    assert module.config.get_text_config().vocab_size == new.shape[0]
    mean = torch.stack([old[i] for i in range(tokens)]).sum(dim=0) / tokens
    for number, prefix in enumerate(PREFIXES):
        assert ids_of(module, prefix) == [tokens + number]
        torch.testing.assert_close(new[tokens + number], mean)
    assert (new[:tokens] == old[:tokens]).all()


def test_the_hidden_size_is_read_from_the_config(tmp_path):
    path = save_tiny_qwen2_vl(tmp_path, width=96, layers=1, vision_layers=1)
    assert Qwen2VLTransformer(str(path)).get_embedding_dimension() == 96


def test_own_prefixes(tiny_qwen2_vl):
    module = Qwen2VLTransformer(str(tiny_qwen2_vl), prefixes=["<instr>", "<law>"])
    assert len(ids_of(module, "<law>")) == 1 and len(ids_of(module, "<ocr>")) > 1
    assert module.default_prompts() == {"instr": "<instr> ", "law": "<law> "}


# Pixels


def test_pixel_budget(tiny_qwen2_vl, caplog):
    with caplog.at_level(logging.INFO, logger=qwen2_vl.__name__):
        module = Qwen2VLTransformer(str(tiny_qwen2_vl), min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28)
        module.preprocess([WIDE])
    assert sum("4 to 16 visual tokens" in record.getMessage() for record in caplog.records) == 1  # not for each batch
    grids = module.preprocess([picture(336, 336), picture(10, 10), picture(84, 56)])["image_grid_thw"]
    assert grids.tolist() == [[1, 8, 8], [1, 4, 4], [1, 4, 6]]  # 16, 4 and 6 visual tokens of 2×2 patches


def test_every_patch_can_be_found_after_the_forward_pass(plain):
    features = plain(plain.preprocess(MIXED))
    assert features["token_embeddings"].shape == (*features["input_ids"].shape, 64)
    assert features["image_grid_thw"].tolist() == [[1, 4, 6], [1, 4, 2], [1, 4, 2], [1, 4, 6]]
    positions = plain.patch_positions(features)
    assert [[tuple(p.shape) for p in own] for own in positions] == [[], [(2, 3)], [(2, 1)], [(2, 1), (2, 3)], []]
    assert get_n_patches(plain, WIDE.size) == (3, 2)  # stock counts columns first
    assert positions[1][0].tolist() == [[1, 2, 3], [4, 5, 6]]  # after <|vision_start|>, row by row
    assert positions[3][0].tolist() == [[1], [2]] and positions[3][1].tolist() == [[5, 6, 7], [8, 9, 10]]
    assert plain.patch_positions(plain.preprocess(["Nắng."])) == [[]]


def test_positions_follow_the_picture(plain):
    """The visual token of a patch is the one that changes most when that patch is painted over."""
    painted = WIDE.copy()
    painted.paste((255, 0, 0), (56, 28, 84, 56))  # second row, third column
    with torch.no_grad():
        before, after = (
            plain.model.visual(f["pixel_values"], f["image_grid_thw"]).pooler_output
            for f in (plain.preprocess([WIDE]), plain.preprocess([painted]))
        )
    positions = plain.patch_positions(plain.preprocess([WIDE]))[0][0]
    assert int((before - after).norm(dim=-1).argmax()) == int(positions[1, 2]) - 1


def test_long_text_is_cut_behind_the_pictures(tiny_qwen2_vl):
    module = Qwen2VLTransformer(str(tiny_qwen2_vl), max_seq_length=12, **BUDGET)
    long = {"text": "Trời mưa to nên đường phố ngập nước.", "image": WIDE}
    assert rows_of(module.preprocess([long])) == [ids_of(module, vision(6) + long["text"])[:12]]
    with pytest.raises(ValueError, match=r"input 1 of the batch.*2 image\(s\) are 16 tokens"):
        module.preprocess(["Nắng.", {"image": [WIDE, WIDE]}])


# Batches


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", ["attention", "mean", "lasttoken"])
def test_a_mixed_batch_equals_one_by_one(plain, side, pooling):
    head = AttentionPooling(64) if pooling == "attention" else Pooling(64, pooling)
    if pooling == "attention":
        torch.nn.init.normal_(head.attention_context_vector, std=0.5, generator=torch.Generator().manual_seed(0))
    model = SentenceTransformer(modules=[plain, head, Normalize()], device="cpu")
    plain.tokenizer.padding_side = side
    try:
        together = model.encode(MIXED, prompt="<ocr>")
        alone = np.stack([model.encode(item, prompt="<ocr>") for item in MIXED])
    finally:
        plain.tokenizer.padding_side = "right"
    np.testing.assert_allclose(together, alone, atol=1e-5)
    similarities = together @ together.T - np.eye(len(MIXED))
    assert similarities.max() < 0.999  # they are not all the same vector


def test_pictures_from_files_and_arrays(plain, tmp_path):
    WIDE.save(tmp_path / "wide.png")
    expected = plain.preprocess([WIDE])["pixel_values"]
    for image in (str(tmp_path / "wide.png"), {"image": str(tmp_path / "wide.png")}, np.array(WIDE)):
        torch.testing.assert_close(plain.preprocess([image])["pixel_values"], expected)


@pytest.mark.parametrize("count", [2, 5, 8])
def test_frames_have_the_features_of_the_stock_processor(plain, count):
    """Against the processor called by itself, and against a plain loop over pairs of frames."""
    frames = [picture(56, 84, seed) for seed in range(count)]
    # As the authors do; stock warns where it is not set. That of transformers 5.5 does not have it.
    assert getattr(plain.processor.video_processor, "cap_pixels_per_frame", True)
    features = plain.preprocess([{"video": frames}, "Nắng.", {"video": frames[::-1], "text": "Ai đang chạy?"}])
    stock = plain.processor.video_processor(videos=[frames, frames[::-1]], return_tensors="pt")
    torch.testing.assert_close(features["pixel_values_videos"], stock["pixel_values_videos"], rtol=0, atol=0)
    moments = -(-count // 2)
    assert features["video_grid_thw"].tolist() == stock["video_grid_thw"].tolist() == [[moments, 6, 4]] * 2
    assert features["num_videos_per_sample"].tolist() == [1, 0, 1]
    images = plain.processor.image_processor(images=frames, return_tensors="pt")["pixel_values"]
    of_frame = images.view(count, 24, 3, 2, 14 * 14)  # the processor of images shows each frame twice
    padded = [*of_frame, of_frame[-1]]
    pairs = [torch.stack([padded[i][:, :, 0], padded[i + 1][:, :, 0]], dim=2) for i in range(0, count, 2)]
    torch.testing.assert_close(stock["pixel_values_videos"][: 24 * moments], torch.cat(pairs).flatten(1))
    positions, _ = plain.model.get_rope_index(
        **{key: features[key][:1] for key in ("input_ids", "mm_token_type_ids", "video_grid_thw", "attention_mask")}
    )
    of_video = features["input_ids"][0] == plain.processor.video_token_id
    expected = [(t, row, column) for t in range(moments) for row in range(3) for column in range(2)]
    assert (positions[:, 0, of_video] - 1).T.tolist() == [list(place) for place in expected]  # one token before


def test_the_order_of_frames_counts(plain):
    model = SentenceTransformer(modules=[plain, AttentionPooling(64)], device="cpu")
    frames = [picture(56, 56, seed) for seed in range(6)]
    # Frames of one pair share a moment, but not its weights; moments do not change places unnoticed either.
    others = [frames[::-1], [*frames[4:], *frames[:4]], [frames[1], frames[0], *frames[2:]]]
    vectors = model.encode([{"video": clip} for clip in (frames, frames, *others)])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert all(np.abs(vectors[0] - other).max() > 1e-3 for other in vectors[2:])


def test_an_error_of_the_processor_is_told(tiny_qwen2_vl, monkeypatch):
    """The length of the input, which may explain it, is asked for without another such error."""

    def broken(*_, **__):
        raise RuntimeError("no kernel for this device")

    backbone = Qwen2VLTransformer(str(tiny_qwen2_vl))
    monkeypatch.setattr(type(backbone.processor), "__call__", broken)
    with pytest.raises(ValueError, match="input 0 of the batch, 'Trời mưa': no kernel for this device"):
        backbone.preprocess(["Trời mưa"])


def test_too_long_a_video_says_so(plain, tiny_qwen2_vl):
    frames = [picture(56, 56)] * 8  # 4 moments of 4 tokens, a start and an end
    assert plain.count_tokens("", [(56, 56, 8)]) == len(rows_of(plain.preprocess([{"video": frames}]))[0]) == 18
    short = Qwen2VLTransformer(str(tiny_qwen2_vl), max_seq_length=16, **BUDGET)
    with pytest.raises(ValueError, match=r"input 1 .*1 video\(s\) of 8 frames are 18 tokens, and the model reads 16"):
        short.preprocess(["Nắng.", {"video": frames}])
    with pytest.raises(ValueError, match=r"1 image\(s\) and 1 video\(s\) of 8 frames are .*give fewer frames"):
        short.check_length([(28, 28), (56, 56, 8)])
    assert len(rows_of(short.preprocess([{"video": frames[:6]}]))[0]) == 14


def test_tokens_of_a_video_have_their_places_where_stock_mixes_them_up():
    old = SimpleNamespace(get_vision_position_ids=lambda *_: torch.zeros(3, 2))
    place_moments(old)
    expected = [(7 + 5 * t, 7 + row, 7 + column) for t in range(2) for row in range(2) for column in range(3)]
    assert old.get_vision_position_ids(7, torch.tensor([2, 4, 6]), 1, 2, 5).T.tolist() == [list(e) for e in expected]
    assert old.get_vision_position_ids(7, [1, 2, 2], 1, 2, 5).tolist() == [[7]] * 3


def test_a_processor_whose_frames_share_no_budget_takes_no_long_video(plain, monkeypatch):
    """Newer ones allow 180,633,600 pixels for a video, which 300 frames of 602,112 have."""
    old = SimpleNamespace(patch_size=14, merge_size=2, temporal_patch_size=2, size={"longest_edge": 602_112})
    assert share_pixels(old) == 300
    monkeypatch.setattr(plain, "_most_frames", 4)
    frames = [picture(56, 56)] * 6
    assert plain.preprocess([{"video": frames[:4]}])["video_grid_thw"].tolist() == [[2, 4, 4]]
    with pytest.raises(ValueError, match=r"input 1 .*a video of more than 4 frames needs a newer transformers"):
        plain.preprocess(["Nắng.", {"video": frames}])


def test_prefixes_added_to_a_model_that_is_there(tiny_qwen2_vl, tmp_path):
    module = Qwen2VLTransformer(str(tiny_qwen2_vl), **BUDGET)
    before = module.model.get_input_embeddings().weight.detach().clone()
    known = len(module.tokenizer)
    module.add_prefixes(["<video>", "<ocr>"])
    assert module.prefixes == [*PREFIXES, "<video>"] and module.default_prompts()["video"] == "<video> "
    after = module.model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(after[:known], before[:known], rtol=0, atol=0)
    torch.testing.assert_close(after[known], before[:known].mean(dim=0))
    module.save(str(tmp_path))
    loaded = Qwen2VLTransformer.load(str(tmp_path))
    assert loaded.prefixes == module.prefixes and loaded.tokenizer.convert_tokens_to_ids("<video>") == known
    for bad in ("<video>", ["<a>", "<a>"], [""]):
        with pytest.raises(ValueError, match="prefixes must be a sequence of distinct strings"):
            module.add_prefixes(bad)
    module.model.peft_config = {"default": object()}
    module.add_prefixes(["<video>"])
    with pytest.raises(ValueError, match="LoRA adapter does not save new embeddings"):
        module.add_prefixes(["<more>"])


def test_video(plain):
    frames = np.random.default_rng(2).integers(0, 255, (4, 3, 56, 56), dtype=np.uint8)
    model = SentenceTransformer(modules=[plain, AttentionPooling(64)], device="cpu")
    features = plain.preprocess([{"video": frames, "text": "Ai đang chạy?"}], prompt="<ocr>")
    assert features["video_grid_thw"].tolist() == [[2, 4, 4]]
    string = f"<|vision_start|>{'<|video_pad|>' * 8}<|vision_end|><ocr> Ai đang chạy?"
    assert rows_of(features) == [ids_of(plain, string)]
    together = model.encode([{"video": frames, "text": "Ai đang chạy?"}, "Nắng."])
    np.testing.assert_allclose(together[1], model.encode("Nắng."), atol=1e-5)
    assert np.isfinite(together).all()


# Training


def test_gradient_checkpointing_gives_the_same_gradients(tiny_qwen2_vl):
    gradients = []
    for checkpointing in (False, True):
        module = Qwen2VLTransformer(str(tiny_qwen2_vl), **BUDGET).train()
        if checkpointing:
            module.model.gradient_checkpointing_enable()
        features = module(module.preprocess(MIXED))
        (features["token_embeddings"].square() * features["attention_mask"].unsqueeze(-1)).mean().backward()
        gradients.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    assert any("visual." in name and grad.abs().sum() > 0 for name, grad in gradients[0].items())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_bfloat16(tiny_qwen2_vl, plain):
    half = Qwen2VLTransformer(str(tiny_qwen2_vl), model_kwargs={"dtype": torch.bfloat16}, **BUDGET)
    tokens = half(half.preprocess(MIXED))["token_embeddings"]
    assert tokens.dtype == torch.bfloat16 and tokens.isfinite().all()
    expected = plain(plain.preprocess(MIXED))["token_embeddings"]
    assert torch.cosine_similarity(tokens.float(), expected, dim=-1)[expected.any(-1)].median() > 0.98


@pytest.mark.parametrize(
    ("available", "model_kwargs", "chosen"),
    [
        (True, {"dtype": torch.bfloat16}, ["flash_attention_2"]),
        (True, {"dtype": torch.float32}, []),
        (True, {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}, []),
        (False, {"dtype": torch.bfloat16}, []),
    ],
)
def test_flash_attention_where_it_can_run(tiny_qwen2_vl, monkeypatch, available, model_kwargs, chosen):
    asked = []
    monkeypatch.setattr(qwen2_vl, "is_flash_attn_2_available", lambda: available)
    monkeypatch.setattr("transformers.Qwen2VLModel.set_attn_implementation", lambda self, name: asked.append(name))
    module = Qwen2VLTransformer(str(tiny_qwen2_vl), model_kwargs=model_kwargs)
    assert asked == chosen and module.unpad_inputs is False


# Saving


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_saved_and_loaded(tiny_qwen2_vl, tmp_path, template):
    backbone = Qwen2VLTransformer(
        str(tiny_qwen2_vl), template=template, prefixes=["<ocr>", "<law>"], min_pixels=28 * 28, max_pixels=5 * 28 * 28
    )
    with torch.no_grad():  # as if trained
        backbone.model.get_input_embeddings().weight[-8:] += 1.0
    model = SentenceTransformer(
        modules=[backbone, AttentionPooling(64), Normalize()], prompts=backbone.default_prompts(), device="cpu"
    )
    assert model.get_embedding_dimension() == 64
    model.save_pretrained(str(tmp_path))
    own = {fullname(cls): cls for cls in (Qwen2VLTransformer, AttentionPooling)}
    for loaded in (
        SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu"),
        SentenceTransformer._load_with_module_classes(str(tmp_path), own, device="cpu"),
    ):
        assert isinstance(loaded[0], Qwen2VLTransformer)
        settings = {
            key: loaded[0].get_config_dict()[key] for key in ("min_pixels", "max_pixels", "prefixes", "template")
        }
        assert settings == {
            "min_pixels": 28 * 28,
            "max_pixels": 5 * 28 * 28,
            "prefixes": ["<ocr>", "<law>"],
            "template": template,
        }
        for prompt_name in (None, "law"):
            expected = model.encode(MIXED, prompt_name=prompt_name)
            assert (loaded.encode(MIXED, prompt_name=prompt_name) == expected).all()


def test_the_requirement_is_declared_without_other_modules_of_ours(plain, tmp_path):
    SentenceTransformer(modules=[plain, Pooling(64)], device="cpu").save_pretrained(str(tmp_path))
    assert "st-vi" in json.loads((tmp_path / "config_sentence_transformers.json").read_text())["requirements"]


def test_a_model_saved_as_plain_has_no_chat_template_left(tiny_qwen2_vl, tmp_path):
    Qwen2VLTransformer(str(tiny_qwen2_vl)).save(str(tmp_path))
    with pytest.raises(ValueError, match='template="plain"'):
        Qwen2VLTransformer(str(tmp_path), template="chat")


# Bad input


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_text_is_the_end_of_text(plain, blank):
    """Stock asks for the tokens of blank texts, when it describes the training data in a model card."""
    features = plain.preprocess(["Nắng.", blank])
    assert features["attention_mask"].sum(dim=1)[1] == 1
    assert features["input_ids"][1][features["attention_mask"][1].bool()].tolist() == [plain.tokenizer.pad_token_id]


NOTHING = [None, "", " ", float("nan"), [], ["", None], {"bytes": None, "path": None}]
"""Stands for no image in rows of training, and so elsewhere."""


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_no_image_is_the_text_alone(plain, nothing):
    expected = plain.preprocess([{"text": "Nắng."}])
    found = plain.preprocess([{"text": "Nắng.", "image": nothing}])
    assert found.keys() == expected.keys() and torch.equal(found["input_ids"], expected["input_ids"])


@pytest.mark.parametrize("empty", [*({"text": "", "image": nothing} for nothing in NOTHING), {}], ids=repr)
def test_empty_input_is_named(plain, empty):
    with pytest.raises(ValueError, match=r"input 1 of the batch.*empty"):
        plain.preprocess(["Nắng.", empty])


def test_bad_pictures_are_named(plain, tmp_path):
    with pytest.raises(ValueError, match=r"input 2 of the batch.*aspect ratio must be smaller than 200"):
        plain.preprocess(["Nắng.", WIDE, {"text": "Dài quá.", "image": picture(1000, 4)}])
    with pytest.raises(ValueError, match=r"input 0 of the batch.*aspect ratio"):
        plain.preprocess([picture(1000, 4)])
    broken = tmp_path / "broken.png"
    WIDE.save(broken)
    broken.write_bytes(broken.read_bytes()[:200])
    for path in (broken, tmp_path / "absent.png"):
        with pytest.raises(ValueError, match=rf"input 1 of the batch.*{path.name}"):
            plain.preprocess([WIDE, {"image": str(path)}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_pixels": 0}, "min_pixels"),
        ({"min_pixels": 3000, "max_pixels": 2000}, "min_pixels <= max_pixels"),
        ({"prefixes": "<ocr>"}, "sequence of distinct strings"),
        ({"prefixes": ["<ocr>", "<ocr>"]}, "distinct"),
        ({"template": "jinja"}, "template must be one of"),
    ],
)
def test_bad_arguments(tiny_qwen2_vl, settings, message):
    with pytest.raises(ValueError, match=message):
        Qwen2VLTransformer(str(tiny_qwen2_vl), **settings)


def test_needs_a_qwen2_vl(tiny_base):
    with pytest.raises(ValueError, match=r"xlm-roberta.*qwen2_vl"):
        Qwen2VLTransformer(str(tiny_base))


@pytest.mark.parametrize("missing", ["is_vision_available", "is_torchvision_available"])
def test_needs_the_vision_extra(tiny_qwen2_vl, monkeypatch, missing):
    monkeypatch.setattr(qwen2_vl, missing, lambda: False)
    with pytest.raises(ImportError, match=r'pip install "st-vi\[vision\]"'):
        Qwen2VLTransformer(str(tiny_qwen2_vl))


def test_marks_in_texts_and_prompts_are_text_and_half_a_letter_in_a_prompt_is_an_error(plain):
    marked, odd = "a <|image_pad|>", "<|vision_start|>"
    ids = plain.preprocess([marked, {"text": "b"}], prompt=odd)["input_ids"]
    for token in ("<|image_pad|>", odd):
        assert plain.tokenizer.convert_tokens_to_ids(token) not in ids
    with pytest.raises(ValueError, match="is no Unicode text: it has half"):
        plain.preprocess(["a"], prompt="\ud83d")
