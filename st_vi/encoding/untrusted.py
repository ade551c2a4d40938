"""Safe conversion of inputs from untrusted users."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import is_message_dict

from st_vi.checks import check_model
from st_vi.inputs.kinds import plain_text, shown, without_marks
from st_vi.inputs.pictures import of_base64, open_image
from st_vi.inputs.videos import open_video
from st_vi.text import is_blank, is_unicode

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # not EPS, for which Pillow starts Ghostscript
MAX_PIXELS = 50_000_000

_ROLES = ("system", "user", "assistant")
_PICTURES = "expected the bytes of an image, or these in base64; paths and addresses are not opened"


def untrusted_input(model: SentenceTransformer, value: Any, *, max_pixels: int = MAX_PIXELS) -> Any:
    """Convert untrusted data to an input for ``model.encode`` that opens no files or URLs.

    ``encode`` trusts its caller: a string may be the path of a local image, or a URL that it fetches. Here, every
    string is text, even if it is a URL, a path or ``data:…``, and special tokens of the model in it, such as
    ``<|image_pad|>``, ``</s>`` or a task prefix, are broken up with a space, also where the tokenizer makes them of
    other letters, as of ``＜/s＞``. Images are passed as bytes. Only known keys of a dict are kept.

    Limiting the length of a request is up to the server; texts beyond the maximum length are truncated as usual.

    Args:
        model: The model for the input.
        value: A JSON value: a text; ``{"text": …, "image": …, "video": …}`` with one image or a list of images, a video
            as the list of its frames or as one animated image, or only some of these keys; a message ``{"role": …,
            "content": …}``, or a list of messages. An image is bytes or base64, with or without
            ``data:image/…;base64,``. Video files such as mp4 are not decoded.
        max_pixels: Maximum size of an image, or of all frames of a video together, checked before decoding.

    Returns:
        ``{"text": …}``, ``{"image": …}``, ``{"video": …}``, combined as they came, or a conversation.

    Raises:
        ValueError: The value has none of these forms, has neither text (a blank one is none), image nor video, a text
            is not valid Unicode, or an image or a frame is invalid, too large or in a format that is not in `FORMATS`.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.encoding import untrusted_input
        >>> model = SentenceTransformer(modules=[BoW(["xin", "chào"])])
        >>> untrusted_input(model, "https://a.vn/meo.png")
        {'text': 'https://a.vn/meo.png'}
        >>> untrusted_input(model, {"image": "https://a.vn/meo.png"})
        Traceback (most recent call last):
        ValueError: 'image': expected the bytes of an image, or these in base64; paths and addresses are not opened
    """
    check_model(model)
    marks = _special_tokens(model)
    clean = partial(_without_tokens, marks, _normal_form(model))
    if isinstance(value, str):
        value = {"text": value}
    if is_message_dict(value):
        value = [value]
    if isinstance(value, list) and value and all(map(is_message_dict, value)):
        conversation = [_message(message, clean, max_pixels) for message in value]
        _check_something(part for message in conversation for part in message["content"])
        return without_marks(conversation, marks)
    if not isinstance(value, Mapping) or not value.keys() <= {"text", "image", "video"}:
        raise ValueError(f'expected a text, {{"text": …, "image": …}} or messages, got {shown(value)}')
    result: dict[str, Any] = {}
    if (pictures := value.get("image")) is not None:
        if isinstance(pictures, (list, tuple)):
            result["image"] = [_picture(one, f"'image' {n}", max_pixels) for n, one in enumerate(pictures)]
        else:
            result["image"] = _picture(pictures, "'image'", max_pixels)
    if (video := value.get("video")) is not None:
        result["video"] = _video(video, max_pixels)
    if (text := value.get("text")) is not None:
        result["text"] = _text(text, "'text'", clean)
    _check_something([result])
    return result


def _check_something(parts: Iterable[Mapping[str, Any]]) -> None:
    if all(is_blank(part.get("text", "")) and not part.get("image") and not part.get("video") for part in parts):
        raise ValueError("there is neither text nor image nor video")


def _special_tokens(model: SentenceTransformer) -> re.Pattern[str]:
    """A pattern for the first letter of every special token in a text."""
    known = getattr(getattr(model[0], "tokenizer", None), "added_tokens_decoder", {})
    tokens = sorted(str(token) for token in known.values() if token.special and len(str(token)) > 1)
    return re.compile("|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in tokens) or r"(?!)")


def _normal_form(model: SentenceTransformer) -> Callable[[str], str]:
    """The text in which the tokenizer looks for pieces: special tokens may be among them."""
    tokenizer = getattr(getattr(model[0], "tokenizer", None), "backend_tokenizer", None)
    normalizer = getattr(tokenizer, "normalizer", None)
    return normalizer.normalize_str if normalizer else str


def _without_tokens(marks: re.Pattern[str], normal_form: Callable[[str], str], text: str) -> str:
    text = plain_text(text, marks)
    normal = normal_form(text)
    return plain_text(normal, marks) if marks.search(normal) else text


def _text(value: Any, name: str, clean: Callable[[str], str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a text, got {shown(value)}")
    if not is_unicode(value):
        raise ValueError(f"{name} is no Unicode: it has half of a surrogate pair")
    return clean(value)


def _video(value: Any, max_pixels: int) -> list[Image]:
    frames = list(value) if isinstance(value, (list, tuple)) else None
    try:
        if frames is None:
            return open_video(_checked(value, "'video'", max_pixels, all_frames=True))
        each = max_pixels // max(1, len(frames))
        return open_video([_checked(frame, f"'video' {number}", each) for number, frame in enumerate(frames)])
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith("'video'") else f"'video': {message}") from None


def _picture(value: Any, name: str, max_pixels: int) -> Image:
    value = _checked(value, name, max_pixels)
    try:
        return open_image(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _checked(value: Any, name: str, max_pixels: int, all_frames: bool = False) -> bytes:
    """The bytes of an image whose format is known, and which is not too large, or all of its frames together."""
    from PIL import Image

    Image.init()  # registers all formats
    if isinstance(value, str):
        try:
            value = of_base64(value)
        except ValueError:
            raise ValueError(f"{name}: {_PICTURES}") from None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise ValueError(f"{name}: {_PICTURES}")
    try:
        with Image.open(io.BytesIO(value), formats=[kind for kind in FORMATS if kind in Image.OPEN]) as picture:
            width, height = picture.size
            width *= getattr(picture, "n_frames", 1) if all_frames else 1
    except Image.DecompressionBombError:
        width = height = max_pixels
    except Exception:  # Pillow's decoders raise many kinds
        raise ValueError(
            f"{name} is not an image, or has another format than {', '.join(FORMATS)}; {_PICTURES}"
        ) from None
    if width * height > max_pixels:
        raise ValueError(f"{name} has more than {max_pixels} pixels")
    return bytes(value)


def _message(message: Mapping[str, Any], clean: Callable[[str], str], max_pixels: int) -> dict[str, Any]:
    if message["role"] not in _ROLES:  # it is inserted into the template
        raise ValueError(f"'role': expected one of {_ROLES}, got {shown(message['role'])}")
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise ValueError(f"'content': expected a text or a list of parts, got {shown(content)}")
    return {"role": message["role"], "content": [_part(part, clean, max_pixels) for part in content]}


def _part(part: Mapping[str, Any], clean: Callable[[str], str], max_pixels: int) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": _text(part.get("text"), "'text'", clean)}
    if kind in ("image", "image_url"):
        keys = ("image", "base64", "url", "image_url")
        value = next((part[key] for key in keys if part.get(key) is not None), None)
        value = value.get("url") if isinstance(value, Mapping) else value
        return {"type": "image", "image": _picture(value, "'image'", max_pixels)}
    if kind == "video":
        return {"type": "video", "video": _video(part.get("video"), max_pixels)}
    raise ValueError(f"'type': expected 'text', 'image' or 'video', got {shown(kind)}")
