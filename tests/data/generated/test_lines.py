"""Lines of text as thin images: what is written in which cell."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from st_vi.data.generated.lines import CELL, TEST_FACES, TRAIN_FACES, draw_lines

TEXT = "Hôm nay trời mưa rất to, đường phố ngập sâu và nhiều xe chết máy giữa dòng nước."


def contrast(pixels):
    """How far each pixel is from the paper, which is the most common colour."""
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return np.abs(pixels.astype(int) - colours[counts.argmax()]).sum(axis=2)


@pytest.mark.parametrize("seed", range(6))
def test_ink_is_where_the_boxes_say(seed):
    drawn = draw_lines(TEXT, Random(seed), noise=0.0)
    height, width, _ = drawn.pixels.shape
    assert height % CELL == width % CELL == 0
    inside = np.zeros((height, width), dtype=bool)
    for left, top, right, bottom in drawn.boxes:
        inside[int(top) : int(np.ceil(bottom)), max(0, int(left) - 3) : int(np.ceil(right)) + 3] = True
    ink = contrast(drawn.pixels) > 60
    assert ink.any() and not (ink & ~inside).any()
    written = [box for box, letter in zip(drawn.boxes, TEXT, strict=True) if not letter.isspace()]
    assert all(right > left and bottom > top for left, top, right, bottom in written)


def test_coverage_is_the_area_of_the_boxes():
    drawn = draw_lines(TEXT, Random(3), noise=0.0)
    covered = drawn.coverage()
    rows, columns = drawn.pixels.shape[0] // CELL, drawn.pixels.shape[1] // CELL
    assert covered.shape == (rows * columns, len(TEXT)) and rows > 1
    place = TEXT.index("phố") + 1
    left, top, right, bottom = drawn.boxes[place]
    for cell in range(rows * columns):
        row, column = divmod(cell, columns)
        wide = max(0.0, min(right, CELL * (column + 1)) - max(left, CELL * column))
        high = max(0.0, min(bottom, CELL * (row + 1)) - max(top, CELL * row))
        assert covered[cell, place] == pytest.approx(wide * high)
    assert not covered[:, TEXT.index(" ")].any()


def test_one_line_is_one_cell_high_and_seeds_decide():
    drawn = [draw_lines("Quán phở Hoa Sữa", Random(seed)) for seed in (0, 0, 1)]
    assert {one.pixels.shape[0] for one in drawn} == {CELL}
    assert (drawn[0].pixels == drawn[1].pixels).all()
    assert drawn[0].pixels.shape != drawn[2].pixels.shape or (drawn[0].pixels != drawn[2].pixels).any()
    assert draw_lines("Quán phở", Random(0), columns=9, rows=2).pixels.shape == (2 * CELL, 9 * CELL, 3)
    assert not set(TEST_FACES) & set(TRAIN_FACES)


def test_what_has_no_room_is_refused():
    with pytest.raises(ValueError, match="empty"):
        draw_lines("  ", Random(0))
    with pytest.raises(ValueError, match="wider than the image"):
        draw_lines("Nghiêng", Random(0), columns=1)
    with pytest.raises(ValueError, match="does not fit into 1 x 14 cells"):
        draw_lines(TEXT, Random(0), columns=14, rows=1)
