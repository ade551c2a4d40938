"""Videos: stock's readers of files, and what its older versions do otherwise."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.utils import import_utils
from transformers.video_utils import VIDEO_DECODERS


def _has_torchcodec() -> bool:
    usable = getattr(import_utils, "is_torchcodec_usable", None)  # transformers 5.5 only looks whether it is installed
    return bool(usable(decode="video") if usable else import_utils.is_torchcodec_available())


_USABLE: dict[str, Callable[[], bool]] = {
    "torchcodec": _has_torchcodec,
    "pyav": import_utils.is_av_available,
    "decord": import_utils.is_decord_available,
}
NEEDED = "it needs a video decoder: pip install torchcodec (or av)"


def read_video(source: Any, sample: Callable[..., Any]) -> Any:
    """Frames (T, H, W, 3) of a video file, by the first of stock's readers whose library is installed.

    `VIDEO_DECODERS` are the readers behind ``transformers.video_utils.load_video``, which takes no bytes.

    Args:
        source: A path or bytes.
        sample: Given the metadata of the file, the indices of the frames to read.

    Raises:
        ImportError: None of the libraries is installed.
    """
    backend = next((name for name, usable in _USABLE.items() if usable()), None)
    if backend is None:
        raise ImportError(NEEDED)
    file: Any = io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else str(source)
    frames, _ = VIDEO_DECODERS[backend](file, sample)
    # torchcodec gives (T, 3, H, W), the others (T, H, W, 3).
    return frames.numpy() if hasattr(frames, "numpy") else frames


def share_pixels(processor: Any) -> int | None:
    """Let the frames of a long video share a budget of pixels, as in the code of Qwen2-VL's authors.

    Newer processors still warn that they will do so by default. That of transformers 5.5 cannot, and would give long
    videos larger frames, and so other vectors.

    Args:
        processor: A video processor of Qwen2-VL.

    Returns:
        The number of frames up to which that of transformers 5.5 does the same as newer ones, and None for these.
    """
    if not hasattr(processor, "cap_pixels_per_frame"):
        budget = int(128_000 * (processor.patch_size * processor.merge_size) ** 2 * 0.9)  # for each frame of a pair
        return int(budget * processor.temporal_patch_size // processor.size["longest_edge"])
    if processor.cap_pixels_per_frame is None:
        processor.cap_pixels_per_frame = True
    return None


def place_moments(model: Any) -> None:
    """Give each visual token of a video its time, row and column, where stock mixes them up.

    ``get_vision_position_ids`` of transformers 5.5 gives all moments of a video the same time and rows that are not
    theirs, and in Qwen2.5-VL it multiplies the time at which an image starts. Newer ones do the same as this.

    Args:
        model: A Qwen2-VL or Qwen2.5-VL without a head.
    """
    times = model.get_vision_position_ids(0, torch.tensor([2, 1, 1]))[0]
    if times.tolist() != [0, 1]:
        model.get_vision_position_ids = _places


def _places(
    start_position: int,
    grid_thw: Any,
    temp_merge_size: int = 1,
    spatial_merge_size: int = 1,
    time_interval: float = 1,
    device: Any = None,
) -> Tensor:
    """Time, row and column (3, tokens) of each token of an image or video, from its first position on."""
    moments, rows, columns = (int(count) for count in grid_thw)
    counts = (moments // temp_merge_size, rows // spatial_merge_size, columns // spatial_merge_size)
    places = torch.cartesian_prod(*(torch.arange(count, device=device) for count in counts)).T
    return (places * torch.tensor([[time_interval], [1], [1]], device=device)).long() + start_position
