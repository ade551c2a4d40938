"""Explorer of attention pooling on images: patch weights and the effect of masking patches."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.inputs.kinds import as_texts
from st_vi.inspection.patch_masks import mask_patches
from st_vi.inspection.patches import Patch, PatchView, patch_box, pixel_budget, view_patches
from st_vi.inspection.query_maps import QueryMap, query_map
from st_vi.viz.lasso import drawn_lines, inside
from st_vi.viz.patches import (
    mass_bars,
    patch_map,
    resolutions_side_by_side,
    similarity_bars,
    with_opacity_slider,
    with_value_menu,
)
from st_vi.viz.pictures import is_transparent, readable
from st_vi.viz.widgets.explorer import Explorer, beside, wrapping

TOKEN_PIXELS = 28 * 28  # of Qwen2-VL
TRANSPARENT = "This image has transparent parts. It is shown and encoded on white."
COLOURS = {"weight": "weights", "cosine with the query": "similarity", "cosine falls by": "fall"}
NO_QUERY = "The query is empty, so there is nothing to compare the image with."


class PatchExplorer(Explorer):
    """Mask patches of an image by click or lasso, and see how its similarity to a text changes.

    A weight alone does not show importance. The explorer compares the cosine with the query for the original image,
    with the patches painted in the mean colour and encoded again, with the patches only left out of the pooling, and
    with the same number of random patches painted. The colours are those weights, or how much each patch supports the
    query (see `query_map`). Click a masked patch to restore it. Without a kernel, the map has a menu of the values and
    a slider for its opacity.

    Args:
        model: Model with a `Qwen2VLTransformer` and attention pooling.
        pictures: Name to image, at least one.
        text: Initial text encoded with the image.
        query: Initial text to compare with.
        prompt_name: Name of the prompt for the image; the query has none.
        budgets: Pixel budgets in increasing order, shown side by side. Defaults to a quarter, half and all of the
            model's budget, which is added if missing. Images are only scaled down to a budget, never up.
        budget: Initial pixel budget; None for the model's.

    Attributes:
        effect: The `MaskEffect` that is shown.
        masked: Set of (row, column) of the masked patches.
        map: The heat map, a `LiveFigure`; the other figures are `similarities`, `masses` and `resolutions`.

    Raises:
        ValueError: The model does not accept images or has no attention pooling, or there is no image, or the first one
            cannot be read.

    Example:
        >>> from st_vi import load
        >>> from st_vi.data.generated.scenes import draw, scene
        >>> from st_vi.viz import PatchExplorer
        >>> pictures = {"scene": draw(scene("test", 0), size=224)}
        >>> PatchExplorer(load("poly-mini"), pictures, query="Một hình tròn đỏ.")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: SentenceTransformer,
        pictures: Mapping[str, Image.Image],
        text: str = "",
        query: str = "",
        *,
        prompt_name: str | None = None,
        budgets: Sequence[int] | None = None,
        budget: int | None = None,
    ) -> None:
        if not pictures:
            raise ValueError("there is no image: pass at least one")
        self.model, self.pictures, self.prompt_name = model, dict(pictures), prompt_name
        self.masked: set[Patch] = set()
        self.name = next(iter(pictures))
        self.shown = readable(self.name, self.pictures[self.name])
        view_patches(model, self.shown, text, prompt_name=prompt_name)  # raises early if the model is unsuitable
        own: Any = model[0].max_pixels
        self._masked_at = budget or own
        self.budgets = sorted({own, self._masked_at, *(budgets or (own // 4, own // 2))})
        self._make_controls(text, query, self._masked_at)
        super().__init__([], self._static_twin)
        self.map: Any = None
        self.similarities: Any = None
        self.masses: Any = None
        self.resolutions: Any = None
        self._encode()
        rows = [
            wrapping(self.picture, self.upload, self.budget, self.clear),
            *(self.text, self.query, wrapping(self.colours, self.opacity, self.colour_range)),
            *(beside(self.map, [self.similarities, self.masses]), self.resolutions),
        ]
        self.children = (self.notice, *rows)
        self._listen()

    def _make_controls(self, text: str, query: str, budget: int) -> None:
        auto, wide = {"description_width": "auto"}, {"width": "95%"}
        self.picture = w.Dropdown(options=list(self.pictures), description="picture", style=auto)
        self.upload = w.FileUpload(accept="image/*", description="upload")
        named = [(f"at most {_patches(pixels)} patches", pixels) for pixels in self.budgets]
        self.budget = w.Dropdown(options=named, value=budget, description="pixel budget", style=auto)
        self.clear = w.Button(description="clear mask")
        self.colours = w.Dropdown(options=COLOURS, description="colours", style=auto)
        self.text = w.Text(text, description="text", continuous_update=False, layout=wide)
        self.query = w.Text(query, description="query", continuous_update=False, layout=wide)
        self.opacity = w.FloatSlider(0.55, min=0, max=1, step=0.05, description="opacity", style=auto)
        self.colour_range = w.FloatRangeSlider(
            value=(0, 1), min=0, max=1, step=0.05, description="colour range", style=auto
        )

    def _listen(self) -> None:
        self.on_change(self.upload, self._upload)
        for control in (self.picture, self.text):
            self.on_change(control, self._encode)
        for control in (self.budget, self.query, self.colours):
            self.on_change(control, self._look)
        for control in (self.opacity, self.colour_range):
            self.on_change(control, self._colour)
        self.clear.on_click(lambda _: self.guarded(lambda: self._mask(set())))
        self.map.data[0].on_click(lambda trace, points, state: self.guarded(lambda: self._clicked(points.point_inds)))
        # Lassos are read from the layout, because plotly's on_selection loses events that a hover follows.
        self.map.layout.on_change(lambda *_: self._lassoed(), "selections")

    # Controls

    def _upload(self) -> None:
        if not self.upload.value:
            return
        name, content = self.upload.value[0]["name"], bytes(self.upload.value[0]["content"])
        readable(name, content)
        picture = Image.open(io.BytesIO(content))
        again = self.picture.value == name
        self.pictures = {name: picture, **{other: old for other, old in self.pictures.items() if other != name}}
        self.picture.options = list(self.pictures)  # selects the first
        if again:
            self._encode()

    def _encode(self) -> None:
        """Encode a new image or text and redraw; nothing changes if the image cannot be encoded."""
        name = self.picture.value
        picture, views = readable(name, self.pictures[name]), {}
        for pixels in self.budgets:
            with pixel_budget(self.model, pixels):
                views[pixels] = self._view(picture)
        if name != self.name:
            self.masked = set()
        self.name, self.shown, self.views = name, picture, views
        self._query_maps: dict[tuple[str, int], QueryMap] = {}
        maps = {f"{pixels:,} px": view.maps[0] for pixels, view in views.items()}
        panels = resolutions_side_by_side(picture, maps, opacity=self.opacity.value)
        self.resolutions = self.redraw(self.resolutions, panels)
        self._look()

    def _view(self, picture: Image.Image) -> PatchView:
        try:
            return view_patches(self.model, picture, self.text.value, prompt_name=self.prompt_name)
        except ValueError as error:  # the processor knows only the number of the image
            raise ValueError(f"{self.picture.value}: {str(error).rpartition(': ')[2]}") from error

    def _look(self) -> None:
        """Compare the original and the masked image with the query."""
        if self.budget.value != self._masked_at:
            self.masked = set()  # they belong to another grid
        self._masked_at = self.budget.value
        blank = not self.query.value.strip()
        query = torch.zeros_like(self.views[self.budget.value].embedding)
        if not blank:
            query = self._query_vector()
        settings = {"text": self.text.value, "prompt_name": self.prompt_name, "draws": 5 if self.masked else 1}
        with pixel_budget(self.model, self.budget.value):
            self.effect = mask_patches(self.model, self.shown, sorted(self.masked), query, **settings)
            kind = self.colours.value
            self.values = self._weights() if kind == "weights" else getattr(self._query_map(query), kind)
        self._show()
        self.show_notice(" ".join([NO_QUERY] * blank + [TRANSPARENT] * is_transparent(self.pictures[self.name])))

    def _query_vector(self) -> Tensor:
        return self.model.encode(as_texts(self.model, [self.query.value]), convert_to_tensor=True)[0]

    def _query_map(self, query: Tensor) -> QueryMap:
        """For the query and the resolution that are set; kept with the views, as each patch takes a forward pass."""
        key = self.query.value, self.budget.value
        if key not in self._query_maps:
            self._query_maps[key] = query_map(
                self.model, self.shown, query, self.text.value, prompt_name=self.prompt_name
            )
        return self._query_maps[key]

    def _mask(self, masked: set[Patch]) -> None:
        self.masked = masked
        self._look()

    def _clicked(self, places: Sequence[Sequence[int]]) -> None:
        if places:
            self._mask(self.masked ^ {(int(places[0][0]), int(places[0][1]))})

    def _lassoed(self) -> None:
        drawn = drawn_lines(self.map)
        if not drawn:
            return
        self.map.plotly_relayout({"selections": []})  # though invisible, it would catch the mouse during the next lasso
        found = self._patches_inside(drawn[-1])
        if found - self.masked:
            self.guarded(lambda: self._mask(self.masked | found))

    def _patches_inside(self, selection: Mapping[str, Any]) -> set[Patch]:
        """The patches whose centres are in a lasso or a box."""
        grid: Any = self._weights().shape
        patches: Any = list(np.ndindex(grid))
        boxes = np.array([patch_box(patch, self.shown.size, grid) for patch in patches])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        return {patch for patch, is_inside in zip(patches, inside(centres, selection), strict=True) if is_inside}

    # Drawing

    def _show(self) -> None:
        """Draw the results of `_look`."""
        effect, count = self.effect, len(self.masked)
        self.map = self.redraw(self.map, self._overlay(self._title()))
        cosines, masses = {"as it is": effect.similarity}, {"as it is": _mass(effect.whole)}
        if count:
            cosines |= {"painted": effect.painted_similarity, "out of the pool": effect.unpooled_similarity}
            masses["painted"] = _mass(effect.painted)
        random = effect.random_similarities if count else ()
        bars = similarity_bars(cosines, random, "Cosine with the query")
        self.similarities = self.redraw(self.similarities, bars)
        pooled = mass_bars(masses, "What is pooled")
        pooled.layout.height = 210  # a page that learns of another height no longer follows the width
        self.masses = self.redraw(self.masses, pooled)

    def _title(self) -> str:
        (rows, columns), count = self._weights().shape, len(self.masked)
        return f"{self.name}: {rows} × {columns} patches" + (f", {count} masked" if count else "")

    def _weights(self) -> Tensor:
        return (self.effect.painted if self.masked else self.effect.whole).maps[0]

    def _range(self) -> tuple[float, float]:
        """Values of the lowest and highest colour; never equal, so that there is a scale."""
        (low, high), largest = self.colour_range.value, float(self.values.max())
        least = 0.0 if self.colours.value == "weights" else float(self.values.min())
        room = max(largest - least, 1e-6)
        return least + low * room, least + max(high, low + 0.01) * room

    def _overlay(self, title: str) -> go.Figure:
        looks = {"opacity": self.opacity.value, "colour_range": self._range(), "name": self.colours.label}
        return patch_map(self.shown, self.values, self.masked, title=title, **looks)

    def _colour(self) -> None:
        low, high = self._range()
        with self.map.batch_update():
            self.map.data[0].update(opacity=self.opacity.value, zmin=low, zmax=high)
        with self.resolutions.batch_update():
            for heat in self.resolutions.data:
                heat.opacity = self.opacity.value

    def _static_twin(self) -> go.Figure:
        query = self.query.value.strip()
        figure = with_opacity_slider(self._overlay(self._title() + (f" · {query}" if query else "")))
        if not query:
            return figure
        with pixel_budget(self.model, self.budget.value):
            found = self._query_map(self._query_vector())
        of_query = {name: getattr(found, kind) for name, kind in COLOURS.items() if kind != "weights"}
        return with_value_menu(figure, {"weight": self._weights(), **of_query})


def _patches(pixels: int) -> int:
    return max(1, pixels // TOKEN_PIXELS)


def _mass(view: PatchView) -> dict[str, float]:
    return {"image": view.image, "text": view.text, "special tokens": view.special}
