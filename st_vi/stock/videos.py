"""Stock's readers of video files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from transformers.utils.import_utils import is_av_available, is_decord_available, is_torchcodec_usable
from transformers.video_utils import VIDEO_DECODERS

_USABLE: dict[str, Callable[[], bool]] = {
    "torchcodec": lambda: is_torchcodec_usable(decode="video"),
    "pyav": is_av_available,
    "decord": is_decord_available,
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
