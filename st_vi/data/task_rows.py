"""The check of rows of mixed tasks, before the first training step."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, isnan, nan
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from datasets import Dataset, DatasetDict, Image, IterableDataset, LargeList, List, Value

from st_vi.checks import check_choice
from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import candidate_columns, refuse_near_misses, say_what_is_left_out
from st_vi.data.formats import combine_rows
from st_vi.data.triplets import Report
from st_vi.data.values import (
    BadImageError,
    bad_value,
    class_of,
    images_of,
    model_input,
    score_of,
    shown,
    teacher_scores_of,
    teacher_vector_of,
    text_of,
)
from st_vi.files.lines import file_at
from st_vi.inputs.content import Size
from st_vi.inputs.kinds import is_missing, stored_images
from st_vi.inputs.pictures import bytes_in_text
from st_vi.tasks import VIPOLYQWEN_TASKS, Task

logger = logging.getLogger(__name__)

BadImage = Literal["error", "skip"]
Sizes = Mapping[str, Sequence[Size]]
"""The images and videos of a row: column to their sizes."""
Fits = Callable[[Sequence[Size]], None]
_FURTHER = ("score", "class", "teacher_scores", "task", "options")


class _Looked(NamedTuple):
    """What a check has seen of the rows that it let pass."""

    tasks: tuple[Task, ...]
    sizes: list[Sizes]
    vector_size: int | None


_looked: WeakKeyDictionary[Dataset, _Looked] = WeakKeyDictionary()
"""Rows that `check_task_rows` returned: the next check on their way opens no image again."""


def check_task_rows(
    dataset: Rows,
    tasks: Sequence[Task] = VIPOLYQWEN_TASKS,
    bad_image: BadImage = "error",
    fits: Fits | None = None,
) -> tuple[Dataset, Report]:
    """Check every row of mixed tasks: its task, texts, images, videos and score.

    None, NaN and blanks count as missing. A number may be written as text, as files without types store it. A warning
    names columns that are not used in training.

    Args:
        dataset: Columns anchor, positive, task, and where there are any score, anchor_image, anchor_video, …, further
            candidates, teacher_scores and teacher vectors; see `MixedTaskCollator`. Tasks whose terms look at each
            input alone (`TeacherCosine`) need no positive. For evaluators also options, lists of answers.
        tasks: The known tasks.
        bad_image: A row with an image or video that cannot be used is an "error", or is left out ("skip") with a
            warning.
        fits: Called with the (width, height) of all images and the (width, height, frames) of the video of an input;
            raises a ValueError where the model cannot take them, such as `Qwen2VLTransformer.check_length` for more
            visual tokens than it reads.

    Returns:
        The rows that can be trained on, with paths and bytes of images and frames as image columns and scores as
        numbers, NaN where there is none; and the number of rows of each task and of those skipped.

    Raises:
        ValueError: A missing column, an unknown task, neither text, image nor video, a text with one of Qwen2-VL's
            tokens for images in it, a score that is missing or not in [0, 1] on a task that needs one, teacher scores
            that are missing on such a task or not one finite number per candidate, a teacher's vector of another size,
            or none in a row of a task that needs one, no class on such a task, or one that is no whole number from 0
            on, an option that is no text, a bad image or video, or another `bad_image`.
            Names column, row (from 0) and value.
        ImportError: A video file needs a decoder, and none is installed.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import check_task_rows
        >>> rows = {"anchor": ["Trời mưa."], "positive": ["Có mưa."], "score": [4.5], "task": ["text_pair"]}
        >>> check_task_rows(Dataset.from_dict(rows))
        Traceback (most recent call last):
        ValueError: column 'score', row 0: expected a score between 0 and 1, got 4.5
    """
    dataset = as_dataset(dataset)
    columns = _checked_columns(dataset, tasks, bad_image)
    before = _looked_before(dataset, tasks)
    if not before:
        say_what_is_left_out(dataset.column_names, _used(columns))
    looked, numbers, scores = before or _look(dataset, tasks, columns, bad_image)
    fitting = [place for place, number in enumerate(numbers) if _fit(looked.sizes[place], number, bad_image, fits)]
    if skipped := len(dataset) - len(fitting):
        logger.warning(f"{skipped} of {len(dataset)} rows are left out: their images or videos cannot be used")
    rows = dataset.select([numbers[place] for place in fitting]) if skipped else dataset
    sizes = [looked.sizes[place] for place in fitting]
    if skipped or not before:
        rows = _typed(rows, [scores[place] for place in fitting], _pictured(sizes))
    _looked[rows] = looked._replace(sizes=sizes)
    found = Counter(rows["task"])
    counts = {task.name: found[task.name] for task in tasks} | {"skipped for a bad image": skipped}
    return rows, Report({name: count for name, count in counts.items() if count})


def _pictured(sizes: Sequence[Sizes]) -> set[str]:
    """The columns that have an image or a video in some row."""
    return {f"{name}_{kind}" for row in sizes for name, found in row.items() for kind in map(_kind, found)}


def _kind(size: Size) -> str:
    return "video" if len(size) == 3 else "image"


def combined(parts: Sequence[Dataset]) -> Dataset:
    """`combine_rows` of rows that `check_task_rows` returned; together they are checked rows too."""
    rows = combine_rows(*parts)
    looked = [_looked[part] for part in parts]
    if len({of_part.vector_size for of_part in looked} - {None}) < 2:
        sizes = [of_row for of_part in looked for of_row in of_part.sizes]
        size = next((of_part.vector_size for of_part in looked if of_part.vector_size), None)
        _looked[rows] = _Looked(looked[0].tasks, sizes, size)
    return rows


def _looked_before(dataset: Dataset, tasks: Sequence[Task]) -> tuple[_Looked, Sequence[int], Sequence[float]] | None:
    """What `_look` gave for the same rows, if it knew their tasks as they are here."""
    looked = _looked.get(dataset)
    if looked is None or dataset.format["type"] is not None:
        return None
    used = set(dataset["task"])
    if any(task not in tasks for task in looked.tasks if task.name in used):
        return None
    scores = dataset["score"][:] if "score" in dataset.column_names else [nan] * len(dataset)
    return looked, range(len(dataset)), scores


def _look(
    dataset: Dataset, tasks: Sequence[Task], columns: Sequence[str], bad_image: BadImage
) -> tuple[_Looked, Sequence[int], Sequence[float]]:
    """Check rows; the numbers and scores of those whose images can be read."""
    by_name = {task.name: task for task in tasks}
    numbers: list[int] = []
    scores: list[float] = []
    sizes: list[Sizes] = []
    vector_size = None
    for number, row in enumerate(undecoded(dataset)):
        task, score = _checked_values(row, number, by_name, columns)
        vector_size = _size_of_vectors(row, number, task, columns, vector_size)
        found = _sizes_of_pictures(row, number, columns, bad_image)
        if found is not None:
            numbers.append(number)
            scores.append(score)
            sizes.append(found)
    return _Looked(tuple(tasks), sizes, vector_size), numbers, scores


class ModelInputs(Sequence[Any]):
    """One column of checked rows as model inputs; images and videos are opened on access.

    Args:
        parts: Datasets, one after the other.
        column: "anchor", "positive" or another candidate.

    Example:
        >>> from datasets import Dataset, DatasetDict
        >>> from st_vi.data.task_rows import ModelInputs
        >>> inputs = ModelInputs(DatasetDict(a=Dataset.from_dict({"anchor": ["Trời mưa.", "Trời nắng."]})), "anchor")
        >>> len(inputs), inputs[1]
        (2, 'Trời nắng.')
    """

    def __init__(self, parts: DatasetDict, column: str) -> None:
        self.column = column
        wanted = (column, f"{column}_image", f"{column}_video")
        self.parts = {
            name: undecoded(part.select_columns([name for name in wanted if name in part.column_names]))
            for name, part in parts.items()
        }
        self.places = [(name, row) for name, part in self.parts.items() for row in range(len(part))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        name, row = self.places[place]
        try:
            return model_input(self.parts[name][row], self.column)
        except ValueError as error:
            raise ValueError(f"{name}, column {self.column!r}, row {row}: {error}") from error


def task_stream(
    rows: IterableDataset,
    tasks: Sequence[Task],
    bad_image: BadImage = "error",
    fits: Fits | None = None,
) -> IterableDataset:
    """A stream that checks each row when it comes, like `check_task_rows`.

    Raises:
        ValueError: A missing column, or another `bad_image`; and, from the stream, what `check_task_rows` raises.
    """
    by_name = {task.name: task for task in tasks}
    columns = _checked_columns(rows, tasks, bad_image)
    say_what_is_left_out(rows.column_names, _used(columns))

    def is_good(row: Mapping[str, Any], number: int) -> bool:
        task, _ = _checked_values(row, number, by_name, columns)
        _size_of_vectors(row, number, task, columns, None)
        sizes = _sizes_of_pictures(row, number, columns, bad_image)
        return sizes is not None and _fit(sizes, number, bad_image, fits)

    return undecoded(rows).filter(is_good, with_indices=True)


def _checked_columns(rows: Dataset | IterableDataset, tasks: Sequence[Task], bad_image: BadImage) -> tuple[str, ...]:
    """The anchor's column, and those of its candidates."""
    check_choice("bad_image", bad_image, BadImage)
    if isinstance(tasks, str) or not all(isinstance(task, Task) for task in tasks):
        raise ValueError(f"tasks must be a list of st_vi.Task, got {shown(tasks)}")
    candidates = candidate_columns(rows.column_names)
    needs_positive = bool(candidates) or any(task.needs_positive for task in tasks)
    for name in ("anchor", *(["positive"] if needs_positive else []), "task"):
        if name not in rows.column_names:
            raise ValueError(f"missing column {name!r}; the columns are {rows.column_names}")
    columns = ("anchor", *candidates)
    refuse_near_misses(rows.column_names, _used(columns))
    return columns


