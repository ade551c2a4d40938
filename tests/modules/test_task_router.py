"""`TaskRouter` without a model: the fit against the condition for its minimum, and settings that make no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from st_vi.modules import TaskRouter

TASKS = ["instr", "ocr", "vqa_single"]


def points(tasks, count=40, size=5):
    """Clusters that overlap a little."""
    rng = np.random.default_rng(0)
    names = [tasks[number % len(tasks)] for number in range(count)]
    centres = {task: rng.normal(size=size) for task in tasks}
    return np.stack([centres[name] + rng.normal(size=size) for name in names]), names


@pytest.mark.parametrize("tasks", [TASKS, TASKS[:2]])
def test_the_fit_is_where_the_gradient_is_zero(tasks):
    """Of C · Σ −log p + ½‖W‖², where two classes have one vector, the difference of the rows of W."""
    vectors, names = points(tasks)
    router = TaskRouter(tasks, vectors.shape[1])
    router.fit(vectors, names, inverse_penalty=2.0)

    def objective(weight, bias):
        scores = torch.from_numpy(vectors) @ weight.T + bias
        of_row = [scores[row].logsumexp(0) - scores[row, tasks.index(name)] for row, name in enumerate(names)]
        penalised = weight if len(tasks) > 2 else weight[1] - weight[0]
        return 2.0 * torch.stack(of_row).sum() + penalised.square().sum() / 2

    def largest_gradient(*values):
        values = [value.double().requires_grad_() for value in values]
        return max(grad.abs().max().item() for grad in torch.autograd.grad(objective(*values), values))

    start = largest_gradient(torch.zeros_like(router.weight), torch.zeros_like(router.bias))
    assert largest_gradient(router.weight.clone(), router.bias.clone()) < 1e-3 * start

    scores = vectors @ router.weight.double().numpy().T + router.bias.double().numpy()
    by_hand = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(router.probabilities(torch.from_numpy(vectors)).numpy(), by_hand, rtol=1e-9)
    best = [tasks[number] for number in by_hand.argmax(axis=1)]
    assert np.mean([one == two for one, two in zip(best, names, strict=True)]) > 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["ocr"]}, "two or more different tasks, got \\['ocr'\\]"),
        ({"tasks": ["ocr", "ocr"]}, "two or more different tasks"),
        ({"tasks": "ocr"}, "two or more different tasks, got 'ocr'"),
        ({"tasks": TASKS, "threshold": 1.5}, "threshold must lie between 0 and 1, got 1.5"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskRouter(embedding_dimension=4, **settings)


def test_rows_of_other_tasks():
    vectors, names = points(TASKS[:2])
    with pytest.raises(
        ValueError, match=r"chooses among \['instr', 'ocr', 'vqa_single'\], the rows are of \['instr', 'o"
    ):
        TaskRouter(TASKS, vectors.shape[1]).fit(vectors, names)


@pytest.mark.parametrize("shape", [(2, 1), (2, 5), (3, 4)])
def test_vectors_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"2 tasks of vectors of 4 need the shape \(2, 4\), got "):
        TaskRouter(["a", "b"], 4).fit(np.arange(float(np.prod(shape))).reshape(shape), ["a", "b"])


def test_tasks_of_the_same_inputs():
    vectors = np.tile(np.eye(4)[:2], (3, 1))
    with pytest.raises(ValueError, match=r"the inputs of \['instr', 'ocr', 'text_pair'\] are the same"):
        TaskRouter(["ocr", "instr", "text_pair"], 4).fit(
            vectors, ["ocr", "ocr", "instr", "instr", "text_pair", "text_pair"]
        )
