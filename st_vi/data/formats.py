"""The five kinds of viPolyQwen training data as rows for `MixedTaskCollator`.

Every function gives the columns anchor, positive and task; scored pairs also `score`, and rows
with images `anchor_image`. `combine_rows` joins them, and `check_task_rows` checks them row by row.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Image, LargeList, List, Value, concatenate_datasets

from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import candidate_columns, clean_text, find_columns
from st_vi.data.values import bad_value, number_of
from st_vi.inputs.kinds import is_missing

logger = logging.getLogger(__name__)

READING_QUESTION = "Trong ảnh có chữ gì?"

_TYPES = {"anchor": Value("string"), "positive": Value("string"), "score": Value("float64"), "task": Value("string")}
_NUMBERS = ("score", "class")  # NaN where there is none


def scored_pairs_to_rows(
    dataset: Rows,
    score_range: tuple[float, float],
    columns: Mapping[str, str] | None = None,
    task: str = "text_pair",
) -> Dataset:
    """Two texts and their similarity become anchor, positive and a score in [0, 1].

    Args:
        dataset: Rows with "sentence1", "sentence2" and "score".
        score_range: The lowest and highest possible score, such as (0, 5) for STS; they become 0 and 1.
        columns: Role to column name, for columns with unusual names.
        task: Name of the task.

    Raises:
        ValueError: A missing column, text that is empty or no string, or a score that is missing or out of range.

    Example:
        >>> from st_vi.data import sample_sts
        >>> from st_vi.data import scored_pairs_to_rows
        >>> rows = scored_pairs_to_rows(sample_sts(), score_range=(0, 5))
        >>> rows.column_names, max(rows["score"])
        (['anchor', 'positive', 'score', 'task'], 1.0)
    """
    dataset = as_dataset(dataset)
    low, high = _range(score_range)
    found = find_columns(dataset.column_names, ("sentence1", "sentence2", "score"), columns)
    rows = []
    for number, row in enumerate(dataset.select_columns(list(found.values()))):
        score = number_of(row[found["score"]])
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not low <= score <= high:
            bad_value(found["score"], number, row[found["score"]], f"expected a score between {low:g} and {high:g}")
        first, second = (clean_text(row[found[role]], found[role], number) for role in ("sentence1", "sentence2"))
        rows.append({"anchor": first, "positive": second, "score": (score - low) / (high - low), "task": task})
    return _text_rows(rows, *_TYPES)


def instructions_to_rows(dataset: Rows, columns: Mapping[str, str] | None = None, task: str = "instr") -> Dataset:
    """Instruction (with its input, where there is one) and output become anchor and positive.

    Args:
        dataset: Rows with "instruction", "output", and perhaps "input".
        columns: Role to column name.
        task: Name of the task.

    Raises:
        ValueError: A missing column, or an instruction or output that is empty or no string.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import instructions_to_rows
        >>> rows = Dataset.from_dict({"instruction": ["Dịch sang tiếng Anh."], "input": ["mưa"], "output": ["rain"]})
        >>> instructions_to_rows(rows)[0]
        {'anchor': 'Dịch sang tiếng Anh. mưa', 'positive': 'rain', 'task': 'instr'}
    """
    dataset = as_dataset(dataset)
    found = find_columns(dataset.column_names, ("instruction", "input", "output"), columns, optional=("input",))
    rows = []
    for number, row in enumerate(dataset.select_columns(list(found.values()))):
        anchor = clean_text(row[found["instruction"]], found["instruction"], number)
        if "input" in found and not is_missing(row[found["input"]]):
            anchor += " " + clean_text(row[found["input"]], found["input"], number)
        output = clean_text(row[found["output"]], found["output"], number)
        rows.append({"anchor": anchor, "positive": output, "task": task})
    return _text_rows(rows, "anchor", "positive", "task")


def ocr_to_rows(dataset: Rows, columns: Mapping[str, str] | None = None, task: str = "ocr") -> Dataset:
    """An image with text becomes the anchor, its text (or the answer to a question about it) the positive.

    Args:
        dataset: Rows with "image", "text" (what is to be found), and perhaps "question".
        columns: Role to column name.
        task: Name of the task.

    Returns:
        Columns anchor (the question, or "Trong ảnh có chữ gì?"), anchor_image, positive, task.

    Raises:
        ValueError: A missing column, or text that is empty or no string.
    """
    dataset = as_dataset(dataset)
    found = find_columns(dataset.column_names, ("image", "text", "question"), columns, optional=("question",))
    questions, texts = [], []
    for number, row in enumerate(dataset.select_columns([found[role] for role in found if role != "image"])):
        question = row[found["question"]] if "question" in found else None
        asked = None if is_missing(question) else clean_text(question, found["question"], number)
        questions.append(asked or READING_QUESTION)
        texts.append(clean_text(row[found["text"]], found["text"], number))
    return _with_image(dataset, found["image"], questions, texts, task)


def vqa_to_rows(dataset: Rows, columns: Mapping[str, str] | None = None, task: str = "vqa_single") -> Dataset:
    """An image and a question about it become the anchor, the answer the positive.

    Args:
        dataset: Rows with "image" (perhaps none in some), "question" and "answer".
        columns: Role to column name.
        task: Name of the task.

    Raises:
        ValueError: A missing column, or text that is empty or no string.
    """
    dataset = as_dataset(dataset)
    found = find_columns(dataset.column_names, ("image", "question", "answer"), columns)
    texts = {
        role: [clean_text(text, found[role], number) for number, text in enumerate(dataset[found[role]])]
        for role in ("question", "answer")
    }
    return _with_image(dataset, found["image"], texts["question"], texts["answer"], task)


def dialogues_to_rows(dataset: Rows, columns: Mapping[str, str] | None = None, task: str = "vqa_multi") -> Dataset:
    """A dialogue about an image becomes one row per turn, with the earlier turns as context in the anchor.

    The anchor of turn k is "Hỏi: q₁ Đáp: a₁ … Hỏi: q_k", the positive a_k: no anchor contains its own answer.

    Args:
        dataset: Rows with "image" and "turns", a list of {"question", "answer"}.
        columns: Role to column name.
        task: Name of the task.

    Raises:
        ValueError: A missing column, no turns, or text that is empty or no string.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import dialogues_to_rows
        >>> turns = [{"question": "Con gì?", "answer": "Con mèo."}, {"question": "Màu gì?", "answer": "Màu đen."}]
        >>> rows = dialogues_to_rows(Dataset.from_dict({"image": ["a.png"], "turns": [turns]}))
        >>> rows["anchor"][1], rows["positive"][1]
        ('Hỏi: Con gì? Đáp: Con mèo. Hỏi: Màu gì?', 'Màu đen.')
    """
    dataset = as_dataset(dataset)
    found = find_columns(dataset.column_names, ("image", "turns"), columns)
    numbers, anchors, answers = [], [], []
    for number, turns in enumerate(dataset[found["turns"]]):
        if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
            bad_value(found["turns"], number, turns, "expected a list of turns")
        context = ""
        for turn in turns:
            if not isinstance(turn, Mapping):
                bad_value(found["turns"], number, turn, "expected a turn of question and answer")
            question, answer = (clean_text(turn.get(role), found["turns"], number) for role in ("question", "answer"))
            context = f"{context} Hỏi: {question}".strip()
            numbers.append(number)
            anchors.append(context)
            answers.append(answer)
            context = f"{context} Đáp: {answer}"
    return _with_image(dataset.select(numbers), found["image"], anchors, answers, task)


def combine_rows(*datasets: Rows) -> Dataset:
    """One dataset of all rows, with a missing score or class as NaN and a missing image as None.

    Columns: anchor, positive and further candidates, each with its images and videos (if any set has them), score,
    class, teacher_scores, task, options. The model card uses the first column for its widget and compares the values
    of a column, which None among numbers would break. If one set has several images in a row and another has one, all
    rows have lists. Other columns are left out, which is logged.

    Raises:
        ValueError: No sets; columns that cannot be of one type; or hard negatives or further positives that only
            some sets have. Train such sets side by side in a `DatasetDict`.

    Example:
        >>> from st_vi.data import sample_sts
        >>> from st_vi.data import combine_rows, instructions_to_rows, scored_pairs_to_rows
        >>> from datasets import Dataset
        >>> instructions = Dataset.from_dict({"instruction": ["Chào hỏi."], "output": ["Xin chào!"]})
        >>> rows = combine_rows(instructions_to_rows(instructions), scored_pairs_to_rows(sample_sts(), (0, 5)))
        >>> rows.column_names, rows["score"][0]
        (['anchor', 'positive', 'score', 'task'], nan)
    """
    if not datasets:
        raise ValueError("there are no datasets to combine")
    sets = [as_dataset(rows) for rows in datasets]
    candidates = candidate_columns({name for dataset in sets for name in dataset.column_names})
    for dataset in sets:
        if missing := [name for name in candidates[1:] if name not in dataset.column_names]:
            raise ValueError(
                f"columns {missing} are in some sets alone: train the sets side by side, as a DatasetDict, or give "
                "all of them to every set"
            )
    order = [column for text in ("anchor", *candidates) for column in _beside(text)]
    order += [*_NUMBERS, "teacher_scores", "task", "options"]
    if others := sorted({name for dataset in sets for name in dataset.column_names} - set(order)):
        logger.info("columns that no task uses are left out: %s", ", ".join(others))
    features = {name: _common_type(name, sets) for name in order}
    names = [name for name in order if features[name]]
    parts = []
    for dataset in sets:
        columns = dataset.select_columns([name for name in names if name in dataset.column_names])
        for name in names:
            if name not in dataset.column_names:
                empty = [_nothing(name, features[name])] * len(dataset)
                columns = columns.add_column(name, empty, feature=features[name])
            elif name in _NUMBERS and None in (numbers := columns[name][:]):
                known = [float("nan") if number is None else number for number in numbers]
                columns = columns.remove_columns(name).add_column(name, known)
            elif (
                name.endswith("_image") and isinstance(features[name], List) and _kind(columns.features[name]) != "list"
            ):
                columns = _listed(columns, name)
        try:
            parts.append(columns.select_columns(names).cast(Features({name: features[name] for name in names})))
        except (TypeError, ValueError, pa.ArrowException) as error:
            unlike = [name for name in names if columns.features[name] != features[name]]
            raise ValueError(f"columns {unlike} of set {len(parts)} are not as in the others: {error}") from error
    return concatenate_datasets(parts)


def _range(score_range: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (score + 0.0 for score in score_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0 < high - low < math.inf:
        raise ValueError(f"score_range must be (lowest, highest), got {score_range!r}")
    return low, high


def _text_rows(rows: Sequence[Mapping[str, Any]], *names: str) -> Dataset:
    """A dataset with these columns, even without rows."""
    return Dataset.from_dict({name: [row[name] for row in rows] for name in names}, features=_types(*names))


def _types(*names: str) -> Features:
    return Features({name: _TYPES[name] for name in names})


def _nothing(name: str, feature: Any) -> Any:
    """What stands in a row that has no value; the model card counts the images of lists."""
    if name in _NUMBERS:
        return float("nan")
    return [] if isinstance(feature, List) and name.endswith(("_image", "_video")) else None


def _beside(text: str) -> tuple[str, ...]:
    return text, f"{text}_image", f"{text}_video", f"{text}_teacher"


def _common_type(name: str, datasets: Sequence[Dataset]) -> Any:
    """The common type of a column; None if no set has it."""
    found = [dataset.features[name] for dataset in datasets if name in dataset.column_names]
    if name in _NUMBERS:
        return Value("float64") if found or name == "score" else None
    known = [feature for feature in found if feature != Value("null")]  # where all are None
    if name.endswith("_image") and any(feature != known[0] for feature in known):
        # Paths in one set, bytes in another; one image a row in one set, several in another.
        return List(Image()) if any(_kind(feature) == "list" for feature in known) else Image()
    if name.endswith("_video") and any(feature != known[0] for feature in known):
        if any(_kind(feature) != "list" for feature in known):
            raise ValueError(f"column {name!r} has lists of frames in one set and files in another: give all as frames")
        return List(Image())
    return (known or found or [None])[0]


def _kind(feature: Any) -> str:
    return "list" if isinstance(feature, (List, LargeList)) else "one"


def _listed(dataset: Dataset, name: str) -> Dataset:
    """Turn a column of images into one of lists of images, undecoded."""
    images = dataset.cast_column(name, Image()).cast_column(name, Image(decode=False))[name]
    lists = [None if image is None else [image] for image in images]
    return dataset.remove_columns(name).add_column(name, lists, feature=List(Image(decode=False)))


def _with_image(dataset: Dataset, image: str, anchors: list[str], positives: list[str], task: str) -> Dataset:
    """Keep the stored images, undecoded, beside new texts."""
    images = dataset.select_columns([image])
    if image != "anchor_image":
        images = images.rename_column(image, "anchor_image")
    texts = {"anchor": anchors, "positive": positives, "task": [task] * len(anchors)}
    rows = Dataset.from_dict(texts, features=_types(*texts))
    if len(rows):
        rows = concatenate_datasets([rows, images.flatten_indices()], axis=1)
    else:  # of which the other would lose the columns
        rows = Dataset.from_dict(texts | {"anchor_image": []}, features=Features(rows.features | images.features))
    return rows.select_columns(["anchor", "anchor_image", "positive", "task"])
