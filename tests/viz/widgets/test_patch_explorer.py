"""The patch explorer's controls, set as a hand would set them; its figures against direct calls."""

from __future__ import annotations

import io
from datetime import datetime

import pytest
import torch
from PIL import Image, ImageDraw

from st_vi import build_vipolyqwen
from st_vi.data.generated.scenes import draw, scene
from st_vi.inspection.patch_masks import mask_patches
from st_vi.inspection.patches import view_patches
from st_vi.inspection.query_maps import query_map
from st_vi.viz.widgets import patch_explorer
from st_vi.viz.widgets.patch_explorer import COLOURS, NO_QUERY, TRANSPARENT, PatchExplorer
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

QUERY = "Một hình tròn đỏ."
SIDES = (56, 112, 224)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tiny = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    torch.manual_seed(0)
    model = build_vipolyqwen(tiny, embedding_dimension=32, max_pixels=112**2).cpu()
    model[1].attention_context_vector.data.normal_(std=0.3)
    return model


def pictures():
    wide = Image.new("RGB", (640, 400), "white")
    ImageDraw.Draw(wide).ellipse((40, 40, 300, 300), fill="red")
    return {"scene": draw(scene("test", 0), size=224), "wide": wide}


@pytest.fixture
def explorer(model):
    return PatchExplorer(model, pictures(), query=QUERY, prompt_name="instr", budgets=[side**2 for side in SIDES])


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def upload(explorer, content, name="ảnh.png"):
    entry = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    explorer.upload.value = ({**entry, "last_modified": datetime.now()},)


def lasso(explorer, left, top, right, bottom):
    """What plotly sends when one is drawn; figures are fractions of the image."""
    (width, height), names = explorer.shown.size, "MLLL"
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    path = "".join(f"{name}{x * width},{y * height}" for name, (x, y) in zip(names, corners, strict=True)) + "Z"
    explorer.map.plotly_relayout({"selections": [{"type": "path", "path": path, "xref": "x", "yref": "y"}]})
    assert not explorer.map.to_dict()["layout"]["selections"]  # or it would catch the mouse


def heat(explorer):
    return torch.tensor(explorer.map.data[0].z)


def test_it_shows_what_the_model_pools(explorer, model):
    view = view_patches(model, pictures()["scene"], prompt_name="instr")
    torch.testing.assert_close(heat(explorer), view.maps[0])
    assert explorer.map.layout.title.text == "scene: 4 × 4 patches"
    picture, query = model.encode([{"image": pictures()["scene"], "text": "<instr>"}, QUERY], convert_to_tensor=True)
    assert explorer.similarities.data[0].x[0] == pytest.approx(float(picture @ query), abs=1e-4)
    assert [bar.x[0] for bar in explorer.masses.data] == pytest.approx([view.image, view.text, view.special])
    assert [len(panel.z) for panel in explorer.resolutions.data] == [2, 4, 8]
    assert not explorer.notice.value


def test_clicks_and_lasso_mask_and_the_button_clears(explorer, model):
    before = heat(explorer)
    explorer._clicked([[1, 2]])
    lasso(explorer, 0.0, 0.3, 0.7, 0.45)  # one of the three is masked already
    assert explorer.masked == {(1, 0), (1, 1), (1, 2)}
    query = model.encode(QUERY, convert_to_tensor=True)
    effect = mask_patches(
        model, pictures()["scene"], [(1, 0), (1, 1), (1, 2)], query, prompt_name="instr"
    )  # as one call
    bars = explorer.similarities.data[0]
    assert list(bars.y) == ["as it is", "painted", "out of the pool", "random patches painted"]
    assert list(bars.x) == pytest.approx(
        [
            effect.similarity,
            effect.painted_similarity,
            effect.unpooled_similarity,
            float(effect.random_similarities.mean()),
        ],
        abs=1e-5,
    )
    torch.testing.assert_close(heat(explorer), effect.painted.maps[0])
    assert list(explorer.masses.data[0].y) == ["as it is", "painted"]
    explorer._clicked([[1, 2]])
    assert explorer.masked == {(1, 0), (1, 1)} and "2 masked" in explorer.map.layout.title.text
    assert sum(z is not None for row in explorer.map.data[1].z for z in row) == 2
    lasso(explorer, 0.0, 0.0, 0.1, 0.1)  # catches nothing
    assert len(explorer.masked) == 2
    box = {"type": "rect", "x0": 120, "x1": 220, "y0": 220, "y1": 170, "xref": "x", "yref": "y"}
    explorer.map.plotly_relayout({"selections": [box]})
    assert explorer.masked == {(1, 0), (1, 1), (3, 2), (3, 3)}
    explorer.clear.click()
    assert not explorer.masked and list(bars.y) == ["as it is"]
    torch.testing.assert_close(heat(explorer), before)


