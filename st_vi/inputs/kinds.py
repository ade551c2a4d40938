"""Tell texts, images and videos apart before stock has to guess, and open the images and videos.

Stock treats a string as an image if it has one of seven file extensions and the file exists, and as text otherwise.
After `read_input`, images are PIL images from `open_image`, and texts are ``{"text": …}``, which stock never treats as
anything else.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any
from urllib.parse import urlparse

from sentence_transformers.base.modality import is_message_dict, is_video_url_or_path

from st_vi.files.lines import file_at
from st_vi.inputs.pictures import IN_TEXT, WEB, open_image
from st_vi.inputs.videos import StoredVideo, open_video
from st_vi.text import is_blank

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv")
"""Extensions by which a text is the path of a video file, as in stock. Others are read, too, where it is known."""
# Extensions by which a missing file counts as an image. Pillow knows more, such as ".ps", but words end in these too.
_COMMON = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif"),
    *(".heic", ".heif", ".jp2", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".psd", ".svg"),
)
_PATH = re.compile(r"(?:[/~]|\.{1,2}/|[A-Za-z]:[/\\]|\\\\)|\S*[/\\]")  # the beginning of a path
_MARKS = re.compile(r"<(?=\|(?:vision_start|vision_end|vision_pad|image_pad|video_pad)\|>)")
_HINT = 'if this is a text, give {"text": …}'
_PICTURE_KEYS = ("image", "url", "path", "base64", "image_url")


def read_input(item: Any) -> Any:
    """Open every image and video of an input and mark every text as text; stock rejects whatever else is in it.

    Args:
        item: Anything that `encode` accepts: a text, an image, a dict, a conversation, a pair.

    Raises:
        ValueError: An image or video cannot be read or does not exist, or part of a conversation is of an unknown kind.
        ImportError: A video file needs a decoder, and none is installed.

    Example:
        >>> from st_vi.inputs.kinds import read_input
        >>> read_input("Trời mưa."), read_input({"text": "anh.png"})
        ({'text': 'Trời mưa.'}, {'text': 'anh.png'})
        >>> read_input("anh/meo.png")
        Traceback (most recent call last):
        ValueError: cannot read the image 'anh/meo.png': ...
    """
    if is_message_dict(item):
        return [_message(item)]
    if isinstance(item, list) and item and is_message_dict(item[0]):
        return [_message(message) for message in item]
    if is_picture(item):
        return _opened(item, bare=isinstance(item, str))
    if isinstance(item, str):
        if is_video_url_or_path(item):
            return {"video": open_video(item, fetch=True)}
        if _like_path(item, VIDEO_SUFFIXES):
            raise ValueError(f"there is no video {item!r:.200}; {_HINT}")
        return {"text": item}
    if isinstance(item, os.PathLike):
        return {"video": open_video(item)}
    if isinstance(item, Mapping) and "array" not in item:
        parts = {kind: _part(kind, value) for kind, value in item.items() if not is_absent(kind, value)}
        return parts or item
    if isinstance(item, (list, tuple)) and len(item) == 2:
        return tuple(map(read_input, item))
    return item


def stock_input(text: str, opened: Sequence[Any]) -> Any:
    """Text with opened images and videos as one stock input: a string, an image, or a dict of what there is.

    Args:
        text: "" for none.
        opened: Images, and videos as lists of frames.

    Example:
        >>> from st_vi.inputs.kinds import stock_input
        >>> stock_input("Trời mưa.", []), stock_input("anh/meo.png", [])
        ('Trời mưa.', {'text': 'anh/meo.png'})
    """
    if not opened:  # a column of texts may hold addresses and paths, too
        return {"text": text} if is_picture(text) or is_video_file(text) else text
    videos = [one for one in opened if isinstance(one, list)]
    images = [one for one in opened if not isinstance(one, list)]
    if not videos and not text:
        return images[0] if len(images) == 1 else images
    found = {"image": images, "video": videos}
    several = {kind: of_kind[0] if len(of_kind) == 1 else of_kind for kind, of_kind in found.items() if of_kind}
    return {"text": text, **several} if text else several


def as_texts(model: Any, texts: Sequence[str]) -> list[Any]:
    """Texts in a form that no model interprets as a path or URL of an image."""
    if model.modalities == ["text"]:
        return list(texts)
    return [text if is_blank(text) else {"text": text} for text in texts]


def open_stored(stored: Any) -> Any:
    """An image, or the frames of a `StoredVideo`, a list.

    Raises:
        ValueError: As for `open_image` and `open_video`.
    """
    return open_video(stored.value) if isinstance(stored, StoredVideo) else open_image(stored)


def open_videos(value: Any) -> Any:
    """What stands for "video" in an input of the model: one video or a list of them, with frames that are opened.

    Stock's ``{"array": …, "video_metadata": …}`` keeps its metadata. Anything else that stock knows, such as a decoder,
    is left to it.

    Raises:
        ValueError: As for `open_video`.
    """
    if isinstance(value, Mapping) and "array" in value:
        return {**value, "array": open_video(value["array"])}
    if isinstance(value, (list, tuple)) and any(map(_is_whole_video, value)):
        return [open_videos(one) for one in value]
    if getattr(value, "ndim", 0) == 5:
        return [open_video(one) for one in value]
    if hasattr(value, "get_frames_in_range"):  # torchcodec's decoder
        return value
    return open_video(value, fetch=True)


def open_images(value: Any, fetch: bool = False) -> Any:
    """What stands for "image" in an input of the model: one image, or a list of those that there are, opened.

    Raises:
        ValueError: As for `open_image`.
    """
    images = [open_image(one, fetch=fetch) for one in stored_images(value)]
    return images if isinstance(value, (list, tuple)) else images[0]


def is_picture(item: Any) -> bool:
    """Whether an input is an image. A string is one if it is the URL or path of an image.

    If the file exists, Pillow must know its extension, or the string must contain "/" or "\\\\" and not name a video.
    If it does not exist, the string must end like an image and look like a path: no space in it, or none before the
    first "/". A missing image is then an error, because the text of a path says nothing about the image.

    Example:
        >>> from st_vi.inputs.kinds import is_picture
        >>> [is_picture(text) for text in ("anh/meo.PNG", "Con mèo trong anh/meo.png", "https://a.vn/b.tif?c=1")]
        [True, False, True]
    """
    if isinstance(item, str):
        return _is_picture_text(item)
    if isinstance(item, os.PathLike):
        return not is_video_file(item)
    if isinstance(item, Mapping):  # from an undecoded image column
        return bool(item) and item.keys() <= {"bytes", "path"}
    if isinstance(item, (bytes, bytearray, memoryview, io.IOBase)):
        return True
    if hasattr(item, "ndim"):
        return item.ndim == 3  # as in stock: fewer are audio, more a video
    return hasattr(item, "convert") and hasattr(item, "getbands")  # PIL, not imported for this


def is_video_file(value: Any) -> bool:
    """Whether a path or an address ends like a file that needs a video decoder.

    Example:
        >>> from st_vi.inputs.kinds import is_video_file
        >>> is_video_file("phim/meo.MP4"), is_video_file("phim/meo.gif")
        (True, False)
    """
    if not isinstance(value, (str, os.PathLike)):
        return False
    return os.fspath(value).lower().partition("?")[0].endswith(VIDEO_SUFFIXES)


def plain_text(text: str, marks: re.Pattern[str] = _MARKS) -> str:
    """Break the model's image tokens in a text, such as ``<|image_pad|>``, with a space each.

    The tokenizer would treat them as images that do not exist.

    Args:
        text: Any text.
        marks: Pattern for the first character of each token; the space goes after it.

    Example:
        >>> from st_vi.inputs.kinds import plain_text
        >>> plain_text("Trước <|image_pad|> sau")
        'Trước < |image_pad|> sau'
    """
    return marks.sub(r"\g<0> ", text)


def without_marks(conversation: list[dict[str, Any]], marks: re.Pattern[str] = _MARKS) -> list[dict[str, Any]]:
    """A conversation whose texts are `plain_text`, also where a mark begins in one text and ends in the next.

    Templates may put texts side by side, with nothing between them.
    """
    said = _in_texts(conversation, partial(marks.sub, r"\g<0> "))
    side_by_side = "".join(text for message in said for text in _texts(message["content"]))
    return _in_texts(said, " {}".format) if marks.search(side_by_side) else said


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _in_texts(conversation: list[dict[str, Any]], change: Callable[[str], str]) -> list[dict[str, Any]]:
    changed = []
    for message in conversation:
        content = message["content"]
        if isinstance(content, str):
            content = change(content)
        else:
            content = [{**part, "text": change(part["text"])} if part["type"] == "text" else part for part in content]
        changed.append({**message, "content": content})
    return changed


def is_null(value: Any) -> bool:
    """Whether a value is None, NaN or a missing value of pandas, which is not imported for this.

    Example:
        >>> from st_vi.inputs.kinds import is_null
        >>> [is_null(value) for value in (None, float("nan"), 0.0, "")]
        [True, True, False, False]
    """
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN, or a blank text, as files without types store it.

    Example:
        >>> from st_vi.inputs.kinds import is_missing
        >>> [is_missing(value) for value in (None, float("nan"), " ", 0.0, "a")]
        [True, True, True, False, False]
    """
    return is_blank(value) if isinstance(value, str) else is_null(value)


