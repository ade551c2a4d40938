"""viPolyQwen's Dynamic Loss Equilibrium (DLE): the task of a row selects and weights its loss terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import adaptive_layer, matryoshka
from torch import Tensor, nn

from st_vi.checks import check_choice, check_whole
from st_vi.losses.balance import Balance, BalanceName, balance_of
from st_vi.losses.balance.base import Measured
from st_vi.losses.balance.weighted import Batch, weighted_components
from st_vi.losses.blocks import Observer, term_sums
from st_vi.losses.columns import check_columns, gather_columns
from st_vi.losses.components import Components
from st_vi.losses.embed import embedded
from st_vi.losses.learned import with_own_parameters
from st_vi.losses.settings import Settings
from st_vi.tasks import VIPOLYQWEN_TASKS, Task, check_tasks
from st_vi.terms import PairBatch

Negatives = Literal["task", "batch"]
_WRAPPED = (matryoshka.ForwardDecorator, adaptive_layer.ForwardDecorator)


class DLELoss(Settings, nn.Module):
    """Trains each row with the terms of its task.

    With B rows, n_t of them of task t, and L_t the weighted sum of the terms of task t, averaged over its rows:

        L = 1/B Σ_i Σ_{k ∈ terms(task_i)} w_k L_{k,i}   =   Σ_t n_t/B · L_t

    Source: viPolyQwen, Section "Dynamic Loss Equilibrium". The paper writes losses per row, but InfoNCE and ranking
    need a batch: here each task is its own batch (`negatives="task"`), or the rows of all tasks are candidates
    (`negatives="batch"`). As in the paper, the weights are constants, unless there is a `balance`. Gradient
    accumulation adds no negatives.

    Learned terms, such as `SimLAP`, have parameters of their own. They are in `learned`, by the name of the component,
    and train with the model: in the stock trainer, with a `LossKeeper` and a learning rate of their own.

    Args:
        model: The model to train.
        tasks: The tasks; the row label t refers to ``tasks[t]``.
        negatives: Source of the negatives of a row: its "task", or the whole "batch".
        mask_duplicates: Do not use repeated texts as negatives, see `PairBatch`; positives of other rows with the same
            anchor are left out.
        gather_across_devices: Use the rows of all devices as candidates.
        embed_once: Embed every distinct input of the batch once (`embed_distinct`), which is faster and gives the same
            values and gradients. False embeds column by column, as in stock.
        num_positives: Number of columns after the anchor that are positives or further views of it; the rest are hard
            negatives.
        balance: A strategy with a further weight for each term of each task, such as `GradNorm`, or its name; None for
            the constants. See `Balance` for what it balances, and `LossKeeper` for training.

    Inputs: Columns anchor, `num_positives` positives, and n ≥ 0 hard negatives: k candidates per row. Labels (B, 2):
    the index of the task, and a score in [0, 1] or NaN; or (B, 2 + k), with a teacher's score of each candidate; or (B,
    2 + k + (1 + k)·T), also with a teacher's vector of size T for each column, NaN if unknown; or, for T ≥ 0, one more
    column with the class of each row, NaN if unknown. The anchor alone (k = 0) is enough if no term needs a positive
    (`TeacherCosine`, `TeacherSimilarities`).

    Returns:
        One scalar for each term of each task; their sum is L. The keys are those of `Task.components` in every step. A
        term without rows is 0, with a gradient of 0. The stock `MatryoshkaLoss` and `AdaptiveLayerLoss` can wrap
        this loss, and sum each component over dimensions and layers.

    Raises:
        ValueError: There are no tasks, two tasks or two components have the same name, there are too few columns,
            shapes do not match, a label is not the index of a task, or a score is not in [0, 1].

    Example:
        >>> import torch
        >>> from st_vi import DLELoss
        >>> vectors = torch.eye(4)
        >>> labels = torch.tensor([[1, float("nan")], [1, float("nan")], [2, float("nan")], [2, float("nan")]])
        >>> loss = DLELoss(model=None).compute_loss_from_embeddings([vectors, vectors], labels)
        >>> [name for name in loss if name.startswith("instr")]
        ['instr_info_nce', 'instr_cosine_alignment']
    """

    max_matrix_bytes: int | None = None  # the cached loss sets it

    def __init__(
        self,
        model: SentenceTransformer,
        tasks: Sequence[Task] = VIPOLYQWEN_TASKS,
        negatives: Negatives = "task",
        mask_duplicates: bool = True,
        gather_across_devices: bool = False,
        embed_once: bool = True,
        num_positives: int = 1,
        balance: Balance | BalanceName | None = None,
    ) -> None:
        super().__init__(model)
        check_whole("num_positives", num_positives)
        check_choice("negatives", negatives, Negatives)
        check_tasks(tasks)
        self.tasks, self.learned = with_own_parameters(tasks)
        self.negatives = negatives
        self.mask_duplicates = mask_duplicates
        self.gather_across_devices = gather_across_devices
        self.embed_once = embed_once
        self.num_positives = num_positives
        self.observer: Observer | None = None
        self.balance = balance_of(balance)
        self._measured: Measured | None = None  # in the last evaluation of a balanced loss
        self._evaluations = 0  # of them
        if self.balance is not None:
            self.balance.bind([name for task in self.tasks for name in task.components])

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Embed the columns and return the components of the loss."""
        if isinstance(self.model.forward, _WRAPPED) and self.balance and [*self.balance.parameters()]:
            raise in_matryoshka(self.balance)
        embeddings, ids = embedded(self, sentence_features, compare=self.mask_duplicates)
        return Components(self.compute_loss_from_embeddings(embeddings, labels, ids if self.mask_duplicates else None))

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor, ids: list[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The components for the rows of this device.

        Args:
            embeddings: Anchors, positives and hard negatives, (B, D) each.
            labels: (B, 2), task index and score; (B, 2 + k) with the teacher's scores; (B, 2 + k + (1 + k)·T) also with
                its vectors, column by column; and one more column for classes.
            ids: (B,) int for each column, equal if texts are equal (`content_ids`); None if all texts are distinct.
        """
        check_columns(embeddings, ids)
        self._check_labels(labels, rows=len(embeddings[0]), columns=len(embeddings))
        if len(embeddings) <= self.num_positives and not self._looks_at_anchors_alone(embeddings, labels):
            raise ValueError(
                f"DLELoss needs an anchor and {self.num_positives} positive column(s), got {len(embeddings)} column(s)"
            )
        rows = len(labels)
        own = torch.arange(rows, device=labels.device)
        labels = labels.to(torch.promote_types(embeddings[0].dtype, torch.float32))
        # Every column gets a gradient, and no component hides a vector that is not finite.
        zero = torch.stack([embedding.sum(dtype=labels.dtype) for embedding in embeddings]).sum() * 0.0
        if self.gather_across_devices:
            (*embeddings, labels), own = gather_columns([*embeddings, labels])
            ids = ids and gather_columns(ids)[0]

        if self.learned and torch.is_grad_enabled():
            self.learned.check_ready()
        batches = self._batches(embeddings, labels, ids, own)
        if self.balance is not None and torch.is_grad_enabled():
            return self._balanced(self.balance, embeddings, labels, rows, batches, zero)
        loss: dict[str, Tensor] = {}
        for task, pairs in zip(self.tasks, batches, strict=True):
            components = task.components
            if pairs is None:
                loss |= dict.fromkeys(components, zero)
                continue
            weights = labels.new_full((pairs.num_own_rows,), 1 / rows)
            sums = term_sums(components, pairs, weights, self.max_matrix_bytes, self.observer)
            loss |= {name: zero + value for name, value in zip(components, sums, strict=True)}
        return loss

    def _balanced(
        self,
        balance: Balance,
        embeddings: Sequence[Tensor],
        labels: Tensor,
        rows: int,
        batches: Iterable[PairBatch | None],
        zero: Tensor,
    ) -> dict[str, Tensor]:
        task_of, by_task = labels[:, 0], self.negatives == "task"
        members = [int((task_of == index).sum()) if by_task else len(task_of) for index in range(len(self.tasks))]
        batch = Batch(
            tasks=self.tasks,
            pairs=batches,
            rows=rows,
            sizes=[count * embeddings[0].shape[1] * len(embeddings) for count in members],
            same_rows=not by_task,
            gathered=self.gather_across_devices,
            like=labels,
        )
        values, measured = weighted_components(balance, batch, self.max_matrix_bytes, self.observer)
        self._measured, self._evaluations = measured, self._evaluations + 1
        if (penalty := balance.penalty(measured)) is not None:
            values = values + penalty.to(values)
        return {name: zero + value for name, value in zip(balance.components, values, strict=True)}

    def _looks_at_anchors_alone(self, embeddings: Sequence[Tensor], labels: Tensor) -> bool:
        present = labels[:, 0].unique().tolist()
        needing = (index for index, task in enumerate(self.tasks) if task.needs_positive)
        return len(embeddings) == 1 and not any(index in present for index in needing)

    def _check_labels(self, labels: Tensor | None, rows: int, columns: int) -> None:
        scored = 1 + columns
        width = labels.shape[1] if labels is not None and labels.ndim == 2 and len(labels) == rows else 0
        more = (width - scored) % columns  # beside whole vectors
        if width not in (2, scored) and (width < scored or more > _has_classes(width, columns)):
            raise ValueError(
                f"DLELoss needs labels (B, 2), task index and score, or (B, {scored}) with a teacher's score of each "
                f"candidate, or more with {columns} teacher's vectors, or one more with classes, here for B = {rows}; "
                f"got {None if labels is None else tuple(labels.shape)}. MixedTaskCollator creates them"
            )

    def _batches(
        self, embeddings: list[Tensor], labels: Tensor, ids: list[Tensor] | None, own: Tensor
    ) -> Iterable[PairBatch | None]:
        """The pairs of each task; None if this device has no row of it."""
        task_of, scores, teacher_scores, vectors, classes = self._parts(labels, len(embeddings))
        is_own = torch.zeros_like(task_of, dtype=torch.bool).index_fill(0, own, True)
        for index in range(len(self.tasks)):
            of_task = task_of == index
            if not (of_task & is_own).any():
                yield None
                continue
            members = of_task if self.negatives == "task" else torch.ones_like(of_task)
            # Scores and classes of rows of other tasks are ignored here.
            known = scores.masked_fill(~of_task, float("nan"))
            to_train = (of_task & is_own)[members]
            everything = bool(members.all())  # no copies then
            anchors, *candidates = embeddings if everything else (embedding[members] for embedding in embeddings)
            positives, *more_positives = candidates[: self.num_positives] or [anchors]
            negatives = candidates[self.num_positives :]
            yield PairBatch(
                anchors,
                positives,
                negatives=torch.stack(negatives) if negatives else None,
                more_positives=torch.stack(more_positives) if more_positives else None,
                anchor_ids=ids[0][members] if ids else None,
                candidate_ids=torch.cat([column[members] for column in ids[1:] or ids]) if ids else None,
                scores=known[members],
                teacher_scores=teacher_scores[members] if teacher_scores.numel() else None,
                teacher_vectors=vectors[members].transpose(0, 1) if vectors is not None else None,
                classes=classes.masked_fill(~of_task, -1)[members] if classes is not None else None,
                own_rows=None if to_train.all() else to_train.nonzero().squeeze(1),
                same_anchor="mask" if self.mask_duplicates else "negative",
                mask_duplicates=self.mask_duplicates,
            )

    def _parts(self, labels: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Tasks and scores of the rows, (B,), the teacher's scores, (B, k), and vectors, and the classes, (B,) int."""
        classes = None
        if _has_classes(labels.shape[1], columns):
            labels, classes = labels[:, :-1], labels[:, -1]
        task_of, scores, teacher_scores = labels[:, 0], labels[:, 1], labels[:, 2 : 1 + columns]
        vectors = labels[:, 1 + columns :].unflatten(1, (columns, -1)) if labels.shape[1] > 1 + columns else None
        if not ((task_of >= 0) & (task_of < len(self.tasks)) & (task_of == task_of.floor())).all():
            raise ValueError(f"labels name tasks 0 to {len(self.tasks) - 1}, got {task_of.unique().tolist()}")
        if ((scores < 0) | (scores > 1)).any():
            raise ValueError(f"the scores of labels lie in [0, 1], or are NaN for none, got {scores.tolist()}")
        if classes is not None:
            if not (classes.isnan() | ((classes >= 0) & (classes.frac() == 0))).all():
                raise ValueError(f"classes of labels must be whole numbers from 0 on, or NaN, got {classes.tolist()}")
            classes = classes.nan_to_num(-1.0).long()
        return task_of, scores, teacher_scores, vectors, classes

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {
            "tasks": {task.name: [repr(term) for term in task.terms] for task in self.tasks},
            "negatives": self.negatives,
            "mask_duplicates": self.mask_duplicates,
            "gather_across_devices": self.gather_across_devices,
            "embed_once": self.embed_once,
            "num_positives": self.num_positives,
        } | ({} if self.balance is None else {"balance": repr(self.balance)})


def in_matryoshka(balance: Balance) -> ValueError:
    """The error where a strategy that compares batches would get dimensions or layers of one batch instead."""
    return ValueError(
        f"{type(balance).__name__} cannot train in MatryoshkaLoss or AdaptiveLayerLoss, which evaluate a batch once "
        "for each dimension or layer: use a strategy without parameters"
    )


def _has_classes(width: int, columns: int) -> bool:
    """Whether labels of this width end with a column of classes, where there are so many columns of inputs."""
    return columns > 1 and width > 1 + columns and (width - 1 - columns) % columns == 1
