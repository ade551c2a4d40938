"""GradCache over the distinct inputs of a batch, in mini-batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import (
    CachedLossMixin,
    RandContext,
    has_static_embedding_input,
)
from sentence_transformers.sentence_transformer.losses import adaptive_layer
from sentence_transformers.util import get_world_size
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from st_vi.checks import check_whole
from st_vi.inputs.lazy import LazyInputs
from st_vi.losses.columns import content_ids, listed
from st_vi.losses.embed import Inputs, representatives
from st_vi.losses.lazy import LazyBatch, LazyPart, lazy_columns
from st_vi.stock.models import reads_flat
from st_vi.stock.training import uncompiled


class GradCache:
    """Mixin for a loss with `compute_loss_from_embeddings`, which then needs only the memory of one mini-batch.

    The batch is embedded twice: first without gradients, for the loss of the whole batch and its gradient at the
    embeddings; then again in the backward pass, one mini-batch at a time and with the same dropout. The loss is
    evaluated for as many rows at a time as `max_matrix_bytes` allows.

    Source: GradCache (Gao et al. 2021, arXiv 2101.06983), with stock's ``CachedLossMixin``. New here: with
    `embed_once`, the "columns" that it embeds are the distinct inputs of all columns, sorted by length.
    """

    model: Any
    embed_once: bool
    compute_loss_from_embeddings: Callable[..., Any]
    max_matrix_bytes: int | None

    uses_gradient_cache = True  # tells stock's wrappers to decorate `calculate_loss`

    def _set_mini_batches(
        self, size: int, num_tokens: int | None, show_progress_bar: bool, max_matrix_bytes: int | None
    ) -> None:
        check_whole("mini_batch_size", size)
        if num_tokens is not None:
            check_whole("mini_batch_num_tokens", num_tokens)
        if max_matrix_bytes is not None:
            check_whole("max_matrix_bytes", max_matrix_bytes)
        model = getattr(self.model, "module", self.model)  # inside DDP
        if isinstance(model, SentenceTransformer) and has_static_embedding_input(model):
            raise ValueError("the inputs of a StaticEmbedding cannot be split into mini-batches: use the uncached loss")
        self.mini_batch_size = size
        self.mini_batch_num_tokens = num_tokens
        self.show_progress_bar = show_progress_bar
        self.max_matrix_bytes = max_matrix_bytes
        self._learned_gradients: list[Sequence[Tensor | None]] = []  # of each evaluation of the last batch

    def _cached(self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None) -> tuple[Tensor, Any]:
        """The loss, whose backward pass embeds again, and the detached values of `calculate_loss`."""
        self._learned_gradients = []
        model = uncompiled(self.model)
        model = getattr(model, "module", model)  # inside DDP
        if isinstance(getattr(model, "forward", None), adaptive_layer.ForwardDecorator):
            raise ValueError(
                f"{type(self).__name__} cannot be in AdaptiveLayerLoss, which keeps the layers of one pass over the "
                f"batch: use {type(self).__name__.removeprefix('Cached')}"
            )
        columns = listed(sentence_features)
        if lazy := lazy_columns(columns):
            return self._cached_lazily(lazy, labels)
        ids = content_ids(columns)
        once = self.embed_once and _may_differ_in_forwards(self.model)
        inputs = Inputs.read(columns, reads_flat(self.model)) if once else None
        parts: Any
        parts, order = (columns, None) if inputs is None else _sorted_parts(inputs, ids)
        device = next(value.device.type for value in columns[0].values() if isinstance(value, Tensor))
        step = _Step(self, ids, order, device)
        return step.forward_cached(parts, labels), step.values

    def _cached_lazily(self, columns: list[LazyInputs], labels: Tensor | None) -> tuple[Tensor, Any]:
        """The same for columns whose images are opened in both passes, mini-batch by mini-batch."""
        model: Any = uncompiled(self.model)
        model = getattr(model, "module", model)  # inside DDP
        device = next(model.parameters()).device if labels is None else labels.device
        batch = LazyBatch(columns, model, device)
        if self.mini_batch_num_tokens is not None and not batch.counts_tokens:
            raise ValueError(
                f"{type(model[0]).__name__} cannot count the tokens of images that are not opened yet: with "
                "lazy_images, use mini_batch_size instead of mini_batch_num_tokens"
            )
        if self.embed_once and _may_differ_in_forwards(self.model):
            stands_for = representatives(batch, batch.ids)
            chosen = batch.by_image(sorted(set(stands_for)))
            parts = [LazyPart(batch, chosen)]
            order: list[Tensor] | None = _places(stands_for, chosen, batch.sizes, device)
        else:
            columns_of = torch.arange(len(batch.places)).split(batch.sizes)
            parts, order = [LazyPart(batch, numbers.tolist()) for numbers in columns_of], None
        step = _Step(self, None, order, device.type)
        step.lazy = batch
        return step.forward_cached(parts, labels), step.values  # type: ignore[arg-type]

    def calculate_loss(
        self,
        reps: list[list[Tensor]],
        labels: Tensor | None = None,
        *,
        with_backward: bool = False,
        ids: list[Tensor] | None = None,
        order: list[Tensor] | None = None,
    ) -> Tensor:
        """The loss of the whole batch from embedded mini-batches; stock's `MatryoshkaLoss` decorates this method.

        Args:
            reps: Mini-batches (b, D) of each column, or, with an `order`, of each group of distinct inputs.
            labels: As for `compute_loss_from_embeddings`.
            with_backward: Backpropagate the sum to `reps`, and return detached values.
            ids: As for `compute_loss_from_embeddings`.
            order: For each column (B,) int, the places of its inputs in `reps`; None if `reps` are the columns.

        Returns:
            The loss, (); or one value for each component, (K,).
        """
        embeddings = _columns(reps, order)
        if with_backward:  # by hand, as autograd would keep a gradient of all mini-batches for each column
            embeddings = [column.detach().requires_grad_() for column in embeddings]
        values = self.compute_loss_from_embeddings(embeddings, labels, ids)
        if isinstance(values, dict):
            values = torch.stack(list(values.values()))
        if with_backward:
            # Parameters of the loss get their gradient in the caller's backward pass instead, with the caller's scale.
            inputs = [*embeddings, *self._learned()]
            with torch.autocast(values.device.type, enabled=False):
                gradients: list[Tensor | None] = list(torch.autograd.grad(values.sum(), inputs, allow_unused=True))
            values, count = values.detach(), len(embeddings)
            del embeddings, inputs  # as large as their gradients, which need the space now
            self._learned_gradients.append(gradients[count:])
            del gradients[count:]
            _pass_on(gradients, reps, order)
        return values

    def _embedder(self) -> Any:
        """What embeds a mini-batch."""
        return self.model

    def _learned(self) -> Iterable[Tensor]:
        """The parameters of learned terms."""
        return ()

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return super().get_config_dict() | {  # type: ignore[misc]
            "mini_batch_size": self.mini_batch_size,
            "mini_batch_num_tokens": self.mini_batch_num_tokens,
            "max_matrix_bytes": self.max_matrix_bytes,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the methods, for the model card."""
        return f"""{getattr(super(), "citation", "").rstrip()}

@misc{{gao2021scaling,
    title = "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    author = "Luyu Gao and Yunyi Zhang and Jiawei Han and Jamie Callan",
    year = "2021",
    eprint = "2101.06983",
    archivePrefix = "arXiv",
    url = "https://arxiv.org/abs/2101.06983",
}}
"""