def stored_images(value: Any) -> list[Any]:
    """All images of one field, as they are stored. None, NaN and "" are no image, also in a list.

    Example:
        >>> from st_vi.inputs.kinds import stored_images
        >>> stored_images("a.png"), stored_images(["a.png", ""]), stored_images({"bytes": None, "path": None})
        (['a.png'], ['a.png'], [])
    """
    if isinstance(value, (list, tuple)):
        return [image for one in value for image in stored_images(one)]
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        return [value] if value.get("bytes") is not None or not is_missing(value.get("path")) else []
    return [] if is_missing(value) else [value]


def is_absent(kind: Any, value: Any) -> bool:
    """Whether a part of a dict counts as not given: None, NaN, "", an empty list, and of images what stands for none.

    A video without frames is not absent, but a broken one.

    Example:
        >>> from st_vi.inputs.kinds import is_absent
        >>> is_absent("image", [""]), is_absent("text", ""), is_absent("video", [])
        (True, True, False)
    """
    if kind == "image":
        return not stored_images(value)
    may_be_empty = str if kind == "video" else (str, list, tuple)
    return is_null(value) or (isinstance(value, may_be_empty) and not value)


def shown(value: Any) -> str:
    """A value in a message: one line of at most 100 characters.

    Example:
        >>> from st_vi.inputs.kinds import shown
        >>> shown("Trời\\nmưa"), len(shown("x" * 1000))
        ("'Trời\\\\nmưa'", 100)
    """
    try:
        text = repr(value)
    except RecursionError:  # lists in lists, as JSON may have them
        text = f"a {type(value).__name__} of too many levels"
    return " ".join(text[:100].split())


