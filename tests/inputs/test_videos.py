"""Videos: every form gives the same frames, and what is none is one clear line."""

from __future__ import annotations

import io
import types

import numpy as np
import pytest
from PIL import Image

from st_vi.inputs.content import content_key, picture_sizes
from st_vi.inputs.kinds import read_input
from st_vi.inputs.lazy import LazyInputs, image_key
from st_vi.inputs.videos import StoredVideo, open_video, video_size
from st_vi.stock import videos as readers

COLOURS = ("red", "lime", "blue", "white", "black")
FRAMES = [Image.new("RGB", (8, 6), colour) for colour in COLOURS]


def saved(kind, frames=FRAMES, **options):
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def png(frame):
    buffer = io.BytesIO()
    frame.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def forms(tmp_path):
    """The same video in every form."""
    webp = saved("WEBP", lossless=True)
    (tmp_path / "phim.webp").write_bytes(webp)
    (tmp_path / "phim.png").write_bytes(saved("PNG"))
    for number, frame in enumerate(FRAMES):
        frame.save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(len(FRAMES))]
    arrays = np.stack([np.array(frame) for frame in FRAMES])
    return [
        FRAMES,
        tuple(FRAMES),
        [str(path) for path in paths],
        [png(FRAMES[0]), *paths[1:]],
        [{"bytes": png(frame), "path": None} for frame in FRAMES],
        arrays,
        arrays.transpose(0, 3, 1, 2),
        webp,
        str(tmp_path / "phim.webp"),
        tmp_path / "phim.png",
        {"bytes": None, "path": str(tmp_path / "phim.webp")},
        saved("GIF"),
    ]


def test_every_form_gives_the_same_frames(forms):
    keys = set()
    for form in forms:
        frames = open_video(form)
        assert [frame.mode for frame in frames] == ["RGB"] * len(FRAMES)
        for frame, expected in zip(frames, FRAMES, strict=True):
            np.testing.assert_array_equal(np.array(frame), np.array(expected))
        assert video_size(form) == (8, 6, 5)
        keys.add(content_key({"video": form}))
        assert image_key(StoredVideo(form)) == image_key(StoredVideo(form))
    assert len(keys) == 1 and picture_sizes(keys.pop()) == [(8, 6, 5)]


def test_only_partly_drawn_frames_are_whole():
    """A GIF stores what changes; Pillow's frames are put together, and transparency is white."""
    first, second = Image.new("RGBA", (8, 6), "red"), Image.new("RGBA", (8, 6), "red")
    second.putpixel((3, 3), (0, 0, 255, 255))
    opened = open_video(saved("GIF", [first, second, first]))
    assert [frame.getpixel((3, 3)) for frame in opened] == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert {frame.getpixel((0, 0)) for frame in opened} == {(255, 0, 0)}


def test_the_order_of_frames_is_content():
    same, reverse = (content_key({"video": frames}) for frames in (list(FRAMES), FRAMES[::-1]))
    assert content_key({"video": FRAMES}) == same != reverse
    assert len({same, content_key({"image": FRAMES}), content_key({"video": FRAMES, "text": "Gì?"})}) == 3
    two = content_key({"video": [FRAMES, FRAMES[:2]], "image": FRAMES[0]})
    assert sorted(picture_sizes(two)) == [(8, 6), (8, 6, 2), (8, 6, 5)]


def test_inputs_of_the_model():
    opened = read_input({"video": FRAMES, "text": "Gì?"})
    assert opened["video"] == FRAMES and opened["text"] == "Gì?"
    several = read_input({"video": [FRAMES, FRAMES[:2]]})["video"]
    assert [len(frames) for frames in several] == [5, 2]
    metadata = {"fps": 2.0, "total_num_frames": 5}
    kept = read_input({"video": {"array": FRAMES, "video_metadata": metadata}})["video"]
    assert kept["array"] == FRAMES and kept["video_metadata"] is metadata
    part = {"type": "video", "video": FRAMES}
    assert read_input({"role": "user", "content": [part]})[0]["content"][0]["video"] == FRAMES


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the video has no frames"),
        (np.zeros((0, 4, 4, 3)), "the video has no frames"),
        (FRAMES[:1], "at least 2 frames, got 1: give a single one as an image"),
        (png(FRAMES[0]), "at least 2 frames, got 1"),
        (FRAMES * 200, "1000 frames, and at most 768 are read"),
        ([FRAMES[0], FRAMES[1].resize((4, 3))], "frame 1 is 4 × 3, frame 0 is 8 × 6"),
        ([FRAMES[0], "thiếu.png"], r"frame 1 of the video: cannot read the image 'thiếu.png'"),
        ([FRAMES[0], saved("GIF")], "frame 1 of the video: it has several frames itself: give such a file alone"),
        ("thiếu.gif", "there is no video 'thiếu.gif'"),
        ("https://a.vn/phim.gif", "not fetched from the web here"),
        (FRAMES[0], "expected a list of frames"),
        (3, "expected a list of frames"),
        (np.full((2, 4, 4, 3), np.nan), "frame 0 of the video"),
    ],
)
def test_what_is_no_video(value, message):
    with pytest.raises(ValueError, match=message) as error:
        open_video(value)
    assert "\n" not in str(error.value)