def test_budget_changes_the_grid_and_takes_the_mask_away(explorer):
    explorer._clicked([[3, 3]])
    explorer.budget.value = 56**2
    assert heat(explorer).shape == (2, 2) and not explorer.masked
    explorer.budget.value = 224**2
    assert heat(explorer).shape == (8, 8)
    assert len(explorer.map.data[2].x) == 64
    assert explorer.model[0].processor.image_processor.size.longest_edge == 112**2  # the model is left as it was


@pytest.mark.slow
def test_colours_of_the_query(explorer):
    """Each map is that of `query_map`, of the image without a mask, and has a scale of its own."""
    explorer._clicked([[1, 2]])
    query = explorer.model.encode(explorer.query.value, convert_to_tensor=True)
    found = query_map(explorer.model, explorer.pictures["scene"], query, prompt_name="instr")
    for name, values in {"similarity": found.similarity, "fall": found.fall}.items():
        explorer.colours.value = name
        torch.testing.assert_close(heat(explorer), values, atol=1e-5, rtol=0)
        shown = explorer.map.data[0]
        assert (shown.zmin, shown.zmax) == pytest.approx((float(values.min()), float(values.max())), abs=1e-5)
        assert explorer.colours.label in shown.hovertemplate
    explorer.colour_range.value = (0.5, 1)
    assert explorer.map.data[0].zmin == pytest.approx(float(found.fall.min() + found.fall.max()) / 2, abs=1e-5)
    explorer.colours.value = "weights"
    torch.testing.assert_close(heat(explorer), explorer.effect.painted.maps[0])


def test_another_picture_moves_the_axes(explorer):
    explorer._clicked([[0, 0]])
    source = explorer.map.layout.images[0].source
    explorer.picture.value = "wide"
    assert explorer.map.layout.xaxis.range == (0, 640) and explorer.map.layout.yaxis.range == (400, 0)
    assert explorer.resolutions.layout.yaxis3.range == (400, 0)
    assert explorer.map.layout.images[0].source != source
    assert heat(explorer).shape == (3, 5) and not explorer.masked
    assert explorer.map.data[0].dx == 128


def test_text_and_query(explorer):
    explorer._clicked([[0, 0]])
    before, similarity = heat(explorer), explorer.effect.similarity
    explorer.text.value = "Có mấy hình?"
    assert explorer.masses.data[1].x[0] > 0 and explorer.masked == {(0, 0)}
    assert not torch.equal(heat(explorer), before)
    similarity = explorer.effect.similarity
    explorer.query.value = "Hai ngôi sao vàng."
    assert explorer.effect.similarity != similarity
    explorer.query.value = " "
    assert NO_QUERY in explorer.notice.value
    explorer.query.value = QUERY
    assert not explorer.notice.value


def test_a_query_that_is_a_path_is_a_text(explorer, model):
    explorer.query.value = "anh/meo.png"
    expected = mask_patches(model, explorer.shown, [], model.encode({"text": "anh/meo.png"}), prompt_name="instr")
    assert explorer.effect.similarity == pytest.approx(expected.similarity, abs=1e-6) and not explorer.notice.value


def test_names_and_queries_are_shown_as_they_are_written(model):
    explorer = PatchExplorer(model, {"<img src=x>": draw(scene("test", 0))}, query="<img src=y> $a$")
    explorer._mask({(0, 0)})
    for figure in (explorer.map, explorer._static_twin()):
        text = str(figure.to_plotly_json()["layout"]["title"])
        assert "&lt;img" in text and "<img" not in text and "$a$" not in text and "&amp;" not in text


def test_opacity_and_colour_range_need_no_model(explorer, monkeypatch):
    monkeypatch.setattr(type(explorer.model[0]), "forward", None)
    explorer.opacity.value = 0.2
    assert explorer.map.data[0].opacity == explorer.resolutions.data[2].opacity == 0.2
    explorer.colour_range.value = (0.25, 0.5)
    largest = float(heat(explorer).max())
    assert (explorer.map.data[0].zmin, explorer.map.data[0].zmax) == pytest.approx((largest / 4, largest / 2))
    assert not explorer.notice.value


def test_looks_survive_another_picture(explorer):
    explorer.opacity.value, explorer.colour_range.value = 0.2, (0, 0.5)
    explorer.picture.value = "wide"
    assert explorer.map.data[0].opacity == 0.2
    assert explorer.map.data[0].zmax == pytest.approx(float(heat(explorer).max()) / 2)