def _is_picture_text(text: str) -> bool:
    text = text.strip()  # as of a line that was read from a file
    if IN_TEXT.match(text):
        return True
    lower = text.lower()
    if lower.startswith(WEB):
        try:
            return not re.search(r"\s", text) and urlparse(lower).path.endswith(picture_suffixes())
        except ValueError:  # of a text that begins like an address
            return False
    like_path = _PATH.match(text) is not None
    if not (like_path or lower.endswith(picture_suffixes())) or lower.endswith(VIDEO_SUFFIXES):
        return False
    if file_at(text):
        return True
    return _like_path(text, _COMMON)


def _like_path(text: str, endings: tuple[str, ...]) -> bool:
    """Whether it ends like a file and is written like a path, or begins with a folder that is there."""
    if not text.lower().endswith(endings):
        return False
    folder = os.path.dirname(text)
    return bool(_PATH.match(text) or not re.search(r"\s", text) or (folder and os.path.isdir(folder)))


@cache
def picture_suffixes() -> tuple[str, ...]:
    """Extensions of images, in lower case, such as ".png": the usual ones, and those of all files that Pillow opens."""
    try:
        from PIL import Image
    except ImportError:  # texts need no Pillow
        return _COMMON
    known = (ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)
    return tuple(dict.fromkeys((*_COMMON, *known)))


def _opened(value: Any, bare: bool = False) -> Any:
    try:
        return open_image(value, fetch=True)
    except ValueError as error:
        raise ValueError(f"{error}; {_HINT}" if bare else str(error)) from error


def _part(kind: Any, value: Any) -> Any:
    """One modality of a dict."""
    if kind == "image":
        return open_images(value, fetch=True)
    if kind == "video":
        return open_videos(value)
    if kind == "text":
        texts = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected text in 'text', got {value!r:.100}")
    return value


def _is_whole_video(value: Any) -> bool:
    """Whether an item of a list is a video, and not a frame of one."""
    if isinstance(value, Mapping):
        return "array" in value
    of_frames = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 4
    return of_frames or hasattr(value, "get_frames_in_range") or is_video_file(value)


def _message(message: Any) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return message
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"expected a text or a list of parts in 'content', got {content!r:.100}")
    return {**message, "content": [_content(part) for part in content]}


def _content(part: Any) -> dict[str, Any]:
    """One part of a message, as the templates read it."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("image", "image_url"):
        for key in _PICTURE_KEYS:
            if (value := part.get(key)) is not None:
                value = value.get("url") if key == "image_url" and isinstance(value, Mapping) else value
                return {"type": "image", "image": _opened(value)}
        raise ValueError(f"the part {part!r:.100} has no image: expected one of the keys {_PICTURE_KEYS}")
    if kind == "text":
        return {**part, "text": _part("text", part.get("text"))}
    if kind == "video":
        return {key: open_videos(value) if key in ("video", "path") else value for key, value in part.items()}
    raise ValueError(f"a part of a message is a text, an image or a video, got {part!r:.100}")
