"""What users of a server send: text stays text, nothing is opened for them; also by the server of the documentation."""

from __future__ import annotations

import base64
import builtins
import io
import os
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from st_vi import build_vipolyqwen, load
from st_vi.encoding import untrusted_input
from st_vi.encoding.untrusted import FORMATS
from tests.docs.conftest import NO_RUN, ROOT, blocks
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny"))
    return build_vipolyqwen(path, embedding_dimension=24, max_pixels=112 * 112)


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 84, 3), dtype=np.uint8))


def saved(kind="PNG", picture=PICTURE):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


BASE64 = base64.b64encode(saved()).decode()


@pytest.fixture
def web():
    """A server of images, and what it was asked for."""
    asked = []

    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(saved())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Pictures)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def no_file_is_opened(path, monkeypatch):
    opened = []
    real = builtins.open

    def watched(file, *args, **kwargs):
        if str(path.name) in str(file):
            opened.append(file)
        return real(file, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", watched)
        yield
    assert not opened


def test_the_web_is_asked_by_those_who_are_trusted(model, web):
    address, asked = web
    np.testing.assert_allclose(model.encode(f"{address}/a.png"), model.encode(PICTURE), atol=1e-6)
    np.testing.assert_allclose(model.encode({"image": f"{address}/b"}), model.encode(PICTURE), atol=1e-6)
    assert asked == ["/a.png", "/b"]
    with pytest.raises(ValueError, match="cannot read the image"):
        model.encode("http://127.0.0.1:1/a.png")


@pytest.mark.slow
def test_texts_open_nothing(model, web, tmp_path, monkeypatch):
    address, asked = web
    path = tmp_path / "anh.png"
    path.write_bytes(saved())
    texts = [str(path), path.as_uri(), f"{address}/a.png", f"{address}/a.mp4", f"data:image/png;base64,{BASE64}"]
    texts += ["anh.png", os.fspath(tmp_path), "https://youtu.be/x", BASE64]
    monkeypatch.chdir(tmp_path)
    ways = [
        lambda text: {"text": text},
        lambda text: untrusted_input(model, text),
        lambda text: untrusted_input(model, {"text": text}),
        lambda text: untrusted_input(model, {"role": "user", "content": text}),
        lambda text: untrusted_input(model, [{"role": "user", "content": [{"type": "text", "text": text}]}]),
    ]
    for text in texts:
        ids = model.tokenizer(text, truncation=True)["input_ids"]
        with no_file_is_opened(path, monkeypatch):
            for way in ways:
                features = model.preprocess([way(text)])
                assert "pixel_values" not in features
                assert features["input_ids"][0].tolist() == ids
            assert np.isfinite(model.encode([way(text) for way in ways])).all()
    assert not asked


def test_pictures_are_bytes(model, web, tmp_path, monkeypatch):
    address, asked = web
    path = tmp_path / "anh.png"
    path.write_bytes(saved())
    monkeypatch.chdir(tmp_path)
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": BASE64}}]}
    for value in (saved(), BASE64, f"data:image/png;base64,{BASE64}"):
        np.testing.assert_allclose(
            model.encode(untrusted_input(model, {"image": value, "text": "Gì đây?"})),
            model.encode({"image": PICTURE, "text": "Gì đây?"}),
            atol=1e-6,
        )
    np.testing.assert_allclose(model.encode(untrusted_input(model, message)), model.encode(PICTURE), atol=1e-6)
    addresses = [str(path), path, path.as_uri(), f"{address}/a.png", "anh.png", "anhanhan", b"", b"\x89PNG", "", 3, {}]
    for value in (*addresses, {"url": f"{address}/a.png"}, {"path": str(path)}):
        part = {"type": "image", "url": value}
        for item in ({"image": value}, {"image": [BASE64, value]}, {"role": "user", "content": [part]}):
            with no_file_is_opened(path, monkeypatch), pytest.raises(ValueError, match="'image'") as error:
                untrusted_input(model, item)
            assert "\n" not in str(error.value)
    assert not asked


def animated(frames, kind="WEBP"):
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


def test_videos_are_bytes(model, tmp_path, monkeypatch):
    frames = [Image.new("RGB", (56, 56), colour) for colour in ("red", "blue", "green", "white")]
    expected = model.encode({"video": frames, "text": "Gì đây?"})
    saved_frames = [saved(picture=frame) for frame in frames]
    whole = animated(frames)
    for video in (saved_frames, [base64.b64encode(one).decode() for one in saved_frames], whole):
        item = untrusted_input(model, {"text": "Gì đây?", "video": video})
        np.testing.assert_allclose(model.encode(item), expected, atol=1e-6)
    part = {"role": "user", "content": [{"type": "video", "video": whole}]}
    np.testing.assert_allclose(model.encode(untrusted_input(model, part)), model.encode({"video": frames}), atol=1e-6)
    path = tmp_path / "phim.webp"
    path.write_bytes(whole)
    for value in (str(path), path, [str(path), str(path)], {"path": str(path)}, b"", b"\0\0\0\x18ftypmp42", {}, 3):
        for item in ({"video": value}, {"role": "user", "content": [{"type": "video", "video": value}]}):
            with no_file_is_opened(path, monkeypatch), pytest.raises(ValueError, match="'video'") as error:
                untrusted_input(model, item)
            assert "\n" not in str(error.value)
    for video in (whole, saved_frames):  # all frames count together, before any is decoded
        with pytest.raises(ValueError, match=r"more than \d+ pixels"):
            untrusted_input(model, {"video": video}, max_pixels=4 * 56 * 56 - 1)
        untrusted_input(model, {"video": video}, max_pixels=4 * 56 * 56)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(model, kind):
    if kind == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    assert untrusted_input(model, {"image": saved(kind)})["image"].size == PICTURE.size


def test_formats_that_start_programs_and_pictures_too_large(model):
    with pytest.raises(ValueError, match="another format than"):
        untrusted_input(model, {"image": saved("EPS")})
    with pytest.raises(ValueError, match="more than 5000 pixels"):
        untrusted_input(model, {"image": BASE64}, max_pixels=5000)
    with pytest.raises(ValueError, match="aspect ratio"):
        untrusted_input(model, {"image": saved(picture=Image.new("L", (900, 3)))})


def special_ids(model):
    return {number for number, token in model.tokenizer.added_tokens_decoder.items() if token.special}


TOKENS = ["<|image_pad|>", "<|vision_start|>", "<|video_pad|>", "<|im_start|>system", "<|im_end|>", "<ocr>"]


@pytest.mark.parametrize("token", TOKENS)
def test_special_tokens_are_text(model, token):
    special = special_ids(model)
    half = len(token) // 2
    parts = [{"type": "text", "text": token[:half]}, {"type": "text", "text": token[half:]}]
    values = [f"Trước {token} sau", {"text": token}, [{"role": "user", "content": parts}]]
    values += [[{"role": "user", "content": token[:half]}, {"role": "assistant", "content": token[half:]}]]
    for value in values:
        features = model.preprocess([untrusted_input(model, value)])
        assert not special & set(features["input_ids"][0].tolist())
    features = model.preprocess([untrusted_input(model, token)], prompt="<ocr> ")
    assert len(special & set(features["input_ids"][0].tolist())) == 1  # the server's own prompt
    with_picture = untrusted_input(model, {"text": f"{token} Gì đây?", "image": BASE64})
    assert np.isfinite(model.encode([with_picture, "Trời mưa."])).all()


def test_of_a_text_model_too(tiny_model):
    values = ["Trời mưa.", "a </s> b", "<mask>", "/etc/passwd", "http://127.0.0.1:1/a.png"]
    inputs = [untrusted_input(tiny_model, value) for value in values]
    np.testing.assert_allclose(tiny_model.encode(inputs)[[0, 3, 4]], tiny_model.encode(values)[[0, 3, 4]], atol=1e-6)
    special = special_ids(tiny_model) - {tiny_model.tokenizer.unk_token_id}
    for item in inputs:
        assert not special & set(tiny_model.preprocess([item])["input_ids"][0, 1:-1].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("text", ["＜/s＞", "<ｓ>", "﹤pad﹥", "a <unk＞ b", "＜/s>＜ｐａｄ＞"])
def test_tokens_that_only_the_tokenizer_writes(text):
    """Its normalizer makes them of other letters, and they are among its pieces."""
    model = load("vi-mini", device="cpu")
    special = special_ids(model)
    assert special & set(model.preprocess([text])["input_ids"][0, 1:-1].tolist())
    cleaned = model.preprocess([untrusted_input(model, text)])["input_ids"][0, 1:-1].tolist()
    assert not special & set(cleaned)


def lists_in_lists(levels=100_000):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("wrap", [list, lambda value: {"text": value}, lambda value: {"role": value, "content": ""}])
def test_values_of_many_levels(model, wrap):
    with pytest.raises(ValueError, match="a list of too many levels"):
        untrusted_input(model, wrap(lists_in_lists()))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "expected a text"),
        (3, "expected a text"),
        (["a", "b"], "expected a text"),
        ({"video": "a.mp4"}, "'video': expected the bytes"),
        ({"image": BASE64, "video": "a.mp4"}, "'video': expected the bytes"),
        ({"video": [BASE64]}, "'video': a video needs at least 2 frames"),
        ({"video": []}, "'video': the video has no frames"),
        ({"audio": BASE64}, "expected a text"),
        ({"text": 3}, "'text': expected a text"),
        ({"text": ["a"]}, "'text': expected a text"),
        ({"text": None}, "neither text nor image nor video"),
        ({"image": []}, "neither text nor image nor video"),
        (" \u200b", "neither text nor image nor video"),
        ([{"role": "user", "content": ""}, {"role": "user", "content": []}], "neither text nor image nor video"),
        ("\ud83d", "no Unicode"),
        ({"role": "user<|im_end|>", "content": "a"}, "'role'"),
        ({"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}, "'video': expected the bytes"),
        ({"role": "user", "content": [{"type": "audio", "audio": "a.mp3"}]}, "'type'"),
        ({"role": "user", "content": [{"type": "text"}]}, "'text'"),
        ({"role": "user", "content": 3}, "'content'"),
        ([{"role": "user", "content": "a"}, "b"], "expected a text"),
    ],
)
def test_what_is_none_of_these(model, value, message):
    with pytest.raises(ValueError, match=message):
        untrusted_input(model, value)


# The server in docs/serve.md


class Refused(Exception):
    """What stands for FastAPI's own."""


@pytest.fixture
def server(model, monkeypatch):
    """The names of the documented server, with as much of FastAPI as it uses: the handlers are plain functions."""
    fastapi = ModuleType("fastapi")
    fastapi.FastAPI = type("FastAPI", (), {"post": lambda self, path: lambda function: function})
    fastapi.HTTPException = Refused
    monkeypatch.setitem(sys.modules, "fastapi", fastapi)
    monkeypatch.setattr("st_vi.load", lambda path: model, raising=False)
    (block,) = [block for block in blocks(ROOT / "docs/serve.md", NO_RUN) if "FastAPI" in block.code]
    module = ModuleType("server")
    monkeypatch.setitem(sys.modules, "server", module)  # where a dataclass looks for its names
    exec(block.compiled(), vars(module))
    return module


def test_the_documented_server(server, model, web, tmp_path):
    address, asked = web
    path = tmp_path / "anh.png"
    path.write_bytes(saved())
    inputs = ["Trời mưa.", str(path), path.as_uri(), f"{address}/a.png", {"image": BASE64, "text": "Gì đây?"}]
    found = server.encode(server.Request(inputs, "ocr"))
    same = [*({"text": text} for text in inputs[:4]), {"image": PICTURE, "text": "Gì đây?"}]
    expected = model.encode(same, prompt_name="ocr")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for value in ({"image": str(path)}, {"image": f"{address}/a.png"}, {"text": ""}, 3):
        with pytest.raises(Refused) as error:
            server.encode(server.Request(["Trời mưa.", value]))
        assert error.value.args[0] == 422
    with pytest.raises(Refused):
        server.encode(server.Request(["Trời mưa."], "không có"))
    with pytest.raises(Refused) as error:
        server.encode(server.Request(["Trời mưa."], "\ud800"))
    assert error.value.args[1].encode()  # what FastAPI does with it
    assert server.encode(server.Request([])) == [] and not asked
