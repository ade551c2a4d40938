"""Rows with a video: what becomes of them in a batch, in checks and in training, and what stops them before."""

from __future__ import annotations

import io

import pytest
from datasets import Dataset, DatasetDict, List
from datasets import Image as ImageFeature
from PIL import Image

from st_vi import MixedTaskCollator
from st_vi.data import check_task_rows, split_by_anchor
from st_vi.data.formats import combine_rows
from st_vi.data.sources import task_rows
from st_vi.data.task_rows import ModelInputs, combined, undecoded
from st_vi.inputs import videos
from st_vi.inputs.content import content_key
from st_vi.inputs.lazy import LazyInputs
from st_vi.tasks import VIDEO_TASK, VIPOLYQWEN_TASKS

TASKS = (*VIPOLYQWEN_TASKS, VIDEO_TASK)
FRAMES = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]


def row(**fields):
    return {"anchor": "Hình đỏ.", "positive": "", "task": "video"} | fields


def pixels(column):
    """A column of videos, comparable."""
    return [clip and [content_key(frame) for frame in clip] for clip in column]


def collate(rows, **settings):
    return MixedTaskCollator(lambda inputs: {"inputs": inputs}, tasks=TASKS, **settings)(rows)


def animated(frames=FRAMES):
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "phim.webp").write_bytes(animated())
    return tmp_path / "phim.webp"


def test_videos_become_stock_inputs(path):
    rows = [
        row(positive_video=FRAMES),
        row(positive_video=str(path), anchor_image=FRAMES[0]),
        row(positive_video=animated(), positive="Gì?", negative_video=FRAMES[::-1]),
        row(positive="Chữ.", positive_video=None),
        row(positive="Chữ.", positive_video="", anchor_video=FRAMES),
        row(positive="Chữ.", positive_video=[]),
    ]
    rows = [{"negative": "Sai.", **one} for one in rows]
    batch = collate(rows)
    assert batch["label"][:, 0].tolist() == [5] * 6
    video = {"video": FRAMES}
    assert batch["positive_inputs"] == [video, video, {"text": "Gì?"} | video, "Chữ.", "Chữ.", "Chữ."]
    assert batch["negative_inputs"][2] == {"text": "Sai.", "video": FRAMES[::-1]}
    prefixed = "<video> Hình đỏ."
    image = {"text": prefixed, "image": FRAMES[0]}
    assert batch["anchor_inputs"] == [prefixed, image, prefixed, prefixed, {"text": prefixed} | video, prefixed]
    alone = collate([row(anchor="", anchor_video=FRAMES, positive="Chữ.")])
    assert alone["anchor_inputs"] == [{"text": "<video>"} | video]


def test_a_text_that_is_the_path_of_a_video_stays_text(tmp_path):
    path = tmp_path / "phim.mp4"
    path.write_bytes(b"")
    assert collate([row(positive=str(path))])["positive_inputs"] == [{"text": str(path)}]


def test_lazy_videos_are_not_opened(path, monkeypatch):
    def preprocess(inputs):
        raise AssertionError("not yet")

    monkeypatch.setattr(videos, "open_image", preprocess)
    batch = MixedTaskCollator(preprocess, tasks=TASKS, lazy_images=True)([row(positive_video=str(path))])
    inputs = batch["positive_input_ids"]
    assert isinstance(inputs, LazyInputs)
    monkeypatch.undo()
    assert inputs.opened(0, {}) == {"video": FRAMES}


BAD = [
    (FRAMES[:1], "at least 2 frames, got 1"),
    ([FRAMES[0], FRAMES[1].resize((4, 4))], "frame 1 is 4 × 4"),
    ("thieu.gif", "there is no video 'thieu.gif'"),
    (FRAMES * 300, "900 frames, and at most 768"),
]


