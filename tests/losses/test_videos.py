"""Videos in the losses: ids by their frames, each clip embedded once, in mini-batches and opened late."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image

from st_vi import CachedDLELoss, DLELoss, MixedTaskCollator
from st_vi.losses.columns import content_ids
from st_vi.losses.embed import Inputs, embed_distinct
from st_vi.tasks import VIDEO_TASK, VIPOLYQWEN_TASKS
from tests.helpers.columns import TALL, WIDE, assert_same, columns_of, features_of, picture

TASKS = (*VIPOLYQWEN_TASKS, VIDEO_TASK)
CLIP = [picture(56, 28, seed) for seed in range(4)]
OTHER = [picture(28, 56, seed) for seed in range(10, 13)]
REVERSED = CLIP[::-1]
COLUMNS = [
    [{"video": CLIP}, {"video": REVERSED, "text": "Gì?"}, "Không có gì.", {"image": WIDE, "video": OTHER}],
    ["Hình đi xuống.", {"video": CLIP}, {"image": TALL}, {"video": [CLIP, OTHER], "text": "Hai đoạn phim."}],
]


def rows_of(tmp_path):
    """A caption and a clip as images, a path and bytes; a clip as the anchor; images and texts among them."""
    path = tmp_path / "phim.png"
    CLIP[0].save(path, save_all=True, append_images=CLIP[1:])
    return [
        {"task": "video", "anchor": "Đi xuống.", "positive": "", "positive_video": CLIP},
        {"task": "video", "anchor": "Đi lên.", "positive": "", "positive_video": REVERSED},
        {"task": "video", "anchor": "Nó đi đâu?", "positive": "Xuống.", "anchor_video": str(path)},
        {"task": "video", "anchor": "", "positive": "Lên.", "anchor_video": path.read_bytes()},
        {"task": "vqa_single", "anchor": "Màu gì?", "positive": "Đỏ.", "anchor_image": WIDE},
        {"task": "instr", "anchor": "Chào.", "positive": "Xin chào."},
    ]


def test_ids_tell_the_order_of_frames(tiny_multimodal):
    preprocess = tiny_multimodal.preprocess
    (ids,) = content_ids([preprocess([{"video": CLIP}, {"video": REVERSED}, {"video": CLIP[:2]}, {"image": CLIP}])])
    assert len(set(ids.tolist())) == 4
    # Padded, in another batch, and from another form: the same.
    arrays = np.stack([np.array(frame) for frame in CLIP])
    (same,) = content_ids([preprocess(["Một câu dài hơn thế.", {"video": arrays}])])
    assert same[1] == ids[0]
    # An image and the same as a video of two equal frames have the same patches.
    still = [picture(28, 28, 7)] * 2
    swapped = [{"image": still[0], "video": [TALL, TALL]}, {"image": TALL, "video": still}]
    (first, second), = content_ids([preprocess(swapped)])  # fmt: skip
    assert first != second
    two = [{"video": [CLIP, OTHER]}, {"video": [OTHER, CLIP]}, {"video": [CLIP, OTHER]}]
    ((a, b, c),) = content_ids([preprocess(two)])
    assert a == c != b


def step(model, embeddings):
    """Values and gradients, with another weight for every number of every embedding."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(e.shape, generator=generator) for e in embeddings]
    sum((e * w).sum() for e, w in zip(embeddings, weights, strict=True)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [e.detach() for e in embeddings], gradients


@pytest.mark.parametrize("side", ["left", "right"])
def test_distinct_inputs_equal_the_naive_way(tiny_multimodal, side):
    """The naive way: stock's forward of every column, without the hooks for repeated images."""
    model = copy.deepcopy(tiny_multimodal)
    model.tokenizer.padding_side = side
    model[0].distinct_pictures.enabled = False
    naive = step(model, [model(column)["sentence_embedding"] for column in columns_of(model, COLUMNS)])
    model[0].distinct_pictures.enabled = True
    features = columns_of(model, COLUMNS)
    assert Inputs.read(features) is not None
    seen = []
    hook = model[0].model.visual.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    ours = step(model, embed_distinct(model, features, content_ids(features)))
    hook.remove()
    assert_same(ours, naive, 1e-5)
    assert any("visual." in name for name in ours[1])
    every = sum(len(f[key]) for f in features for key in ("pixel_values", "pixel_values_videos") if key in f)
    assert sum(seen) <= every - 16  # CLIP is an input of two columns: its 16 patches are computed once


def test_one_by_one(tiny_multimodal):
    """Every input alone: nothing of another video, or of the padding, gets in."""
    model = copy.deepcopy(tiny_multimodal).eval()
    inputs = [*COLUMNS[0], *COLUMNS[1]]
    with torch.no_grad():
        alone = torch.cat([model(model.preprocess([item]))["sentence_embedding"] for item in inputs])
        batch = model(model.preprocess(inputs))
    torch.testing.assert_close(batch["sentence_embedding"], alone, atol=1e-5, rtol=1e-4)
    # The pool looks at the visual tokens of the video, and at no padding.
    weights, mask = batch["attention_weights"], batch["attention_mask"].bool()
    assert not weights[~mask].any()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(inputs)))
    of_video = batch["input_ids"] == model[0].processor.video_token_id
    assert of_video[0].sum() == 4 and (weights[0][of_video[0]] > 0).all()


def loss_step(model, loss, rows, **settings):
    model.zero_grad()
    columns, labels = features_of(MixedTaskCollator(model.preprocess, tasks=TASKS, **settings)(rows))
    components = loss(columns, labels)
    sum(components.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [value.detach() for value in components.values()], gradients


@pytest.mark.slow
@pytest.mark.parametrize("lazy_images", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{"mini_batch_size": 1}, {"mini_batch_size": 3, "embed_once": False}, {"mini_batch_num_tokens": 24}],
    ids=str,
)
def test_cached_equals_uncached(tiny_multimodal, tmp_path, settings, lazy_images):
    model, rows = tiny_multimodal, rows_of(tmp_path)
    cached = loss_step(model, CachedDLELoss(model, tasks=TASKS, **settings), rows, lazy_images=lazy_images)
    assert_same(cached, loss_step(model, DLELoss(model, tasks=TASKS), rows), 1e-5)


def test_lengths_are_known_before_a_video_is_opened(tiny_multimodal, tmp_path):
    from st_vi.losses.lazy import LazyBatch, lazy_columns

    collator = MixedTaskCollator(tiny_multimodal.preprocess, tasks=TASKS, lazy_images=True)
    columns, _ = features_of(collator(rows_of(tmp_path)))
    batch = LazyBatch(lazy_columns(columns), tiny_multimodal, torch.device("cpu"))
    numbers = range(len(batch.places))
    tokens = [int(batch.features([number], {})["attention_mask"].sum()) for number in numbers]
    assert batch.lengths == tokens


def test_a_bad_video_of_a_lazy_batch_names_its_row(tiny_multimodal):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    rows = [
        {"task": "video", "anchor": "a", "positive": "", "positive_video": CLIP},
        {"task": "video", "anchor": "b", "positive": "", "positive_video": buffer.getvalue()},
    ]
    columns, labels = features_of(MixedTaskCollator(tiny_multimodal.preprocess, tasks=TASKS, lazy_images=True)(rows))
    with pytest.raises(ValueError, match="row 1 of the batch, column 'positive': a video needs at least 2 frames"):
        CachedDLELoss(tiny_multimodal, tasks=TASKS)(columns, labels)
