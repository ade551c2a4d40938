"""What is an image and what a text, by every way in; and the same vector by all of them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers.util import batch_to_device

from st_vi import MixedTaskCollator, build_vipolyqwen
from st_vi.encoding import encode_by_tokens
from st_vi.encoding.batches import token_counts
from st_vi.inputs.content import content_key
from st_vi.inputs.kinds import is_picture, is_video_file, open_videos, picture_suffixes
from st_vi.inputs.pictures import open_image
from st_vi.inspection.read_text import read_text
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny"))
    return build_vipolyqwen(path, embedding_dimension=24, max_pixels=112 * 112)


def noise(*shape, top=255, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


PHOTO = Image.fromarray(noise(60, 84, 3))
TURNED = Image.Exif()
TURNED[0x0112] = 6


def glass():
    image = PHOTO.convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[255], [0]], [30, 30], axis=0).astype(np.uint8).repeat(84, axis=1)))
    return image


FILES = {
    "kính.png": (glass(), {}),
    "kính.webp": (glass(), {"lossless": True}),
    "xám.png": (glass().convert("LA"), {}),
    "khoá.png": (Image.fromarray(noise(60, 84, 3, top=3)), {"transparency": (1, 1, 1)}),
    "bảng.png": (PHOTO.quantize(8), {"transparency": 0}),
    "quay.jpg": (PHOTO, {"exif": TURNED}),
    "16 bit.png": (Image.fromarray(noise(60, 84, top=2**16, dtype=np.uint16)), {}),
    "16 bit.tif": (Image.fromarray(noise(60, 84, top=2**16, dtype=np.uint16)), {}),
    "32 bit.tiff": (Image.fromarray(noise(60, 84, top=2**16, dtype=np.int32)), {}),
    "thực.tif": (Image.fromarray(noise(60, 84, dtype=np.float32) / 255), {}),
    "cmyk.jpg": (PHOTO.convert("CMYK"), {}),
    "đen trắng.png": (PHOTO.convert("1"), {}),
    "HOA.TIF": (PHOTO, {}),
    "hoa.bmp": (PHOTO, {}),
    "hoa.ppm": (PHOTO, {}),
    "động.gif": (PHOTO, {"save_all": True, "append_images": [PHOTO.rotate(90)]}),
    "trang.tiff": (PHOTO, {"save_all": True, "append_images": [PHOTO.rotate(90)]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_one_file_has_one_vector(model, tmp_path, name):
    image, options = FILES[name]
    path = tmp_path / name
    image.save(path, **options)
    data = path.read_bytes()
    message = {"role": "user", "content": [{"type": "image", "image": str(path)}]}
    url = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": str(path)}}]}
    ways = [str(path), path, data, {"image": str(path)}, {"image": path}, {"image": data}, {"image": [str(path)]}]
    ways += [Image.open(path), {"image": Image.open(path)}, {"bytes": data, "path": None}, [message], [url]]
    vectors = [model.encode([way])[0] for way in ways]

    collator = MixedTaskCollator(model.preprocess, prefix_side="none")
    row = {"anchor": None, "anchor_image": str(path), "positive": "Hoa.", "task": "ocr"}
    features = {key[7:]: value for key, value in collator([row]).items() if key.startswith("anchor_")}
    with torch.no_grad():
        trained = model(batch_to_device(features, model.device))["sentence_embedding"][0].numpy()
    for vector in (*vectors, encode_by_tokens(model, [str(path)])[0]):
        np.testing.assert_allclose(vector, trained, atol=1e-6)
    assert np.abs(model.encode({"text": str(path)}) - trained).max() > 1e-3
    assert token_counts(model, ways[:1]) == token_counts(model, [data])


def test_the_content_of_a_picture_is_one_key_whatever_holds_it(tmp_path):
    glass().save(tmp_path / "kính.TIF")
    data = (tmp_path / "kính.TIF").read_bytes()
    ways = [
        str(tmp_path / "kính.TIF"),
        tmp_path / "kính.TIF",
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
    ]
    ways += [Image.open(io.BytesIO(data)), open_image(data), {"bytes": data, "path": None}]
    ways += [np.asarray(open_image(data)), torch.tensor(np.asarray(open_image(data)))]
    in_dicts = [{"image": form} for way in ways for form in (way, [way])]
    in_dicts += [{"image": way, "text": nothing} for way in ways for nothing in (None, "", float("nan"))]
    assert len({content_key(way) for way in (*ways, *in_dicts)}) == 1
    assert content_key("không có.tif") == "không có.tif"


def test_the_content_of_a_text_is_itself_whatever_holds_it(tmp_path):
    glass().save(tmp_path / "kính.png")
    for text in ("Trời mưa.", str(tmp_path / "kính.png")):
        for way in ({"text": text}, {"text": text, "image": None}, {"text": text, "image": [""]}):
            assert content_key(way) == text


def test_the_same_picture_in_several_holds_is_computed_once(model, tmp_path):
    PHOTO.save(tmp_path / "hoa.png")
    seen = []
    hook = model[0].model.visual.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    model.encode([str(tmp_path / "hoa.png"), PHOTO, {"image": np.asarray(PHOTO)}, tmp_path / "hoa.png"])
    hook.remove()
    assert seen == [len(model.preprocess([PHOTO])["pixel_values"])]


def test_pairs_and_frames(model, tmp_path):
    path = tmp_path / "kính.png"
    glass().save(path)
    np.testing.assert_allclose(
        model.encode([(str(path), "Một tấm kính.")]), model.encode([(Image.open(path), "Một tấm kính.")]), atol=1e-6
    )
    frames = [str(path), Image.open(path), path.read_bytes(), path]
    np.testing.assert_allclose(
        model.encode([{"video": frames}]), model.encode([{"video": [Image.open(path)] * 4}]), atol=1e-6
    )


@pytest.mark.parametrize(
    "text",
    [
        *("Trời mưa.", "và/hoặc", "meo.pn", "Con mèo trong anh/meo.png", "Nguồn: http://a.vn/meo.jpg", "1/2", "a.ps"),
        *("https://a.vn/b", "http://a.vn/b c.png", "http://[[a]]/b.png", "data:,x", "/", "\0.txt", "x" * 5000),
    ],
)
def test_texts(text):
    assert not is_picture(text)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "meo.png",
            "MEO.JPEG",
            "anh/meo.tif",
            "anh/meo.png\n",
            "./con mèo.png",
            "/anh/con mèo.bmp",
            "C:\\anh\\mèo con.png",
            "~/a.heic",
        ),
        *("anh/con mèo.png", "file:///anh/meo.png", "s3://anh/meo.webp", r"anh\meo.avif"),
    ],
)
def test_a_picture_that_is_not_there_is_an_error(model, path):
    assert is_picture(path)
    for item in (
        path,
        {"image": path, "text": "Mèo."},
        [{"role": "user", "content": [{"type": "image", "path": path}]}],
    ):
        with pytest.raises(ValueError) as error:
            model.encode(["Trời mưa.", item])
        assert "of the batch" in str(error.value) and repr(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r'give \{"text": …\}'):
        model.encode(path)
    assert np.isfinite(model.encode({"text": path})).all()


@pytest.mark.parametrize("path", ["clip.mp4", "phim/con mèo.MKV"])
def test_a_video_that_is_not_there_is_an_error(model, path):
    with pytest.raises(ValueError, match=r"there is no video .*give \{"):
        model.encode(["Trời mưa.", path])
    assert np.isfinite(model.encode(["Tôi xem clip.mp4", {"text": path}])).all()


def test_a_file_that_is_no_picture_is_an_error(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.tif", "bao cao.pdf", "meo.heic"):
        Path(name).write_bytes(b"%PDF-1.4 ...")
        for item in (str(tmp_path / name), f"./{name}", Path(name), {"image": name}):
            with pytest.raises(ValueError, match=r"cannot read the image .*Pillow knows no such format"):
                model.encode([item])
    Path("Mưa").write_bytes(b"x")
    assert not is_picture("Mưa")  # a word, although there is a file of that name


def test_bad_pictures_in_a_batch_are_named(model):
    good = io.BytesIO()
    PHOTO.save(good, "PNG")
    bad = {
        "cut short": (good.getvalue()[:2000], "truncated"),
        "no pixels": (Image.new("RGB", (0, 3)), "it has no pixels"),
        "a strip": (Image.new("RGB", (900, 3)), "aspect ratio"),
        "not a number": (np.full((30, 30, 3), np.nan), "its values go from nan"),
        "nothing": (b"", "Pillow knows no such format"),
    }
    for name, (picture, message) in bad.items():
        for item in (picture, {"image": picture, "text": "Gì đây?"}, {"image": [PHOTO, picture]}):
            if name == "no pixels" and item is picture:
                continue  # stock sorts by pixels
            with pytest.raises(ValueError, match=rf"input \d of the batch.*{message}"):
                model.encode(["Trời mưa.", PHOTO, item])


@pytest.mark.parametrize("part", [{"type": "audio", "audio": "a.mp3"}, {"type": "image"}, {"image": PHOTO}, 3])
def test_parts_of_a_message_that_nobody_reads_are_an_error(model, part):
    with pytest.raises(ValueError, match="part"):
        model.encode([[{"role": "user", "content": [{"type": "text", "text": "Gì đây?"}, part]}]])


# Marks of images in texts


MARKED = "Trước <|vision_start|><|image_pad|><|video_pad|><|vision_end|> sau"


def test_marks_of_pictures_are_text(model):
    module = model[0]
    marks = {module.processor.image_token_id, module.processor.video_token_id}
    halves = [{"role": "user", "content": "<|image_"}, {"role": "user", "content": "pad|>"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "<|image_"}, {"type": "text", "text": "pad|>"}]}]
    inputs = [MARKED, {"text": MARKED}, [{"role": "user", "content": MARKED}], halves, parts, ("<|image_", "pad|>")]
    features = module.preprocess(inputs)
    assert not marks & set(features["input_ids"].flatten().tolist())
    inputs += [{"text": MARKED, "image": PHOTO}, {"text": ["<|image_", "pad|>"]}]
    together = model.encode(inputs)
    np.testing.assert_allclose(together, np.stack([model.encode([item])[0] for item in inputs]), atol=1e-5)
    view = read_text(module, MARKED, None, module.preprocess([MARKED])["input_ids"][0].tolist())
    assert "< |image_pad|>" in view.text and set(view.kinds) == {"text"}


def test_texts_need_no_pillow(monkeypatch):
    """As where the extra `vision` is not installed, and the demo of the README runs."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    picture_suffixes.cache_clear()
    try:
        assert content_key("Trời mưa.") == "Trời mưa." and content_key({"text": "a.png"})
        assert ".png" in picture_suffixes()
    finally:
        picture_suffixes.cache_clear()


def test_arrays_of_several_videos_and_decoders_of_stock():
    clips = np.zeros((2, 3, 8, 8, 3), dtype=np.uint8)
    assert [len(frames) for frames in open_videos(clips)] == [3, 3]

    class Decoder:
        def get_frames_in_range(self): ...

    decoder = Decoder()
    assert open_videos(decoder) is decoder
    assert is_video_file("https://a.vn/phim.mp4?c=1") and not is_video_file("https://a.vn/phim.gif?c=1.mp4x")