def test_an_upload_is_encoded_once(explorer):
    explorer.picture.value = "wide"
    encoded = []
    explorer.picture.observe(lambda change: encoded.append(change.new), "value")
    upload(explorer, png(Image.new("RGB", (90, 60), "blue")))
    assert encoded == ["ảnh.png"]


def test_uploaded_pictures(explorer):
    upload(explorer, png(Image.new("RGB", (90, 60), "blue")))
    assert explorer.picture.options == ("ảnh.png", "scene", "wide")
    assert explorer.picture.value == "ảnh.png" and heat(explorer).shape == (2, 3)
    assert explorer.map.layout.title.text.startswith("ảnh.png")
    upload(explorer, png(Image.new("RGB", (1, 1), "blue")), "chấm.png")
    assert heat(explorer).shape == (2, 2) and not explorer.notice.value
    upload(explorer, png(Image.new("RGBA", (60, 60), (0, 0, 0, 0))), "kính.png")
    assert TRANSPARENT in explorer.notice.value
    assert set(explorer.shown.getdata()) == {(255, 255, 255)}
    upload(explorer, png(Image.new("RGB", (60, 60), "red")), "kính.png")  # the same name again
    assert set(explorer.shown.getdata()) == {(255, 0, 0)}
    explorer.picture.value = "scene"
    assert heat(explorer).shape == (4, 4) and not explorer.notice.value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"khong phai anh", "cannot be read"),
        (png(draw(scene("test", 1)))[:800], "cannot be read"),
        (png(Image.new("RGB", (900, 4))), "aspect ratio"),
    ],
    ids=["no image", "cut short", "too long"],
)
def test_what_is_no_picture_is_said_in_place(explorer, content, message):
    before = heat(explorer)
    upload(explorer, content, "hỏng.png")
    assert "hỏng.png" in explorer.notice.value and message in explorer.notice.value
    torch.testing.assert_close(heat(explorer), before)
    explorer._clicked([[0, 0]])  # all else goes on with the image that is shown
    assert explorer.masked == {(0, 0)} and explorer.map.layout.title.text.startswith("scene")
    explorer.picture.value = "wide"
    assert heat(explorer).shape == (3, 5)


@pytest.mark.slow
def test_patches_are_asked_once_for_an_image_and_a_query(explorer, monkeypatch):
    asked = []
    monkeypatch.setattr(
        patch_explorer, "query_map", lambda *args, **kwargs: asked.append(args[1]) or query_map(*args, **kwargs)
    )
    explorer.colours.value = "fall"
    explorer._clicked([[0, 0]])
    explorer.colours.value = "similarity"
    explorer._repr_mimebundle_()
    assert len(asked) == 1
    explorer.query.value = "Một câu hỏi khác."
    explorer.picture.value = "wide"
    explorer._repr_mimebundle_()
    assert len(asked) == 3 and asked[2] is explorer.shown and heat(explorer).shape == (3, 5)


def test_without_a_kernel_it_is_the_map_with_a_slider(explorer):
    twin = explorer._repr_mimebundle_()["application/vnd.plotly.v1+json"]
    assert twin["layout"]["sliders"][0]["currentvalue"]["prefix"] == "opacity "
    (menu,) = twin["layout"]["updatemenus"]
    assert [button["label"] for button in menu["buttons"]] == list(COLOURS)
    explorer.colours.value = "fall"
    change, shown = menu["buttons"][2]["args"][0], explorer.map.data[0]
    torch.testing.assert_close(torch.tensor(change["z"][0]), heat(explorer), atol=1e-4, rtol=0)
    assert (change["zmin"], change["zmax"]) == pytest.approx((shown.zmin, shown.zmax), abs=1e-4)
    assert (change["hovertemplate"], change["colorbar.title.text"]) == (shown.hovertemplate, shown.colorbar.title.text)
    explorer._clicked([[0, 0]])
    title = explorer._static_twin().layout.title.text.replace("<br>", " ")
    assert "1 masked" in title and title.endswith(f"· {explorer.query.value}"), "the query box is not there"


def test_what_cannot_be_explored(model, tiny_model):
    with pytest.raises(ValueError, match="reads no images"):
        PatchExplorer(tiny_model, pictures())
    with pytest.raises(ValueError, match="no image"):
        PatchExplorer(model, {})
    with pytest.raises(ValueError, match="ratio"):
        PatchExplorer(model, {"line": Image.new("RGB", (900, 4))})
