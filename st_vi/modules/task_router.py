"""The prefix of an input, chosen by a linear layer on its embedding without one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.inputs.as_list import as_list
from st_vi.modules.qwen2_vl import AUTO, Qwen2VLTransformer
from st_vi.modules.saved_module import SavedModule


class TaskChoice(NamedTuple):
    """What `TaskRouter` chose for an input.

    Attributes:
        task: The most probable task, or None if its probability is below the threshold.
        probabilities: The probability of every task.
    """

    task: str | None
    probabilities: dict[str, float]


class TaskRouter(SavedModule):
    """Chooses the prefix of each input, so that ``model.encode(inputs, prompt_name="auto")`` needs no task.

    viPolyQwen leaves the choice of the prefix at inference open. Here it is multinomial logistic regression on the
    embedding e (D,) of the input without a prefix: p = softmax(W e + b) over the tasks. If the largest p is below
    `threshold`, the input gets no prefix, as in general-purpose encoding.

    It is the last module of a model and leaves the vectors as they are. `Qwen2VLTransformer` asks it when the prompt is
    "<auto>", so everything that takes a ``prompt_name`` takes "auto": ``encode``, evaluators, `encode_corpus`. Each
    input may get another prefix. Every input is encoded twice, first without a prefix, so "auto" takes twice the time.

    `st_vi.recipes.train_router` trains one and adds it to a model. Train it last, because it knows the vectors that the
    model had then, and on rows of every kind that you will encode: of other kinds it is often wrong and sure of it. It
    is saved with the model; its weights are buffers, so the trainer does not see them.

    Args:
        tasks: At least two names of prompts of the model.
        embedding_dimension: D.
        threshold: Between 0 and 1; with 0, every input gets a prefix.

    Raises:
        ValueError: Fewer than two tasks, a task twice, or another setting out of range.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from st_vi.modules import TaskRouter
        >>> router = TaskRouter(["ocr", "instr"], embedding_dimension=2)
        >>> router.fit(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), ["ocr", "ocr", "instr"])
        >>> router.probabilities(torch.tensor([[1.0, 0.0]])).argmax().item()
        0
    """

    config_keys: list[str] = ["tasks", "embedding_dimension", "threshold"]  # noqa: RUF012
    weight: Tensor
    bias: Tensor

    def __init__(self, tasks: Sequence[str], embedding_dimension: int, threshold: float = 0.5) -> None:
        super().__init__()
        if isinstance(tasks, str) or len(tasks) < 2 or len(set(tasks)) < len(tasks):
            raise ValueError(f"a router chooses among two or more different tasks, got {tasks!r}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        check_whole("embedding_dimension", embedding_dimension)
        self.tasks = list(tasks)
        self.embedding_dimension = embedding_dimension
        self.threshold = threshold
        self.register_buffer("weight", torch.zeros(len(tasks), embedding_dimension))
        self.register_buffer("bias", torch.zeros(len(tasks)))

    def fit(self, vectors: np.ndarray, tasks: Sequence[str], inverse_penalty: float = 10.0) -> None:
        """Fit the layer with scikit-learn's `LogisticRegression`.

        Args:
            vectors: Embeddings without a prefix, (N, D).
            tasks: N names, every task of the router at least once.
            inverse_penalty: ``C`` of scikit-learn, whose default of 1 gives unit vectors flat probabilities.

        Raises:
            ValueError: A task of the router has no vector, there is one of another task, the vectors have another
                shape, or nothing in them tells one task from another.
        """
        from sklearn.linear_model import LogisticRegression

        if set(tasks) != set(self.tasks):
            raise ValueError(f"the router chooses among {sorted(self.tasks)}, the rows are of {sorted(set(tasks))}")
        if vectors.shape != (len(tasks), self.embedding_dimension):
            raise ValueError(
                f"{len(tasks)} tasks of vectors of {self.embedding_dimension} need the shape "
                f"{(len(tasks), self.embedding_dimension)}, got {vectors.shape}"
            )
        numbers = [self.tasks.index(task) for task in tasks]
        found = LogisticRegression(C=inverse_penalty, max_iter=1000).fit(vectors.astype(np.float64), numbers)
        if not found.coef_.any():
            raise ValueError(
                f"the inputs of {sorted(self.tasks)} are the same: nothing tells a router one from another"
            )
        weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
        if len(self.tasks) == 2:  # only the log-odds of the second
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def probabilities(self, vectors: Tensor) -> Tensor:
        """The probability of every task, (N, tasks) float64, for embeddings without a prefix, (N, D)."""
        return (vectors.double() @ self.weight.double().T + self.bias.double()).softmax(dim=1)

    def choose(self, model: SentenceTransformer, inputs: Any, batch_size: int = 32) -> list[TaskChoice]:
        """The task of every input, with the probabilities.

        Args:
            model: The model whose vectors the router was trained on.
            inputs: Inputs as for ``encode``: texts, images or both.
            batch_size: Inputs per batch.

        Raises:
            ValueError: The router is not trained, or the vectors of the model have another size.
        """
        items, _ = as_list(inputs)
        if not items:
            return []
        if not self.weight.any():
            raise ValueError("the router is not trained: st_vi.recipes.train_router(model, rows) does it")
        vectors = plain_vectors(model, items, batch_size)
        if vectors.shape[1] != self.embedding_dimension:
            raise ValueError(
                f"the router is for vectors of {self.embedding_dimension}, these are of {vectors.shape[1]}"
            )
        chosen = []
        for probabilities in self.probabilities(torch.from_numpy(vectors).to(self.weight.device)).tolist():
            best = max(range(len(self.tasks)), key=probabilities.__getitem__)
            task = self.tasks[best] if probabilities[best] >= self.threshold else None
            chosen.append(TaskChoice(task, dict(zip(self.tasks, probabilities, strict=True))))
        return chosen

    def prompts_of(self, model: SentenceTransformer, items: list[Any]) -> list[str]:
        """The prompt for each input of a batch, "" for none."""
        check_model(model, self.tasks)
        chosen = self.choose(model, items, batch_size=len(items))
        return [(model.prompts[choice.task] or "") if choice.task else "" for choice in chosen]

    def on_model_ready(self, model: SentenceTransformer) -> None:  # type: ignore[override]
        """Give the model the prompt "auto".

        Raises:
            ValueError: The model has no prompt for a task, or its first module is no `Qwen2VLTransformer`.
        """
        super().on_model_ready(model)
        check_model(model, self.tasks)
        backbone: Any = model[0]
        # A model of the same modules but another pooling asks the first model: the router knows its vectors.
        if getattr(backbone.choose_prompts, "func", None) != self.prompts_of:
            backbone.choose_prompts = partial(self.prompts_of, model)
        model.prompts["auto"] = AUTO

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Leave everything as it is."""
        return features


def plain_vectors(model: SentenceTransformer, items: list[Any], batch_size: int = 32) -> np.ndarray:
    """Whole embeddings without a prefix, (N, D)."""
    return model.encode(
        items,
        prompt="",
        batch_size=batch_size,
        show_progress_bar=False,
        truncate_dim=sys.maxsize,  # not that of the model
        device=str(model.device),  # of this process alone, where stock shares `encode` between several
    )


def check_model(model: SentenceTransformer, tasks: Sequence[str]) -> None:
    """Check that a router for these tasks can choose the prompts of a model.

    Raises:
        ValueError: The model has no prompt for a task, or its first module is no `Qwen2VLTransformer`.
    """
    if missing := [task for task in tasks if not model.prompts.get(task)]:
        raise ValueError(f"the model has no prompt for {missing}; its prompts are {sorted(model.prompts)}")
    if not isinstance(model[0], Qwen2VLTransformer):
        raise ValueError(
            f'prompt_name="auto" needs a Qwen2VLTransformer, the model has a {type(model[0]).__name__}: use '
            "router.choose(model, inputs), and encode the inputs of each task with its prompt"
        )
