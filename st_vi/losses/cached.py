"""The losses with GradCache: batches as large as you like, in the memory of a mini-batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.losses.dle import DLELoss, Negatives
from st_vi.losses.grad_cache import GradCache
from st_vi.losses.supcon_nli import SupConNLILoss
from st_vi.tasks import VIPOLYQWEN_TASKS, Task
from st_vi.terms.pairs import SameAnchor


class CachedSupConNLILoss(GradCache, SupConNLILoss):
    """`SupConNLILoss` in the memory of a mini-batch: the same values and gradients, each input embedded twice.

    More rows in a batch are more negatives, which accumulated gradients are not. Activations are those of one
    mini-batch; what grows with the batch are its inputs, its embeddings, and the similarities of the loss.

    With several processes and a model that is not wrapped in DDP, inputs are embedded as they stand in the columns:
    sharded models need as many forwards in every process. A number of tokens, which cuts every process's rows in
    other places, does not go with them.

    Source: GradCache (Gao et al. 2021, arXiv 2101.06983), as stock has it.

    Args:
        model: As the rest, see `SupConNLILoss`.
        temperature: τ > 0.
        hard_negative_weight: w.
        same_anchor: "positive", "mask" or "negative".
        mask_duplicates: Leave out repeated texts.
        symmetric: Both directions.
        gather_across_devices: Rows of all devices.
        merge_inputs: Embed every distinct input once in each pass, those of like length together.
        mini_batch_size: Inputs to embed at a time; the more the faster.
        mini_batch_num_tokens: Instead, as many inputs at a time as have no more tokens than these, padding not
            counted; a longer input is alone.
        show_progress_bar: Over the mini-batches.

    Inputs:
        As for `SupConNLILoss`.

    Raises:
        ValueError: Mini-batches of no inputs or tokens, a model with a `StaticEmbedding`, or what `SupConNLILoss`
            does not take.

    Example:
        >>> import torch
        >>> from st_vi import CachedSupConNLILoss
        >>> loss = CachedSupConNLILoss(model=None, temperature=1.0, mini_batch_num_tokens=4096)
        >>> anchors, positives, negatives = torch.eye(4)[:2], torch.eye(4)[:2], torch.eye(4)[2:]
        >>> loss.compute_loss_from_embeddings([anchors, positives, negatives])  # −log(e / (e + 3))
        tensor(0.7437)
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        hard_negative_weight: float = 0.0,
        same_anchor: SameAnchor = "positive",
        mask_duplicates: bool = True,
        symmetric: bool = False,
        gather_across_devices: bool = False,
        merge_inputs: bool = True,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            temperature=temperature,
            hard_negative_weight=hard_negative_weight,
            same_anchor=same_anchor,
            mask_duplicates=mask_duplicates,
            symmetric=symmetric,
            gather_across_devices=gather_across_devices,
            merge_inputs=merge_inputs,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns and return the mean loss of the rows; its backward pass embeds them again."""
        return self._cached(sentence_features, labels)[0]


class CachedDLELoss(GradCache, DLELoss):
    """`DLELoss` in the memory of a mini-batch: the same values and gradients, each input embedded twice.

    All terms see the whole batch, the ranking and the hardest negative too. What is kept is the gradient of the
    *sum* of the components: they are for logs, and only their plain sum can be carried back, as the trainer does.
    Stock's `MatryoshkaLoss` can wrap it, and adds up every component over the dimensions. For what grows with the
    batch, and for several processes, see `CachedSupConNLILoss`.

    Source: GradCache (Gao et al. 2021, arXiv 2101.06983), as stock has it.

    Args:
        model: As the rest, see `DLELoss`.
        tasks: The row label t means ``tasks[t]``.
        negatives: Of a row's "task", or of the whole "batch".
        mask_duplicates: Repeated texts are no negatives.
        gather_across_devices: Rows of all devices.
        merge_inputs: Embed every distinct input once in each pass, those of like length together.
        num_positives: How many of the columns are positives.
        mini_batch_size: Inputs to embed at a time; the more the faster.
        mini_batch_num_tokens: Instead, as many inputs at a time as have no more tokens than these, padding not
            counted; a longer input is alone. Pictures count as the language model sees them.
        show_progress_bar: Over the mini-batches.

    Inputs:
        As for `DLELoss`.

    Returns:
        The components, as `DLELoss`.

    Raises:
        ValueError: Mini-batches of no inputs or tokens, a model with a `StaticEmbedding`, what `DLELoss` does not
            take, or in backward, components that were not just added up.

    Example:
        >>> from st_vi import CachedDLELoss
        >>> loss = CachedDLELoss(model=None, mini_batch_size=4)  # for SentenceTransformerTrainer(..., loss=loss)
        >>> loss.get_config_dict()["mini_batch_size"]
        4
    """

    def __init__(
        self,
        model: SentenceTransformer,
        tasks: Sequence[Task] = VIPOLYQWEN_TASKS,
        negatives: Negatives = "task",
        mask_duplicates: bool = True,
        gather_across_devices: bool = False,
        merge_inputs: bool = True,
        num_positives: int = 1,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            tasks=tasks,
            negatives=negatives,
            mask_duplicates=mask_duplicates,
            gather_across_devices=gather_across_devices,
            merge_inputs=merge_inputs,
            num_positives=num_positives,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Embed the columns and return the components of the loss; the backward pass of their sum embeds again."""
        names = [name for task in self.tasks for name in task.components]
        components = _Components.apply(*self._cached(sentence_features, labels))
        return dict(zip(names, components.unbind(), strict=True))


class _Components(torch.autograd.Function):
    """The components of a loss of which only the sum has a gradient."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, components: Tensor) -> Tensor:
        return components.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Better than gradients of another loss: those of one component alone are not there any more.
        if not (gradient == gradient[0]).all():
            raise ValueError(
                "CachedDLELoss can carry back the sum of all its components only. To weigh them, set the weights "
                f"of the terms in `tasks`; the gradients that arrived are {gradient.tolist()}"
            )
        return gradient[0], None