def _columns(reps: list[list[Tensor]], order: list[Tensor] | None) -> list[Tensor]:
    if order is None:
        return [torch.cat(column) for column in reps]
    distinct = torch.cat([embedded for part in reps for embedded in part])
    return [distinct[places] for places in order]


def _pass_on(gradients: list[Tensor | None], reps: list[list[Tensor]], order: list[Tensor] | None) -> None:
    """Pass the gradients of the columns on to the mini-batches that they were made of."""
    if order is not None:
        embedded = [mini_batch for part in reps for mini_batch in part]
        gradients, reps = [_at_places(gradients, order, embedded)], [embedded]
    for gradient, parts in zip(gradients, reps, strict=True):
        if gradient is not None:  # else stock names the unused column
            torch.autograd.backward(parts, gradient.split([len(embedded) for embedded in parts]))


def _at_places(gradients: list[Tensor | None], order: list[Tensor], embedded: list[Tensor]) -> Tensor:
    """The gradients of the columns at the places of their inputs in `embedded`; the list is empty afterwards."""
    total = embedded[0].new_zeros(sum(map(len, embedded)), embedded[0].shape[1])
    for places in order:
        if (gradient := gradients.pop(0)) is not None:
            total.index_add_(0, places, gradient)
    return total


class _Step(CachedLossMixin):
    """One forward and backward pass of a cached loss, with the state of this batch."""

    def __init__(self, loss: Any, ids: list[Tensor] | None, order: list[Tensor] | None, device: str) -> None:
        self.loss = loss
        self.model = loss._embedder()
        self.mini_batch_size = loss.mini_batch_size
        self.mini_batch_num_tokens = loss.mini_batch_num_tokens
        self.show_progress_bar = loss.show_progress_bar
        self.batch: dict[str, Any] = {"ids": ids, "order": order}
        self.values: Tensor | None = None
        self.lazy: LazyBatch | None = None
        self.contents: list[list[Tensor] | None] = []  # of each mini-batch of the first pass, if it is lazy
        # The second pass runs in backward, after the caller's autocast has ended. Without a cache, as some versions of
        # torch would reuse the weights that the first pass cast without gradients.
        self.autocast: dict[str, Any] = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
            "cache_enabled": False,
        }

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        if self.lazy and None not in self.contents:
            ids: Tensor = torch.cat([some for (some,) in self.contents])  # type: ignore[misc]
            order = self.batch["order"]
            self.batch["ids"] = list(ids.split(self.lazy.sizes)) if order is None else [ids[places] for places in order]
        # Looked up each time: a wrapper may have replaced it.
        self.values = self.loss.calculate_loss(reps, labels, with_backward=with_backward, **self.batch)
        return self.values.sum()

    def embed_minibatch_iter(
        self,
        sentence_feature: dict[str, Tensor],
        with_grad: bool,
        copy_random_state: bool,
        random_states: list[RandContext] | None = None,
        ranges: list[tuple[int, int]] | None = None,
    ) -> Iterator[tuple[Tensor, RandContext | None]]:
        how: dict[str, Any] = {"with_grad": with_grad, "copy_random_state": copy_random_state}
        if not isinstance(sentence_feature, LazyPart):
            yield from super().embed_minibatch_iter(sentence_feature, **how, random_states=random_states, ranges=ranges)
            return
        assert ranges is not None  # stock's passes share them
        progress = tqdm(ranges, desc="Embed mini-batches", disable=not self.show_progress_bar)
        for number, ((begin, end), features) in enumerate(
            zip(progress, sentence_feature.mini_batches(ranges), strict=True)
        ):
            if not with_grad:
                self.contents.append(content_ids([features]))
            state = random_states[number] if random_states else None
            yield self.embed_minibatch(features, 0, end - begin, **how, random_state=state)

    def embed_minibatch(  # type: ignore[override]
        self, sentence_feature: dict[str, Any], begin: int, end: int, **how: Any
    ) -> tuple[Tensor, RandContext | None]:
        if isinstance(sentence_feature, _Part):
            sentence_feature = sentence_feature.inputs.features(sentence_feature.numbers[begin:end])
            begin, end = 0, end - begin
        with torch.autocast(**self.autocast):
            return super().embed_minibatch(sentence_feature, begin, end, **how)