@pytest.mark.parametrize(("video", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_videos_name_row_and_field(video, message):
    with pytest.raises(ValueError, match=rf"row 1 of the batch, column 'positive': .*{message}") as error:
        collate([row(positive_video=FRAMES), row(positive_video=video)])
    assert "\n" not in str(error.value)
    good = "phim.webp" if isinstance(video, str) else FRAMES
    rows = Dataset.from_list([row(positive="Chữ.", positive_video=video), row(positive_video=good)])
    with pytest.raises(ValueError, match=rf"column 'positive_video', row 0: .*{message}.*bad_image='skip'") as error:
        check_task_rows(rows.select([0]), TASKS)
    assert "\n" not in str(error.value)
    if not isinstance(video, str):
        kept, report = check_task_rows(rows, TASKS, bad_image="skip")
        assert pixels(kept["positive_video"]) == pixels([FRAMES])
        assert report == {"video": 1, "skipped for a bad image": 1}


@pytest.mark.parametrize("video", [[], None, "", {"bytes": None, "path": None}])
def test_no_frames_and_no_text_name_row_and_field(video):
    with pytest.raises(ValueError, match=r"row 0 of the batch, column 'positive': .* neither text nor image nor video"):
        collate([row(positive_video=video)])
    with pytest.raises(ValueError, match="column 'positive', row 0: expected text, an image or a video, got ''"):
        check_task_rows([row(positive_video=video)], TASKS)


def test_an_odd_number_of_frames_is_fine():
    rows, _ = check_task_rows([row(positive_video=FRAMES), row(positive_video=FRAMES[:2])], TASKS)
    assert [len(frames) for frames in rows["positive_video"]] == [3, 2]


def test_too_long_for_the_model_names_row_and_field():
    def fits(sizes):
        if any(size[2:] > (2,) for size in sizes):
            raise ValueError(f"too long: {sizes}")

    rows = [row(positive_video=FRAMES[:2]), row(positive_video=FRAMES)]
    with pytest.raises(ValueError, match=r"column 'positive_video', row 1: too long: \[\(8, 6, 3\)\]"):
        check_task_rows(rows, TASKS, fits=fits)
    assert len(check_task_rows(rows, TASKS, "skip", fits)[0]) == 1


def test_a_missing_decoder_is_no_bad_row(tmp_path, monkeypatch):
    from st_vi.stock import videos as readers

    monkeypatch.setattr(readers, "_USABLE", {})
    (tmp_path / "phim.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    rows = [row(positive_video=str(tmp_path / "phim.mp4"))]
    with pytest.raises(ImportError, match=r"column 'positive_video', row 0: .*pip install torchcodec"):
        check_task_rows(rows, TASKS, bad_image="skip")
    with pytest.raises(ImportError, match=r"row 0 of the batch, column 'positive': .*pip install torchcodec"):
        collate(rows)


def test_checked_and_combined(path):
    frames = Dataset.from_list([row(positive_video=FRAMES), row(positive="Chữ.", positive_video=None)])
    checked, _ = check_task_rows(frames, TASKS)
    assert checked.features["positive_video"] == List(ImageFeature())
    assert pixels(checked["positive_video"]) == pixels([FRAMES, []])
    assert isinstance(undecoded(checked)["positive_video"][0][0], dict)
    texts, _ = check_task_rows(Dataset.from_list([row(positive="Chữ.", task="instr")]), TASKS)
    both = combined([checked, texts])
    assert pixels(both["positive_video"]) == pixels([FRAMES, [], []])
    assert both["task"][:] == ["video", "video", "instr"]
    files, _ = check_task_rows([row(positive_video=str(path))], TASKS)
    assert files["positive_video"][:] == [str(path)]
    with pytest.raises(ValueError, match="'positive_video' has lists of frames in one set and files in another"):
        combine_rows(checked, files)
    no_video = Dataset.from_list([row(positive="Chữ.", positive_video=None)])
    assert "positive_video" not in check_task_rows(no_video, TASKS)[0].column_names


def test_rows_of_a_file_have_paths_relative_to_it(path):
    path.with_name("rows.jsonl").write_text(
        '{"anchor": "Hình.", "positive": "", "positive_video": "phim.webp", "task": "video"}\n', encoding="utf-8"
    )
    rows, _ = task_rows([path.with_name("rows.jsonl")], tasks=TASKS)
    assert rows["positive_video"][:] == [str(path)]
    assert ModelInputs(DatasetDict(rows=rows), "positive")[0] == {"video": FRAMES}


def test_clips_that_are_equal_are_on_one_side_of_a_split():
    clips = [[frame.resize((8 + n, 6)) for frame in FRAMES] for n in range(8)]
    rows = Dataset.from_list([row(anchor="", anchor_video=clip, positive=str(n)) for clip in clips for n in range(3)])
    sides = split_by_anchor(rows, test_size=0.5)
    widths = {name: {frames[0].width for frames in part["anchor_video"]} for name, part in sides.items()}
    assert widths["train"] and widths["test"] and not widths["train"] & widths["test"]