def _used(columns: Sequence[str]) -> list[str]:
    """All columns that rows with these texts may have."""
    beside = ("", "_image", "_video", "_teacher")
    return [*(column + of_it for column in columns for of_it in beside), *_FURTHER]


def _checked_values(
    row: Mapping[str, Any], number: int, by_name: Mapping[str, Task], columns: Sequence[str]
) -> tuple[Task, float]:
    """The task of a row, and its score."""
    if not isinstance(row["task"], str) or row["task"] not in by_name:
        bad_value("task", number, row["task"], f"expected one of {list(by_name)}")
    task = by_name[row["task"]]
    score = _score(row, number, task)
    if task.needs_class and isnan(class_of(row, number)):
        bad_value("class", number, row.get("class"), "expected the number of a class, from 0 on")
    _check_teacher_scores(row, number, task, columns[1:])
    check_options(row, number)
    return task, score


def _sizes_of_pictures(
    row: Mapping[str, Any], number: int, columns: Sequence[str], bad_image: BadImage
) -> Sizes | None:
    """Texts and images of a row are looked at; None for a row to leave out."""
    sizes = {}
    for column in columns:
        try:
            text, images = text_of(row, column), images_of(row, column)
            if not text and not images:
                raise ValueError(f"expected text, an image or a video, got {shown(row[column])}")
        except BadImageError as error:
            if bad_image == "skip":
                return None
            raise _bad_image(error.column, number, error) from error
        except ImportError as error:
            raise ImportError(f"column '{column}_video', row {number}: {error}") from error
        except ValueError as error:
            raise ValueError(f"column {column!r}, row {number}: {error}") from error
        if images:
            sizes[column] = [(*one[0].size, len(one)) if isinstance(one, list) else one.size for one in images]
    return sizes


