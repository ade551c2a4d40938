"""Values of a whole batch, computed once for all blocks of its rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor


class Once:
    """Computes each value once, and lets blocks of rows backpropagate one after the other.

    With `cut`, a value has no graph behind it, so that the backward pass of a block ends there and can be repeated. The
    gradients of all blocks add up in its ``grad``; `backward` then passes them on, from the last value to the first.

    Args:
        cut: Whether to cut the graph behind each value.

    Example:
        >>> import torch
        >>> from st_vi.terms.once import Once
        >>> x, once = torch.ones(2, requires_grad=True), Once(cut=True)
        >>> for row in range(2):
        ...     once("twice", lambda: 2 * x)[row].backward()
        >>> once.backward()
        >>> x.grad
        tensor([2., 2.])
    """

    def __init__(self, cut: bool = False) -> None:
        self.cut = cut
        self._values: dict[Hashable, Any] = {}
        # What was computed together, with its graph and without; what others need comes first.
        self._cuts: list[list[tuple[Tensor, Tensor]]] = []

    def __call__(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The value of `key`: what ``compute()`` returned the first time, a tensor or a tuple of tensors."""
        if key not in self._values:
            self._values[key] = self._detached(compute()) if self.cut else compute()
        return self._values[key]

    def backward(self) -> None:
        """Pass the gradients of the cut values on to what they were computed from; each value is then forgotten."""
        self._values.clear()
        while self._cuts:
            used = [(value, end.grad) for value, end in self._cuts.pop() if end.grad is not None]
            if used:
                torch.autograd.backward([value for value, _ in used], [gradient for _, gradient in used])

    def _detached(self, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        ends = [part.detach().requires_grad_() if part.requires_grad else part for part in parts]
        self._cuts.append([(part, end) for part, end in zip(parts, ends, strict=True) if part.requires_grad])
        return tuple(ends) if isinstance(value, tuple) else ends[0]
