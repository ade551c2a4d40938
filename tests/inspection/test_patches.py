"""Maps of patches against images with a painted block, in a model through which nothing but colour flows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sentence_transformers import SentenceTransformer
from sentence_transformers.multi_vector_encoder.interpretability import get_n_patches
from sentence_transformers.sentence_transformer.modules import Pooling

from st_vi import AttentionPooling, build_vipolyqwen
from st_vi.inspection.patches import patch_box, pixel_budget, view_patches
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

BUDGET = {"min_pixels": 4 * 28 * 28, "max_pixels": 512 * 28 * 28}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl")))


@pytest.fixture(scope="module")
def model(tiny):
    """Shared by tests that leave it as it is."""
    torch.manual_seed(0)
    model = build_vipolyqwen(tiny, embedding_dimension=32, **BUDGET).cpu()
    model[1].attention_context_vector.data.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
@torch.no_grad()
def colour_reader(tiny):
    """The real tower and language model with weights of zero, but for one path: how little green a patch has."""
    model = build_vipolyqwen(tiny, head=None, **BUDGET).cpu()
    qwen, pooling = model[0].model, model[1]
    for name, parameter in qwen.named_parameters():
        parameter.fill_(1.0 if "norm" in name or "ln_q" in name else 0.0)
        if name.endswith("bias"):
            parameter.zero_()
    tower, width = qwen.visual, qwen.visual.config.embed_dim
    kernel = tower.patch_embed.proj.weight  # (width, 3, 2, 14, 14)
    kernel[0, 0] = kernel[1, 1] = 1 / kernel[0, 0].numel()  # means of red and green
    first, _, last = tower.merger.mlp
    first.weight[0, 1::width] = -1.0  # green of each of the four parts of a merged patch
    first.bias[0] = 30.0  # where GELU rises
    last.weight[0, 0] = 1.0
    last.bias[1] = 30.0  # a constant beside it, or the norm would take its size away
    pooling.attention_context_vector.zero_()[0, 0] = 10.0
    return model


def noise(size, seed=0):
    pixels = np.random.default_rng(seed).integers(200, 256, (size[1], size[0], 1), dtype=np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (size[1], size[0], 3)).copy())


def with_block(size, grid, cell):
    """Red where the cell is, by arithmetic of its own: fractions of the image, rounded to whole pixels."""
    picture = noise(size)
    (rows, columns), (row, column) = grid, cell
    left, right = (round(size[0] * edge / columns) for edge in (column, column + 1))
    top, bottom = (round(size[1] * edge / rows) for edge in (row, row + 1))
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=(255, 0, 0))
    return picture


def largest(weights):
    return divmod(int(weights.argmax()), weights.shape[1])


SIZES = {
    (112, 112): (4, 4),
    (640, 400): (14, 23),
    (400, 640): (23, 14),
    (300, 70): (2, 11),
    (1500, 1100): (19, 26),  # scaled down
    (20, 20): (2, 2),  # scaled up
}


def patch_at(x, y, size, grid):
    return int(y * grid[0] / size[1]), int(x * grid[1] / size[0])


@pytest.mark.parametrize("size", SIZES)
def test_a_painted_block_gets_the_largest_weight(colour_reader, size):
    grid = SIZES[size]
    rows, columns = grid
    for cell in {(0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 3), (rows - 1, columns - 1)}:
        picture = with_block(size, grid, cell)
        (weights,) = view_patches(colour_reader, picture).maps
        assert weights.shape == grid
        assert largest(weights) == cell
        left, top, right, bottom = patch_box(cell, size, grid)
        red = np.asarray(picture)[..., 1] == 0
        places = [patch_at(x + 0.5, y + 0.5, size, grid) for y, x in zip(*red.nonzero(), strict=True)]
        assert max(places.count(place) for place in set(places)) == places.count(cell)
        if size[0] % columns == 0 and size[1] % rows == 0:
            assert set(places) == {cell}
            assert red[int(top) : int(bottom), int(left) : int(right)].all()


def test_640_by_400_is_14_by_23_patches(model):
    picture = noise((640, 400))
    assert model.preprocess([picture])["image_grid_thw"].tolist() == [[1, 28, 46]]
    assert view_patches(model, picture).maps[0].shape == (14, 23)


def test_every_one_of_several_pictures_has_its_own_map(colour_reader):
    cells = {(640, 400): (3, 20), (112, 112): (2, 1), (300, 70): (1, 9)}
    pictures = [with_block(size, SIZES[size], cell) for size, cell in cells.items()]
    for text in ("", "Ba bức ảnh này khác nhau ở đâu?"):
        view = view_patches(colour_reader, pictures, text, prompt_name="instr")
        assert [weights.shape for weights in view.maps] == [SIZES[size] for size in cells]
        assert [largest(weights) for weights in view.maps] == list(cells.values())


def test_grids_are_those_of_the_stock_interpretability(model):
    for size, grid in SIZES.items():
        assert get_n_patches(model, size) == grid[::-1]


@pytest.mark.parametrize("text", ["", "Trời mưa to nên đường phố ngập nước."])
@pytest.mark.parametrize("prompt_name", [None, "ocr"])
@pytest.mark.parametrize("count", [1, 3])
def test_weights_sum_to_one_and_each_is_counted_where_it_belongs(model, text, prompt_name, count):
    pictures = [noise((56, 84), seed) for seed in range(count)]
    view = view_patches(model, pictures, text, prompt_name=prompt_name)
    assert view.image + view.text + view.special == pytest.approx(1, abs=1e-5)

    item = {"image": pictures, "text": text} if text else {"image": pictures}
    features = model(model.preprocess([item], prompt=model.prompts.get(prompt_name)))
    by_kind = {"image": 0.0, "text": 0.0, "special": 0.0}
    for token, weight in zip(features["input_ids"][0], features["attention_weights"][0], strict=True):
        name = model.tokenizer.convert_ids_to_tokens(int(token))
        kind = "image" if name == "<|image_pad|>" else "special" if name.startswith("<") else "text"
        by_kind[kind] += float(weight)
    assert by_kind == pytest.approx({"image": view.image, "text": view.text, "special": view.special}, abs=1e-5)
    assert (view.text > 0) == bool(text)
    encoded = model.encode(item, prompt_name=prompt_name, convert_to_tensor=True)
    torch.testing.assert_close(view.embedding, encoded, atol=1e-5, rtol=0)


def test_maps_of_several_heads_are_their_mean(model):
    torch.manual_seed(0)
    two = SentenceTransformer(modules=[model[0], AttentionPooling(64, num_heads=2)], device="cpu")
    two[1].attention_context_vector.data.normal_(std=0.3)
    picture, maps = noise((84, 56)), []
    for head in range(2):
        one = SentenceTransformer(modules=[model[0], AttentionPooling(64)], device="cpu")
        one[1].attention_context_vector.data.copy_(two[1].attention_context_vector.data[head : head + 1])
        maps.append(view_patches(one, picture).maps[0])
    view = view_patches(two, picture)
    torch.testing.assert_close(view.maps[0], (maps[0] + maps[1]) / 2)
    assert view.embedding.shape == (128,)


def test_the_pixel_budget_holds_inside_of_the_block_only(model):
    picture = noise((224, 224))
    grids = []
    for side in (28, 56, 112, 224):
        with pixel_budget(model, side**2):
            grids.append(view_patches(model, picture).maps[0].shape)
    assert grids == [(1, 1), (2, 2), (4, 4), (8, 8)]
    with pytest.raises(KeyError), pixel_budget(model, 28**2):
        raise KeyError
    assert view_patches(model, picture).maps[0].shape == (8, 8)
    with pytest.raises(ValueError, match="at least 1, got 0"), pixel_budget(model, 0):
        pass


@pytest.mark.parametrize("size", SIZES)
def test_places_against_a_picture_of_coordinates(size):
    grid = SIZES[size]
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32) + 0.5
    across, down = (
        np.asarray(Image.fromarray(each).resize(grid[::-1], Image.Resampling.BOX)) for each in (x, y)
    )  # the mean place of what Pillow puts into every cell
    for row in range(grid[0]):
        for column in range(grid[1]):
            left, top, right, bottom = patch_box((row, column), size, grid)
            assert (left + right) / 2 == pytest.approx(across[row, column], abs=0.5)  # Pillow takes whole pixels
            assert (top + bottom) / 2 == pytest.approx(down[row, column], abs=0.5)
            assert patch_at((left + right) / 2, (top + bottom) / 2, size, grid) == (row, column)


def test_models_and_pictures_that_will_not_do(model, tiny_model):
    picture = noise((56, 56))
    with pytest.raises(ValueError, match="reads no images"):
        view_patches(tiny_model, picture)
    with pytest.raises(ValueError, match="reads no images"), pixel_budget(tiny_model, 100):
        pass
    mean = SentenceTransformer(modules=[model[0], Pooling(64, "mean")], device="cpu")
    with pytest.raises(ValueError, match="one AttentionPooling"):
        view_patches(mean, picture)
    with pytest.raises(ValueError, match="no image"):
        view_patches(model, [])
    with pytest.raises(ValueError, match="ratio"):
        view_patches(model, Image.new("RGB", (500, 2)))
    assert view_patches(model, Image.new("RGB", (1, 1))).maps[0].shape == (2, 2)
