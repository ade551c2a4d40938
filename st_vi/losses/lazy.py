"""Mini-batches of inputs whose images and videos are opened just before they are embedded."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from st_vi.inputs.content import Size
from st_vi.inputs.lazy import LazyInputs

Range = tuple[int, int]


def lazy_columns(columns: Sequence[Mapping[str, Any]]) -> list[LazyInputs] | None:
    """The inputs of a batch of `MixedTaskCollator(lazy_images=True)`; None if it is an ordinary batch."""
    found = [column.get("input_ids") for column in columns]
    lazy = [inputs for inputs in found if isinstance(inputs, LazyInputs)]
    return lazy if len(lazy) == len(columns) else None


class LazyBatch:
    """All inputs of the columns, numbered column after column, with the sizes and lengths that `Inputs` has.

    Args:
        columns: The columns.
        model: Preprocesses the inputs. If its first module has `count_tokens`, inputs are sorted by it.
        device: Where the features go.
    """

    def __init__(self, columns: Sequence[LazyInputs], model: Any, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.sizes = [len(column) for column in columns]
        self.places = [(column, row) for column in columns for row in range(len(column))]
        self.keys = [column.key(row) for column, row in self.places]
        self.metadata: list[Any] = [frozenset()] * len(self.places)

    @property
    def counts_tokens(self) -> bool:
        """Whether the model counts tokens without opening images."""
        return hasattr(self.model[0], "count_tokens")

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each input, by the sizes of its images; all 1 if the model cannot count them."""
        if not self.counts_tokens:
            return [1] * len(self.places)
        sizes: dict[Hashable, Size] = {}
        counts: dict[Hashable, int] = {}
        for key, (column, row) in zip(self.keys, self.places, strict=True):
            if key not in counts:
                counts[key] = self.model[0].count_tokens(column.texts[row], column.image_sizes(row, sizes))
        return [counts[key] for key in self.keys]

    @cached_property
    def ids(self) -> list[Tensor]:
        """(B,) int for each column, equal if texts and stored images are equal."""
        number = {key: number for number, key in enumerate(dict.fromkeys(self.keys))}
        return list(torch.tensor([number[key] for key in self.keys]).split(self.sizes))

    def by_image(self, numbers: Iterable[int]) -> list[int]:
        """Sorted by length, with inputs of the same images side by side: an image is most of the tokens."""
        groups: dict[Hashable, list[int]] = {}
        for number in numbers:
            groups.setdefault(self.keys[number][1:], []).append(number)
        texts = [[number] for number in groups.pop((), [])]
        ordered = sorted([*texts, *groups.values()], key=lambda group: self.lengths[group[0]])
        return [number for group in ordered for number in group]

    def features(self, numbers: Sequence[int], known: dict[Hashable, Any]) -> dict[str, Any]:
        """The features of these inputs on the CPU, as the model's `preprocess` gives them."""
        inputs = [column.opened(row, known) for column, row in map(self.places.__getitem__, numbers)]
        try:
            features: dict[str, Any] = self.model.preprocess(inputs)
        except Exception:
            for number, item in zip(numbers, inputs, strict=True):  # find the input that caused it
                try:
                    self.model.preprocess([item])
                except Exception as error:
                    column, row = self.places[number]
                    raise column.error(row, error) from error
            raise
        return features


class LazyPart(dict[str, Tensor]):
    """Some inputs in place of a column for stock's mixin, which splits it by its attention mask."""

    def __init__(self, batch: LazyBatch, numbers: Sequence[int]) -> None:
        lengths = [batch.lengths[number] for number in numbers]
        super().__init__(attention_mask=torch.tensor(lengths)[:, None])  # its sums are the numbers of tokens
        self.batch = batch
        self.numbers = numbers

    def mini_batches(self, ranges: Sequence[Range]) -> Iterator[dict[str, Any]]:
        """The features of each range; a thread prepares the next ones meanwhile.

        An image that the next mini-batch needs too stays open, so that each is opened once if equal images are
        neighbours.
        """
        known: dict[Hashable, Any] = {}

        def prepare(begin: int, end: int) -> dict[str, Any]:
            numbers = self.numbers[begin:end]
            wanted = {key for number in numbers for key in self.batch.keys[number][1:]}
            for key in known.keys() - wanted:
                del known[key]
            return self.batch.features(numbers, known)

        with ThreadPoolExecutor(1) as thread:
            ahead: Future[dict[str, Any]] | None = None
            for number in range(len(ranges)):
                current = ahead or thread.submit(prepare, *ranges[number])
                features = current.result()
                ahead = thread.submit(prepare, *ranges[number + 1]) if number + 1 < len(ranges) else None
                yield {
                    key: value.to(self.batch.device) if isinstance(value, Tensor) else value
                    for key, value in features.items()
                }
