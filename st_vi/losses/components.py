"""What a loss of several terms returns: scalars by name, which losses that wrap others can weight and add."""

from __future__ import annotations

from torch import Tensor

OTHER = "other"
"""The name of what a wrapping loss adds of its own."""


class Components(dict[str, Tensor]):
    """Scalars by name, for the stock trainer, which sums them; multiplied and added by name.

    The stock `MatryoshkaLoss` adds up the weighted loss of each dimension, beginning with 0; `AdaptiveLayerLoss` those
    of layers, and a divergence, which becomes the component "other".

    Example:
        >>> import torch
        >>> from st_vi.losses.components import Components
        >>> loss = 0.0
        >>> for weight in (1.0, 0.5):
        ...     loss += weight * Components(info_nce=torch.tensor(2.0), score_mse=torch.tensor(4.0))
        >>> {name: float(value) for name, value in loss.items()}
        {'info_nce': 3.0, 'score_mse': 6.0}
    """

    def __mul__(self, weight: float) -> Components:
        return Components({name: weight * value for name, value in self.items()})

    __rmul__ = __mul__

    def __truediv__(self, number: float) -> Components:
        return self * (1 / number)

    def __add__(self, other: Components | Tensor | float) -> Components:
        if isinstance(other, Tensor):
            return Components(self | {OTHER: self.get(OTHER, 0.0) + other})
        if not isinstance(other, Components):
            if other:
                raise TypeError(f"components can be added to components with the same names or to 0, got {other!r}")
            return self
        if different := (self.keys() ^ other.keys()) - {OTHER}:
            raise ValueError(f"these have other names: {sorted(different)}")
        return Components(self | {name: self[name] + value if name in self else value for name, value in other.items()})

    __radd__ = __add__