def _fit(sizes: Sizes, number: int, bad_image: BadImage, fits: Fits | None) -> bool:
    for column, of_column in sizes.items():
        try:
            if fits is not None:
                fits(of_column)
        except ValueError as error:
            if bad_image == "skip":
                return False
            raise _bad_image(f"{column}_{min(map(_kind, of_column))}", number, error) from error
    return True


def _bad_image(column: str, number: int, error: ValueError) -> ValueError:
    return ValueError(
        f"column {column!r}, row {number}: {error} (bad_image='skip', or --skip-bad-images, leaves such rows out)"
    )


def undecoded(dataset: Any) -> Any:
    """The same rows with images and frames as bytes or paths, so that none is opened before it is needed.

    Args:
        dataset: A `Dataset`, an `IterableDataset` with known features, or a `DatasetDict`.
    """
    if isinstance(dataset, DatasetDict):
        return DatasetDict({name: undecoded(part) for name, part in dataset.items()})
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(feature, (List, LargeList)) and isinstance(feature.feature, Image):
            dataset = dataset.cast_column(name, type(feature)(Image(decode=False)))
    return dataset


def _typed(dataset: Dataset, scores: Sequence[float], pictured: set[str]) -> Dataset:
    """Columns as the stock trainer and its model card can take them.

    The card compares the values of a column, and stumbles over None among numbers; it takes strings for text, so
    paths become an image column; one without a single image would be a column of None; and a list is one, if empty.
    """
    order = dataset.column_names
    if "score" in order:
        dataset = dataset.remove_columns("score").add_column("score", list(scores), feature=Value("float64"))
    for name in [name for name in order if name.endswith("_video")]:
        if name not in pictured and len(dataset):
            dataset = dataset.remove_columns(name)
        elif isinstance(dataset.features[name], (List, LargeList)):
            lists = [[*map(Image().encode_example, frames or ())] for frames in undecoded(dataset)[name]]
            dataset = dataset.remove_columns(name).add_column(name, lists, feature=List(Image()))
    for name in [name for name in order if name.endswith("_image")]:
        kind = getattr(dataset.features[name], "dtype", None)
        if name not in pictured and len(dataset):
            dataset = dataset.remove_columns(name)
        elif isinstance(dataset.features[name], (List, LargeList)):
            lists = [
                [Image().encode_example(_stored(image)) for image in stored_images(v)] for v in undecoded(dataset)[name]
            ]
            dataset = dataset.remove_columns(name).add_column(name, lists, feature=List(Image()))
        elif kind in ("string", "large_string"):
            images = [None if is_missing(one) else Image().encode_example(_stored(one)) for one in dataset[name]]
            dataset = dataset.remove_columns(name).add_column(name, images, feature=Image())
        elif kind in ("binary", "large_binary"):
            dataset = dataset.cast_column(name, Value("binary")).cast_column(name, Image())
    return dataset.select_columns([name for name in order if name in dataset.column_names])


