"""Private parts of torch that tell what the CPU can do."""

from __future__ import annotations

import torch


def multiplies_bytes() -> bool:
    """Whether the CPU has instructions for dot products of 8-bit numbers (VNNI).

    ``torch.cpu._is_vnni_supported`` knows; the public ``get_capabilities`` is newer than the oldest torch we accept. If
    the name disappears, graphs run in float32, which is slower; `tests/graphs/test_graph_model.py` fails.
    """
    return bool(getattr(torch.cpu, "_is_vnni_supported", lambda: False)())
