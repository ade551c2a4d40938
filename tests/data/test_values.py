"""Values at the edges of what is allowed, in the words of `st_vi.data.values`."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from st_vi.data import check_triplets, fact_check_to_triplets, nli_to_triplets
from st_vi.data.collator import MixedTaskCollator
from st_vi.data.values import class_of, score_of, stored_in, teacher_scores_of, teacher_vector_of
from st_vi.tasks import Task
from st_vi.terms import InfoNCE, SimLAP


@pytest.mark.parametrize("score", [-0.01, 1.01, inf, -inf, True, "0_5", 1e300])
def test_scores(score):
    assert [score_of({"score": good}, 0) for good in (0, 1, "0.5")] == [0, 1, 0.5]
    with pytest.raises(ValueError, match="column 'score', row 3: expected"):
        score_of({"score": score}, 3)


@pytest.mark.parametrize("value", [-1, 0.5, inf, 1e300, True])
def test_classes(value):
    assert class_of({"class": 7}, 0) == 7
    with pytest.raises(ValueError, match="column 'class', row 3: expected"):
        class_of({"class": value}, 3)


def test_what_a_teacher_gives():
    for scores in ("0.5", 0.5, [0.5]):
        with pytest.raises(ValueError, match="one number for each of"):
            teacher_scores_of({"teacher_scores": scores}, ["positive", "negative"], 0)
    with pytest.raises(ValueError, match="one number for each of"):
        teacher_scores_of({"teacher_scores": "12"}, ["positive", "negative"], 0)
    for vector in ([1.0, nan], [1.0, inf], [[1.0]], []):
        with pytest.raises(ValueError, match="finite numbers"):
            teacher_vector_of({"anchor_teacher": vector}, "anchor", 0)


def test_frames_in_an_array_are_a_video_and_none_are_none():
    frames = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    assert stored_in({"anchor_video": frames}, "anchor")[0].value is frames
    assert stored_in({"anchor_video": frames[:0]}, "anchor") == []


def test_labels_have_room_for_what_any_row_has():
    plain = {"anchor": "a", "positive": "b", "task": "t"}
    pairs = (Task("t", "<t>", (InfoNCE(),)),)

    def labels(rows, tasks=pairs):
        return MixedTaskCollator(lambda x: {}, tasks=tasks).labels(rows)

    assert labels([plain]).shape == (1, 2)
    late = labels([plain, plain | {"teacher_scores": [0.25]}])
    assert late.shape == (2, 3) and late[0, 2].isnan() and late[1, 2] == 0.25
    for column, place in (("anchor", 3), ("positive", 5)):
        found = labels([plain, plain | {f"{column}_teacher": [1.0, 2.0]}])
        assert found.shape == (2, 2 + 1 + 2 * 2) and found[1, place : place + 2].tolist() == [1, 2]
        assert int(found.isnan().sum()) == 2 * 7 - 2 - 2  # all but the tasks and the vector
    with pytest.raises(ValueError, match="column 'positive_teacher', row 1 of the batch: expected 2 finite"):
        labels([plain | {"anchor_teacher": [1.0, 2.0]}, plain | {"positive_teacher": [1.0]}])
    classes = labels([plain | {"class": 4}], (Task("t", "<t>", (SimLAP(num_classes=5, size=2),)),))
    assert classes.shape == (1, 4) and classes[0, 3] == 4 and classes[0, 1:3].isnan().all()


def weighted(weights, name="weight", kind=None):
    rows = {"anchor": ["a"] * len(weights), "positive": ["b"] * len(weights), name: weights}
    features = Features({"anchor": Value("string"), "positive": Value("string"), name: Value(kind)}) if kind else None
    return Dataset.from_dict(rows, features=features)


def test_weights():
    assert check_triplets(weighted([0.0, 2.0]))["label"] == [0, 2]
    assert check_triplets(weighted([0.5], "label", "float32")).column_names == ["anchor", "positive", "label"]
    for bad in ([True], [inf], [-1.0], [nan]):
        with pytest.raises(ValueError, match="row 0: expected a number of 0 or more"):
            check_triplets(weighted(bad))
    with pytest.raises(ValueError, match="row 1: expected a number of 0 or more"):
        check_triplets(weighted([1.0, None], "label", "float64"))
    with pytest.raises(ValueError, match="is not 'weight'"):
        check_triplets(weighted([1.0], "Weight"))


def test_a_text_that_is_entailed_and_neutral_is_no_positive_twice():
    rows = {"premise": ["a"] * 2, "hypothesis": ["b"] * 2, "label": ["entailment", "neutral"]}
    with pytest.raises(ValueError, match="row 1"):
        nli_to_triplets(Dataset.from_dict(rows), neutral="weak_positive")


def test_a_label_of_minus_one_is_not_the_last_name():
    kind = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": ClassLabel(names=["yes"])})
    rows = Dataset.from_dict({"premise": ["a"], "hypothesis": ["b"], "label": [-1]}, features=kind)
    with pytest.raises(ValueError, match="column 'label', row 0: unknown label"):
        nli_to_triplets(rows)


def test_the_seed_reaches_fact_checks():
    texts = [f"c{i}" for i in range(12)]
    labels = ["supported"] * 6 + ["refuted"] * 6
    rows = Dataset.from_dict({"evidence": ["e"] * 12, "claim": texts, "label": labels})
    drawn = [fact_check_to_triplets(rows, seed=seed)["triplets"]["negative"][:] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and sorted(drawn[0]) == sorted(drawn[2]) == sorted(texts[6:])


def test_the_largest_set_comes_first_and_anchors_are_counted_once():
    labels = ["entailment", "entailment", "contradiction", "entailment", "contradiction", "contradiction"]
    rows = {"premise": [*"aaabcd"], "hypothesis": [*"uvwxyz"], "label": labels}
    made = nli_to_triplets(Dataset.from_dict(rows))
    assert list(made) == ["triplets", "pairs"] and made.report["anchors without a positive"] == 2
