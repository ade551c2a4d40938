"""Clips: what the caption says is read off the pixels of the frames, and the reverse has the opposite caption."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from st_vi.data import check_task_rows
from st_vi.data.generated.clips import CHANGES, Clip, clip_caption, clip_rows, clips, draw_clip
from st_vi.data.generated.scenes import BACKGROUND, COLOURS, KINDS, Shape
from st_vi.tasks import VIDEO_TASK, VIPOLYQWEN_TASKS

SOME = [clip for split in ("train", "test") for clip in clips(split)[::61]]
STAR = Shape("ngôi sao", "đỏ", "to", (0, 0))
COLOUR = f"({'|'.join(COLOURS)})"


def seen(frame):
    """Centre (row, column) as a share of the frame, area and commonest colour of what stands out."""
    pixels = np.asarray(frame).astype(int)
    inside = np.abs(pixels - BACKGROUND).sum(axis=-1) > 60
    rows, columns = inside.nonzero()
    found = Counter(map(tuple, pixels[inside].tolist())).most_common(1)[0][0]
    nearest = min(COLOURS, key=lambda name: np.abs(np.subtract(COLOURS[name], found)).sum())
    return (rows.mean() / len(pixels), columns.mean() / len(pixels)), int(inside.sum()), nearest


def holds(caption, frames):
    """Whether a caption is true of frames; it shares no code with the generator."""
    (first, last), areas, colours = zip(*map(seen, (frames[0], frames[-1])), strict=True)
    text = caption.lower()
    if found := re.search(rf"(?:từ|đang|lúc đầu) màu {COLOUR}(?:,| thì)?.* màu {COLOUR}\.", text):
        return found.groups() == colours and colours[0] != colours[1]
    if re.search(r"(?:một|sau thì) to\.|to dần", text):
        return areas[1] > 1.5 * areas[0]
    if re.search(r"(?:một|sau thì) nhỏ\.|nhỏ dần", text):
        return areas[0] > 1.5 * areas[1]
    (path,) = re.findall(r"từ (.+)\.", text)
    moved = {"trên xuống dưới": (2 / 3, 0), "trái sang phải": (0, 2 / 3)}
    moved |= {"dưới lên trên": (-2 / 3, 0), "phải sang trái": (0, -2 / 3)}
    return np.allclose(np.subtract(last, first), moved[path], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("clip", SOME, ids=lambda clip: f"{clip.change} {clip.start.name}")
def test_captions_are_true_and_wrong_for_the_reverse(clip):
    frames = draw_clip(clip)
    for seed in range(6):
        caption, opposite = clip_caption(clip, seed), clip_caption(clip.reversed, seed)
        assert holds(caption, frames) and not holds(caption, frames[::-1])
        assert holds(opposite, frames[::-1]) and not holds(opposite, frames)
        assert any(kind in caption.lower() for kind in KINDS)
        # The same wording for both: only what says the order differs.
        words, others = (re.findall(r"\w+", text.lower()) for text in (caption, opposite))
        assert abs(len(words) - len(others)) <= 1


def test_frames():
    clip = Clip(Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("hình tròn", "đỏ", "to", (0, 2)))
    frames = draw_clip(clip, frames=4, size=56)
    columns = [seen(frame)[0][1] for frame in frames]
    np.testing.assert_allclose(columns, [1 / 6, 7 / 18, 11 / 18, 5 / 6], atol=0.02)
    assert {frame.size for frame in frames} == {(56, 56)} and {frame.mode for frame in frames} == {"RGB"}
    grey = Clip(Shape("ngôi sao", "đỏ", "to", (1, 1)), Shape("ngôi sao", "đen", "to", (1, 1)))
    assert [seen(frame)[2] for frame in draw_clip(grey)] == ["đỏ"] * 4 + ["đen"] * 4
    for one in SOME:
        assert draw_clip(one.reversed) == draw_clip(one)[::-1]


def test_a_clip_and_its_reverse_are_on_one_side():
    train, test = set(clips("train")), set(clips("test"))
    assert not train & test and len(train) + len(test) == 3720
    for side in (train, test):
        assert {clip.reversed for clip in side} == side
        assert {clip.change for clip in side} == set(CHANGES)
    assert 0.15 < len(test) / 3720 < 0.25


@pytest.mark.parametrize("direction", ["text_to_video", "video_to_text"])
def test_rows(direction):
    rows = clip_rows("test", 12, seed=3, direction=direction, negatives=True)
    texts, video = ("anchor", "positive_video") if direction == "text_to_video" else ("positive", "anchor_video")
    assert Counter(rows["task"]) == {"video": 12}
    captions, videos = rows[texts][:], rows[video][:]
    assert len(set(captions)) == 12
    for number in range(12):
        assert holds(captions[number], videos[number]) and videos[number] == videos[number ^ 1][::-1]
        other = rows["negative_video"][number] if direction == "text_to_video" else rows["negative"][number]
        assert other == (videos[number ^ 1] if direction == "text_to_video" else captions[number ^ 1])
    assert rows.to_dict() == clip_rows("test", 12, 3, direction, negatives=True).to_dict()
    assert captions != clip_rows("test", 12, 4, direction)[texts][:]
    checked, report = check_task_rows(rows, (*VIPOLYQWEN_TASKS, VIDEO_TASK))
    assert report == {"video": 12} and checked.features == rows.features


def test_shuffled_rows_have_the_same_frames_in_another_order():
    ordered, shuffled = (clip_rows("test", 30, seed=0, shuffled=on) for on in (False, True))
    assert ordered["anchor"][:] == shuffled["anchor"][:]
    differs = 0
    for one, other in zip(ordered["positive_video"], shuffled["positive_video"], strict=True):
        frames, others = ([frame.tobytes() for frame in of_clip] for of_clip in (one, other))
        assert sorted(frames) == sorted(others)
        differs += frames != others
    assert differs > 25


def test_changes_come_in_turn_and_can_be_chosen():
    texts = clip_rows("test", 12, seed=0)["anchor"][:]
    kinds = [("đổi từ màu" in t or " màu" in t, bool(re.search(r"từ (trên|dưới|trái|phải)", t))) for t in texts]
    assert kinds[::2] == [(False, True), (False, False), (True, False)] * 2
    assert all("từ" in text for text in clip_rows("test", 8, seed=0, changes=["move"])["anchor"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_rows("dev", 2, 0), "split must be"),
        (lambda: clip_rows("test", 3, 0), "an even number from 2 to 830"),
        (lambda: clip_rows("test", 104, 0, changes=["move"]), "from 2 to 102"),
        (lambda: clip_rows("test", 2, 0, changes=["turn"]), "changes must be one of"),
        (lambda: clip_rows("test", 2, 0, "video"), "direction must be"),
        (lambda: draw_clip(SOME[0], frames=7), "an even number from 2 on, got 7"),
        (lambda: draw_clip(SOME[0], size=40), "at least 48"),
        (lambda: Clip(SOME[0].start, SOME[0].start), "exactly one of"),
        (lambda: Clip(STAR, replace(STAR, position=(0, 1))), "exactly one of"),
        (lambda: Clip(STAR, replace(STAR, colour="đen", size="nhỏ")), "exactly one of"),
        (lambda: Clip(STAR, replace(STAR, kind="hình tròn", size="nhỏ")), "exactly one of"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_shape_grows_from_frame_to_frame():
    small, large = (Shape("hình tròn", "đỏ", size, (1, 1)) for size in ("nhỏ", "to"))
    frames = [np.asarray(frame).astype(int) for frame in draw_clip(Clip(small, large))]
    areas = [int((np.abs(frame - frame[0, 0]).sum(axis=-1) > 0).sum()) for frame in frames]
    assert areas == sorted(areas) and len(set(areas)) == len(areas) and areas[-1] > 2 * areas[0]