def _stored(image: Any) -> Any:
    """A path as it is written on the disk, and base64 as bytes: so `datasets` and stock's model card open them, too."""
    if not isinstance(image, str):
        return image
    data = bytes_in_text(image)
    return str(file_at(image) or image) if data is None else data


def _score(row: Mapping[str, Any], number: int, task: Task) -> float:
    score = score_of(row, number)
    if isnan(score) and task.needs_score:
        bad_value("score", number, row.get("score"), "expected a score between 0 and 1")
    return score


def _check_teacher_scores(row: Mapping[str, Any], number: int, task: Task, candidates: Sequence[str]) -> None:
    scores: Any = row.get("teacher_scores")
    if is_missing(scores) and not task.needs_teacher:
        return
    as_many = isinstance(scores, list) and len(scores) == len(candidates)
    known = teacher_scores_of(row, candidates, number) if as_many else None
    if known is None or (task.needs_teacher and not all(map(isfinite, known))):
        expected = f"expected {len(candidates)} numbers, one for each positive and negative"
        bad_value("teacher_scores", number, scores, expected)


def _size_of_vectors(
    row: Mapping[str, Any], number: int, task: Task, columns: Sequence[str], size: int | None
) -> int | None:
    """The common size of all teacher's vectors up to this row; None if there were none."""
    found = False
    for column in columns:
        vector = teacher_vector_of(row, column, number, size)
        if vector is not None:
            found, size = True, len(vector)
    if task.needs_teacher_vectors and not found:
        bad_value("anchor_teacher", number, None, "expected a teacher's vector of this text, or of another of the row")
    return size


def check_options(row: Mapping[str, Any], number: int) -> None:
    """Raise the ValueError of a row whose options are no list of texts; it may have none."""
    options = row.get("options")
    if is_missing(options):
        return
    try:
        if isinstance(options, list) and all(text_of({"options": one}, "options") for one in options):
            return
    except ValueError as error:
        raise ValueError(f"column 'options', row {number}: {error}") from error
    bad_value("options", number, options, "expected a list of texts")
