"""Rows with videos from the check to the saved model, with the stock trainer and evaluator."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from st_vi import DLELoss, build_vipolyqwen, load
from st_vi.data.generated.clips import clip_rows
from st_vi.recipes import train_vipolyqwen, vipolyqwen_evaluator
from st_vi.tasks import PREFIXES, VIDEO_TASK, VIPOLYQWEN_TASKS
from tests.helpers.command_line import st_vi
from tests.helpers.one_epoch import SETTINGS
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

TASKS = (*VIPOLYQWEN_TASKS, VIDEO_TASK)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny"))


def built(base, **settings):
    return build_vipolyqwen(
        base, embedding_dimension=16, max_pixels=8 * 28 * 28, prefixes=(*PREFIXES, VIDEO_TASK.prefix), **settings
    )


@pytest.mark.slow
def test_trained_measured_and_loaded(base, tmp_path):
    model = built(base)
    rows = DatasetDict(
        clips=clip_rows("train", 4, seed=0, negatives=True, size=48),
        captions=clip_rows("train", 2, seed=1, direction="video_to_text", negatives=True, size=48),
    )
    held_out = DatasetDict(clips=clip_rows("test", 4, seed=0, size=48))
    evaluator = vipolyqwen_evaluator(held_out)
    assert evaluator.prompt_names == {"clips": "video"}
    trainer = train_vipolyqwen(
        model, rows, tmp_path / "out", evaluator, loss=DLELoss(model, tasks=TASKS), **SETTINGS | {"save_steps": 3}
    )
    logged = [entry["video_info_nce"] for entry in trainer.state.log_history if "video_info_nce" in entry]
    assert len(logged) == 3 and all(float(value) > 0 for value in logged)
    loaded = load(str(tmp_path / "out"))
    clip = {"video": held_out["clips"]["positive_video"][0], "text": "Gì?"}
    np.testing.assert_allclose(
        loaded.encode(clip, prompt_name="video"), model.encode(clip, prompt_name="video"), atol=1e-6
    )
    assert evaluator(loaded).keys() == evaluator(model).keys()


@pytest.mark.slow
def test_files_and_rows_without_a_video(base, tmp_path):
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (28, 28), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    path = tmp_path / "phim.gif"
    path.write_bytes(buffer.getvalue())
    for video in (str(path), [str(path.with_name(f"{n}.png")) for n in range(2)]):
        for number, frame in enumerate(frames):
            frame.save(path.with_name(f"{number}.png"))
        rows = [
            {"anchor": "Đỏ rồi xanh.", "positive": "", "positive_video": video, "task": "video"},
            {"anchor": "Trời mưa.", "positive": "Có mưa.", "positive_video": None, "task": "instr"},
        ]
        model = built(base)
        folder = tmp_path / type(video).__name__
        loss = DLELoss(model, tasks=TASKS)
        trainer = train_vipolyqwen(model, Dataset.from_list(rows), folder, loss=loss, **SETTINGS)
        assert trainer.state.global_step == 1 and (folder / "README.md").is_file()


@pytest.mark.slow
def test_rows_with_videos_bring_their_task_into_the_default_loss(base, tmp_path):
    clips = clip_rows("train", 4, seed=0, negatives=True, size=48)
    frames = [tmp_path / f"{number}.png" for number in range(2)]
    for frame, colour in zip(frames, ("red", "blue"), strict=True):
        Image.new("RGB", (28, 28), colour).save(frame)
    video = [frame.name for frame in frames]
    lines = [{"anchor": "Đỏ rồi xanh.", "positive": "", "positive_video": video, "task": "video"}] * 2
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    model = build_vipolyqwen(base, embedding_dimension=16, max_pixels=8 * 28 * 28)
    assert "video" not in model.prompts
    trainer = train_vipolyqwen(model, {"clips": clips}, tmp_path / "python", **SETTINGS)
    assert any("video_info_nce" in entry for entry in trainer.state.log_history)
    assert model.prompts["video"] == "<video> " and model.prompts["ocr"] == "<ocr> "
    result = st_vi(
        *("train", "vipolyqwen", "--base", base, "--train", tmp_path / "rows.jsonl", "--output", tmp_path / "shell"),
        *("--embedding-dimension", "16", "--max-steps", "1", "--accumulation", "1", "--eval", tmp_path / "rows.jsonl"),
    )
    assert result.exit_code == 0, result.output
    assert "video" in result.output and load(str(tmp_path / "shell")).prompts["video"] == "<video> "


def test_what_the_model_cannot_take_is_refused_before_the_first_step(base, tmp_path, tiny_model):
    rows = clip_rows("train", 2, seed=0, size=48)
    short = built(base, max_seq_length=12)
    with pytest.raises(ValueError, match=r"column 'positive_video', row 0: 1 video\(s\) of 8 frames are 18 tokens"):
        train_vipolyqwen(short, rows, tmp_path, loss=DLELoss(short, tasks=TASKS), **SETTINGS)
    with pytest.raises(ValueError, match="column 'positive_video', row 0: the model reads no videos"):
        train_vipolyqwen(tiny_model, rows, tmp_path, loss=DLELoss(tiny_model, tasks=TASKS), **SETTINGS)
    with pytest.raises(ValueError, match="evaluation row 0: the model reads no videos"):
        train_vipolyqwen(
            tiny_model,
            [{"anchor": "a", "positive": "b", "task": "instr"}],
            tmp_path,
            vipolyqwen_evaluator(rows),
            **SETTINGS,
        )