def test_pages_and_views_are_no_frames():
    """Photographs of some cameras are MPO, with a second view; a TIFF may have pages."""
    two = [frame.copy() for frame in FRAMES[:2]]  # Pillow leaves its settings in what it saves; 11.0 writes two views
    photograph = saved("MPO", two)
    frames = open_video([photograph, FRAMES[1]])
    assert len(frames) == 2 and frames[0].getpixel((0, 0))[0] > 200
    for kind in ("MPO", "TIFF"):
        with pytest.raises(ValueError, match="at least 2 frames, got 1"):
            open_video(saved(kind, [frame.copy() for frame in two]))


def test_a_broken_animation_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    whole = saved("PNG", [Image.fromarray(one) for one in noise])
    with pytest.raises(ValueError, match=r"cannot read the video b'\\x89PNG"):
        open_video(whole[: len(whole) // 2])


def test_absent_and_empty_are_told_apart():
    assert read_input({"text": "a", "video": None}) == {"text": "a"}
    with pytest.raises(ValueError, match="the video has no frames"):
        read_input({"text": "a", "video": []})


# Video files, whose decoders need not be installed


def decoder(frames, fps):
    """In place of one of stock's readers: the frames that the sampler asks for, of a file with `frames` frames."""

    def read(file, sample):
        metadata = types.SimpleNamespace(total_num_frames=frames, fps=fps)
        asked.append(sample(metadata=metadata))
        return np.stack([np.full((6, 8, 3), number, dtype=np.uint8) for number in asked[-1]]), metadata

    asked = []
    return read, asked


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [
        (60, 30, [0, 20, 39, 59]),
        (10, 2, list(range(10))),
        (3, 30, [0, 1, 2]),
        (240, 24, [i * 239 / 19 for i in range(20)]),
    ],
)
def test_two_frames_a_second_of_a_video_file(monkeypatch, tmp_path, frames, fps, expected):
    read, asked = decoder(frames, fps)
    monkeypatch.setattr(readers, "VIDEO_DECODERS", {"pyav": read})
    monkeypatch.setattr(readers, "_USABLE", {"torchcodec": lambda: False, "pyav": lambda: True})
    path = tmp_path / "phim.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    for form in (str(path), path, path.read_bytes()):
        opened = open_video(form)
        np.testing.assert_allclose(asked[-1], expected, atol=0.5)
        assert [frame.getpixel((0, 0))[0] for frame in opened] == asked[-1]
    assert read_input(str(path))["video"][0].size == (8, 6)
    assert video_size(path) == (8, 6, len(expected))


def test_a_video_file_without_a_decoder_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(readers, "_USABLE", {"pyav": lambda: False})
    path = tmp_path / "phim.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(ImportError, match=r"phim.mp4': it needs a video decoder: pip install torchcodec"):
        open_video(path)


def test_a_video_that_the_decoder_cannot_read(monkeypatch, tmp_path):
    def read(file, sample):
        raise RuntimeError("no video stream")

    monkeypatch.setattr(readers, "VIDEO_DECODERS", {"pyav": read})
    monkeypatch.setattr(readers, "_USABLE", {"pyav": lambda: True})
    with pytest.raises(ValueError, match=r"cannot read the video b'abc'…: no video stream"):
        open_video(b"abc")


def test_a_decoder_that_gives_one_frame_of_many(monkeypatch):
    monkeypatch.setattr(readers, "VIDEO_DECODERS", {"pyav": lambda *_: (np.zeros((1, 6, 8, 3), np.uint8), None)})
    monkeypatch.setattr(readers, "_USABLE", {"pyav": lambda: True})
    with pytest.raises(ValueError, match="a video needs at least 2 frames, got 1"):
        open_video(b"abc")


def test_a_file_that_does_not_count_its_frames(monkeypatch):
    """As PyAV reads mkv and webm."""
    monkeypatch.setattr(readers, "VIDEO_DECODERS", {"pyav": decoder(0, 24)[0]})
    monkeypatch.setattr(readers, "_USABLE", {"pyav": lambda: True})
    with pytest.raises(ValueError, match="does not say how many frames it has: convert it to mp4"):
        open_video(b"abc")


def test_lazy_inputs_open_videos_late(tmp_path):
    path = tmp_path / "phim.webp"
    path.write_bytes(saved("WEBP", lossless=True))
    inputs = LazyInputs("positive", ["Gì?", ""], [[FRAMES[0], StoredVideo(str(path))], [StoredVideo(FRAMES)]])
    assert inputs.image_sizes(0, {}) == [(8, 6), (8, 6, 5)]
    known = {}
    assert inputs.opened(0, known) == {"text": "Gì?", "image": FRAMES[0], "video": FRAMES}
    assert inputs.opened(1, known) == {"video": FRAMES}
    path.write_bytes(b"")
    assert inputs.opened(0, known)["video"] == FRAMES  # not opened again
    with pytest.raises(ValueError, match="row 0 of the batch, column 'positive': cannot read the video"):
        inputs.opened(0, {})
