"""Plotly figures and notebook explorers of models. Needs ``pip install "st-vi[notebooks]"``.

Names are imported on first use. Every explorer also has a static version that needs no kernel, and a picture.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "GeometryExplorer": "st_vi.viz.widgets.geometry_explorer",
    "LinkedMaps": "st_vi.viz.widgets.linked_maps",
    "LossLaboratory": "st_vi.viz.widgets.loss_laboratory",
    "PatchExplorer": "st_vi.viz.widgets.patch_explorer",
    "PoolExplorer": "st_vi.viz.widgets.pool_explorer",
    "RankingExplorer": "st_vi.viz.widgets.ranking_explorer",
    "alignment_uniformity_plane": "st_vi.viz.plane",
    "gradient_share_bars": "st_vi.viz.dynamics",
    "highlight": "st_vi.viz.tokens",
    "loss_components": "st_vi.viz.dynamics",
    "patch_map": "st_vi.viz.patches",
    "project": "st_vi.viz.projection",
    "rank_slopes": "st_vi.viz.ranks",
    "recall_bars": "st_vi.viz.ranks",
    "scatter": "st_vi.viz.maps",
    "similarity_histogram": "st_vi.viz.distributions",
    "spectrum": "st_vi.viz.distributions",
    "still": "st_vi.viz.stills.picture",
    "use_stills": "st_vi.viz.stills.picture",
    "weight_bars": "st_vi.viz.tokens",
}

__all__ = [
    "GeometryExplorer",
    "LinkedMaps",
    "LossLaboratory",
    "PatchExplorer",
    "PoolExplorer",
    "RankingExplorer",
    "alignment_uniformity_plane",
    "gradient_share_bars",
    "highlight",
    "loss_components",
    "patch_map",
    "project",
    "rank_slopes",
    "recall_bars",
    "scatter",
    "similarity_histogram",
    "spectrum",
    "still",
    "use_stills",
    "weight_bars",
]

if TYPE_CHECKING:
    from st_vi.viz.distributions import similarity_histogram, spectrum
    from st_vi.viz.dynamics import gradient_share_bars, loss_components
    from st_vi.viz.maps import scatter
    from st_vi.viz.patches import patch_map
    from st_vi.viz.plane import alignment_uniformity_plane
    from st_vi.viz.projection import project
    from st_vi.viz.ranks import rank_slopes, recall_bars
    from st_vi.viz.stills.picture import still, use_stills
    from st_vi.viz.tokens import highlight, weight_bars
    from st_vi.viz.widgets.geometry_explorer import GeometryExplorer
    from st_vi.viz.widgets.linked_maps import LinkedMaps
    from st_vi.viz.widgets.loss_laboratory import LossLaboratory
    from st_vi.viz.widgets.patch_explorer import PatchExplorer
    from st_vi.viz.widgets.pool_explorer import PoolExplorer
    from st_vi.viz.widgets.ranking_explorer import RankingExplorer


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
