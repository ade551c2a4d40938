"""The losses with GradCache, for large batches in the memory of a mini-batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses.matryoshka import CachedLossDecorator
from torch import Tensor

from st_vi.losses.balance import Balance, BalanceName
from st_vi.losses.blocks import MAX_MATRIX_BYTES, SummedGradient
from st_vi.losses.dle import DLELoss, Negatives, in_matryoshka
from st_vi.losses.grad_cache import GradCache
from st_vi.losses.supcon_nli import SupConNLILoss
from st_vi.tasks import VIPOLYQWEN_TASKS, Task
from st_vi.terms.pairs import SameAnchor


class CachedSupConNLILoss(GradCache, SupConNLILoss):
    """`SupConNLILoss` with the memory of a mini-batch: same values and gradients, but each input is embedded twice.

    Unlike gradient accumulation, this gives more negatives. Only the activations of one mini-batch and the similarities
    of one block of rows are in memory; inputs and embeddings still grow with the batch.

    With several processes and a model that is not wrapped in DDP, columns are embedded one by one, because sharded
    models need the same number of forward passes in every process. They cannot use `mini_batch_num_tokens`, with which
    this number differs.

    Source: GradCache (Gao et al. 2021, arXiv 2101.06983), as implemented in stock.

    Args:
        model: The model to train; the arguments not described here are those of `SupConNLILoss`.
        embed_once: Embed every distinct input once in each of the two passes, sorted by length.
        mini_batch_size: Inputs per mini-batch; more is faster.
        mini_batch_num_tokens: Alternatively, tokens per mini-batch, without padding; a longer input becomes a
            mini-batch of its own.
        show_progress_bar: Show the progress over the mini-batches.
        max_matrix_bytes: Largest similarity matrix in memory, in bytes. The loss is evaluated for as many rows at a
            time as fit, together with its backward pass, so that a batch of any size needs about six such matrices.
            None evaluates all rows at once, in (rows × candidates).

    Inputs:
        As for `SupConNLILoss`.

    Raises:
        ValueError: The mini-batch size is not positive, the model has a `StaticEmbedding`, or as for `SupConNLILoss`.

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
        embed_once: bool = True,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        max_matrix_bytes: int | None = MAX_MATRIX_BYTES,
    ) -> None:
        super().__init__(
            model,
            temperature=temperature,
            hard_negative_weight=hard_negative_weight,
            same_anchor=same_anchor,
            mask_duplicates=mask_duplicates,
            symmetric=symmetric,
            gather_across_devices=gather_across_devices,
            embed_once=embed_once,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar, max_matrix_bytes)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns and return the mean loss of the rows; its backward pass embeds them again."""
        return self._cached(sentence_features, labels)[0]


class CachedDLELoss(GradCache, DLELoss):
    """`DLELoss` with the memory of a mini-batch: same values and gradients, but each input is embedded twice.

    All terms, including ranking and hardest negatives, use the whole batch. Only the gradient of the *sum* of the
    components is kept, so `backward` works on their plain sum, as the trainer computes it; single components are for
    logging. The stock `MatryoshkaLoss` can wrap this loss, and sums each component over the dimensions; learned terms
    then cannot train. For memory and several processes, see `CachedSupConNLILoss`.

    Source: GradCache (Gao et al. 2021, arXiv 2101.06983), as implemented in stock.

    Args:
        model: The model to train; the arguments not described here are those of `DLELoss`.
        embed_once: Embed every distinct input once in each of the two passes, sorted by length.
        mini_batch_size: Inputs per mini-batch; more is faster.
        mini_batch_num_tokens: Alternatively, tokens per mini-batch including image tokens, without padding; a longer
            input becomes a mini-batch of its own.
        show_progress_bar: Show the progress over the mini-batches.
        max_matrix_bytes: Largest similarity matrix in memory, in bytes. The loss is evaluated for as many rows at a
            time as fit, together with its backward pass, so that a batch of any size needs about six such matrices.
            None evaluates all rows at once, in (rows × candidates).

    Inputs:
        As for `DLELoss`.

    Returns:
        The components, as for `DLELoss`.

    Raises:
        ValueError: The mini-batch size is not positive, the model has a `StaticEmbedding`, or as for `DLELoss`; in
            backward, the components were not simply summed.

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
        embed_once: bool = True,
        num_positives: int = 1,
        balance: Balance | BalanceName | None = None,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        max_matrix_bytes: int | None = MAX_MATRIX_BYTES,
    ) -> None:
        super().__init__(
            model,
            tasks=tasks,
            negatives=negatives,
            mask_duplicates=mask_duplicates,
            gather_across_devices=gather_across_devices,
            embed_once=embed_once,
            num_positives=num_positives,
            balance=balance,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar, max_matrix_bytes)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Embed the columns and return the components of the loss; the backward pass of their sum embeds again."""
        names = [name for task in self.tasks for name in task.components]
        before = self._evaluations
        total, values = self._cached(sentence_features, labels)
        learned = self._gradients_of_terms()
        gradients = [torch.ones_like(total), *learned.values()]
        components = SummedGradient.apply(values, gradients, total, *(self.learned[name] for name in learned))
        if (penalty := self._penalty(self._evaluations - before)) is not None:
            components = components + (penalty - penalty.detach()).to(components)
        return dict(zip(names, components.unbind(), strict=True))

    def _learned(self) -> Iterable[Tensor]:
        return self.learned.values()

    def _gradients_of_terms(self) -> dict[str, Tensor | None]:
        """The gradient for the parameters of each learned term; empty if there are none, or in evaluation."""
        if isinstance(self.calculate_loss, CachedLossDecorator) and self._learned_gradients and self.learned:
            raise ValueError(
                f"{next(iter(self.learned))} cannot train in MatryoshkaLoss, which evaluates a batch once for each "
                "dimension: use DLELoss"
            )
        found, self._learned_gradients = self._learned_gradients, []
        return dict(zip(self.learned, found[0], strict=True)) if found else {}

    def _penalty(self, evaluations: int) -> Tensor | None:
        """What the parameters of the strategy get their gradient from; its values are in the components."""
        if self.balance is None or self._measured is None or not evaluations:
            return None
        penalty = self.balance.penalty(self._measured)
        if penalty is not None and evaluations > 1:
            raise in_matryoshka(self.balance)
        return penalty