class _Part(dict[str, Tensor]):
    """Some inputs in place of a column for stock's mixin, which splits it by its attention mask."""

    def __init__(self, inputs: Inputs, numbers: list[int]) -> None:
        super().__init__(attention_mask=inputs.tokens["attention_mask"][numbers])
        self.inputs = inputs
        self.numbers = numbers


def _sorted_parts(inputs: Inputs, ids: Sequence[Tensor] | None) -> tuple[list[_Part], list[Tensor]]:
    """Distinct inputs by length, in parts that can be embedded together; and the places of each column's inputs."""
    stands_for = representatives(inputs, ids)
    kinds: dict[Any, list[int]] = {}
    for number in sorted(set(stands_for), key=lambda number: inputs.lengths[number]):
        # Without a known padding token, only inputs of one length go together.
        length = inputs.lengths[number] if inputs.pad is None and not inputs.flat else None
        kinds.setdefault((inputs.metadata[number], length), []).append(number)
    parts = [_Part(inputs, numbers) for numbers in kinds.values()]
    chosen = [number for part in parts for number in part.numbers]
    return parts, _places(stands_for, chosen, inputs.sizes, parts[0]["attention_mask"].device)


def _places(stands_for: list[int], chosen: list[int], sizes: list[int], device: torch.device) -> list[Tensor]:
    """For each column, the places of its inputs' representatives among the chosen ones."""
    place = {number: place for place, number in enumerate(chosen)}
    return list(torch.tensor([place[number] for number in stands_for], device=device).split(sizes))


def _may_differ_in_forwards(model: nn.Module) -> bool:
    """Whether processes may differ in their number of forwards.

    Sharded models communicate in every forward, DDP only once before and once after GradCache's passes.
    """
    return get_world_size() == 1 or isinstance(uncompiled(model), DistributedDataParallel)
