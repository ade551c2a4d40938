"""Batching by token count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_modality
from sentence_transformers.util import quantize_embeddings
from tqdm.auto import tqdm

from st_vi.checks import check_choice, check_model, check_whole
from st_vi.encoding.forward import KeptTokens, to_length_1, vectors_of
from st_vi.inputs.as_list import as_list
from st_vi.inputs.kinds import as_texts, is_picture, is_video_file, shown
from st_vi.inputs.pictures import open_image
from st_vi.inputs.prompts import prompt_of
from st_vi.modules import Qwen2VLTransformer
from st_vi.text import is_unicode

MAX_TOKENS = 4096
"""Default tokens per batch, including padding."""

Fail = Callable[[int, Exception], None]
"""Handler for an input that cannot be encoded; raises, or records the input."""

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]

_COUNTED_AT_ONCE = 256  # texts tokenized at a time, to bound memory

# Not caused by an input: retrying row by row would hide it.
_OURS = (MemoryError, ImportError, torch.OutOfMemoryError, getattr(torch, "AcceleratorError", MemoryError))


def encode_by_tokens(
    model: SentenceTransformer,
    inputs: Any,
    *,
    max_tokens: int = MAX_TOKENS,
    prompt_name: str | None = None,
    prompt: str | None = None,
    precision: Precision = "float32",
    normalize: bool = False,
    show_progress_bar: bool = False,
) -> np.ndarray:
    """Encode like ``model.encode``, in batches of at most `max_tokens` tokens including padding.

    The stock method sorts by characters and uses a fixed batch size: 32 short texts leave a GPU idle, while 32 pages,
    or an image among texts, may not fit. Here the tokens of every input are counted first (`token_counts`), and each
    batch is what one call of the stock ``encode`` computes. The tokens of texts are kept for that; other inputs are
    preprocessed twice.

    Args:
        model: Any `SentenceTransformer`.
        inputs: Any inputs of the model, also mixed: texts, images, ``{"text": …, "image": …}``, …; a single one, or
            several in a list, a column, a Series, an array of texts or a generator.
        max_tokens: Maximum tokens per batch, including padding. A longer input becomes a batch of its own. The default
            suits a large model on a CPU; increase it for a GPU with free memory.
        prompt_name: As for ``encode``.
        prompt: As for ``encode``.
        precision: As for ``encode``. int8 and uint8 ranges are computed over all inputs.
        normalize: Whether to scale vectors to length 1, before `precision`.
        show_progress_bar: Whether to show a progress bar.

    Returns:
        An array (len(inputs), D) in the order of the inputs, or (D,) for a single input.

    Raises:
        TypeError: `prompt` is no text.
        ValueError: `max_tokens` is not positive; `inputs` is a table or a set; an input (which is named), a prompt or a
            precision is invalid; or a vector is not finite.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.encoding import encode_by_tokens
        >>> model = SentenceTransformer(modules=[BoW(["xin", "chào"])])
        >>> encode_by_tokens(model, ["xin chào", "chào chào"], max_tokens=64).tolist()
        [[1.0, 1.0], [0.0, 2.0]]
        >>> encode_by_tokens(model, "xin chào").tolist()
        [1.0, 1.0]
    """
    check_model(model)
    check_choice("precision", precision, Precision)  # stock says so after encoding
    prompt = prompt_of(model, prompt, prompt_name)
    inputs, single = as_list(inputs)

    def fail(number: int, error: Exception) -> None:
        raise _named(number, inputs[number], error) from error

    tokens = KeptTokens(model)
    counts = count_each(model, inputs, prompt, fail, tokens)
    with tqdm(total=len(inputs), desc="Inputs", disable=not show_progress_bar) as progress:

        def done(batch: Sequence[int]) -> None:
            progress.update(len(batch))

        embeddings = encode_each(model, inputs, counts, fail, max_tokens, prompt, normalize, done, tokens)
    # Quantized once at the end: with ranges per batch, equal vectors would differ between batches.
    if precision != "float32":
        embeddings = quantize_embeddings(embeddings, precision)  # type: ignore[assignment]
    return embeddings[0] if single else embeddings


def encode_each(
    model: SentenceTransformer,
    inputs: Sequence[Any],
    counts: Mapping[int, int],
    fail: Fail,
    max_tokens: int,
    prompt: str | None,
    normalize: bool,
    done: Callable[[Sequence[int]], Any] = len,
    tokens: KeptTokens | None = None,
) -> np.ndarray:
    """Vectors (len(inputs), D) of the inputs in `counts`, in batches by token count; zeros for the others.

    If a batch fails, its inputs are encoded one by one, and those that fail are passed to `fail` with their error.
    `done` is called with the indices of every batch. Texts in `tokens` are not tokenized again, except in the first
    batch, for which stock places the model.
    """
    numbers, placed = list(counts), False
    embeddings = np.zeros((len(inputs), model.get_embedding_dimension() or 0), dtype=np.float32)
    for places in plan_batches(list(counts.values()), max_tokens):
        batch = [numbers[place] for place in places]
        features = tokens.features(batch) if tokens and placed else None
        placed = True
        for good, part in _parts_of_batch(model, inputs, batch, fail, prompt, normalize, features):
            if embeddings.shape[1] != part.shape[1] or embeddings.dtype != part.dtype:  # the first part
                embeddings = np.zeros((len(inputs), part.shape[1]), dtype=part.dtype)
            embeddings[good] = part
        done(batch)
    return embeddings


def _parts_of_batch(
    model: SentenceTransformer,
    inputs: Sequence[Any],
    batch: list[int],
    fail: Fail,
    prompt: str | None,
    normalize: bool,
    features: dict[str, Any] | None = None,
) -> list[tuple[list[int], np.ndarray]]:
    """The batch with its vectors, or, if it fails, every input separately."""
    try:
        if features is not None:
            return [(batch, _finite(vectors_of(model, features, normalize)))]
        return [(batch, _encoded(model, [inputs[number] for number in batch], prompt, normalize))]
    except _OURS:
        raise
    except Exception as error:  # modules and decoders raise many kinds
        if len(batch) == 1:
            fail(batch[0], error)
            return []
    return [part for number in batch for part in _parts_of_batch(model, inputs, [number], fail, prompt, normalize)]


def _encoded(model: SentenceTransformer, items: list[Any], prompt: str | None, normalize: bool) -> np.ndarray:
    vectors = model.encode(
        [opened(item) for item in items],
        prompt=prompt,
        batch_size=len(items),
        show_progress_bar=False,
    )
    return _finite(to_length_1(torch.from_numpy(vectors)).numpy() if normalize else vectors)


def _finite(vectors: np.ndarray) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise ValueError("the model returned a vector that is not finite")
    return vectors


def opened(item: Any) -> Any:
    """The input with images decoded from paths or bytes; plain strings are unchanged."""
    if isinstance(item, (Path, bytes, bytearray)) and not is_video_file(item):
        return open_image(str(item) if isinstance(item, Path) else bytes(item))
    if isinstance(item, Mapping) and "image" in item:
        pictures = item["image"]
        several = isinstance(pictures, (list, tuple))
        return {**item, "image": [opened(one) for one in pictures] if several else opened(pictures)}
    return item


def _named(number: int, item: Any, error: Exception) -> ValueError:
    return ValueError(f"input {number}, {shown(item)}: {reason(item, error)}")


def reason(item: Any, error: Exception) -> str:
    """The message of an error, without the position of the input in its batch."""
    text = str(error) or type(error).__name__
    return text.removeprefix(f"input 0 of the batch, {shown(item)}: ").removeprefix("input 0 of the batch, ")


def plan_batches(counts: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group inputs of similar length, the longest first, into batches of at most `max_tokens` tokens with padding.

    A batch also ends before an input less than half as long as its longest, so that no batch is more than half padding.
    This adds only a few batches, at most one per halving of the length. A longer input is a batch of its own.

    Example:
        >>> from st_vi.encoding.batches import plan_batches
        >>> plan_batches([5, 40, 6, 5, 90], max_tokens=16)
        [[4], [1], [2, 0], [3]]
    """
    check_whole("max_tokens", max_tokens)
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    batches, start = [], 0
    while start < len(order):
        width = max(1, counts[order[start]])
        longest, *others = order[start : start + max(1, max_tokens // width)]
        batches.append([longest, *takewhile(lambda i, width=width: 2 * counts[i] >= width, others)])  # type: ignore[misc]
        start += len(batches[-1])
    return batches


def token_counts(model: SentenceTransformer, inputs: Any, prompt: str | None = None) -> list[int]:
    """Number of tokens of each input: text, prompt, special and visual tokens.

    Texts are counted with the ``preprocess`` of the model, including template, truncation and word segmentation. Visual
    tokens of a `Qwen2VLTransformer` are computed from the image sizes by the image processor: only the header of a file
    is read, and an image at a URL counts as the full pixel budget. The count for an image without text may be one or
    two tokens too high. Other kinds of input are preprocessed one by one. For a model without tokens, characters are
    counted.

    Raises:
        ValueError: The model does not accept an input, or a text is not valid Unicode; names the input and its number.
    """
    inputs, _ = as_list(inputs)

    def fail(number: int, error: Exception) -> None:
        raise _named(number, inputs[number], error) from error

    counts = count_each(model, inputs, prompt, fail)
    return [counts[number] for number in range(len(inputs))]


def count_each(
    model: SentenceTransformer,
    inputs: Sequence[Any],
    prompt: str | None,
    fail: Fail,
    tokens: KeptTokens | None = None,
) -> dict[int, int]:
    """Tokens of each input by index; inputs that cannot be counted are passed to `fail` and left out.

    The tokens of texts are added to `tokens`.
    """
    if prompt and not is_unicode(prompt):
        raise ValueError(f"the prompt {prompt!r:.100} is no Unicode text: it has half of a surrogate pair")
    counts: dict[int, int] = {}
    texts: list[tuple[int, str]] = []
    for number, item in enumerate(inputs):
        try:
            text, visual = _parts(model, item)
            if text is None:
                alone = [opened(item)]
                (visual,) = _lengths(model.preprocess(alone, prompt=prompt), alone)
            elif not is_unicode(text):
                raise ValueError("this is no Unicode text: it has half of a surrogate pair")
        except _OURS:
            raise
        except Exception as error:  # modules raise many kinds
            fail(number, error)
            continue
        counts[number] = visual
        if text is not None:
            texts.append((number, text))
    texts.sort(key=lambda pair: len(pair[1]))  # similar lengths together, for less padding
    for start in range(0, len(texts), _COUNTED_AT_ONCE):
        _count_texts(model, texts[start : start + _COUNTED_AT_ONCE], prompt, counts, fail, tokens)
    return counts


def _count_texts(
    model: SentenceTransformer,
    texts: list[tuple[int, str]],
    prompt: str | None,
    counts: dict[int, int],
    fail: Fail,
    tokens: KeptTokens | None,
) -> None:
    """Add the tokens of texts to `counts`, one by one if the whole batch fails."""
    try:
        features = model.preprocess(as_texts(model, [text for _, text in texts]), prompt=prompt)
        found = _lengths(features, [text for _, text in texts])
    except _OURS:
        raise
    except Exception as error:
        if len(texts) > 1:
            for pair in texts:
                _count_texts(model, [pair], prompt, counts, fail, tokens)
            return
        del counts[texts[0][0]]
        fail(texts[0][0], ValueError(reason(texts[0][1], error)))
        return
    if tokens is not None and not any(counts[number] for number, _ in texts):  # no text beside an image
        tokens.add([number for number, _ in texts], features)
    for (number, _), count in zip(texts, found, strict=True):
        counts[number] += count


def _lengths(features: Mapping[str, Any], inputs: Sequence[Any]) -> list[int]:
    """Tokens of each input according to the preprocessing of the model."""
    if "cu_seq_lens_q" in features:  # flattened for FlashAttention: boundaries instead of padding
        return features["cu_seq_lens_q"].diff().tolist()
    if "attention_mask" in features:
        return features["attention_mask"].sum(dim=1).tolist()
    texts = [item.get("text") if isinstance(item, Mapping) else item for item in inputs]
    return [max(1, len(text)) if isinstance(text, str) else 1 for text in texts]


def _parts(model: SentenceTransformer, item: Any) -> tuple[str | None, int]:
    """The text of an input and its number of visual tokens; no text if only preprocessing can tell."""
    if isinstance(item, Mapping) and item.keys() == {"text"} and isinstance(item["text"], str):
        return item["text"], 0
    sees = isinstance(model[0], Qwen2VLTransformer)
    if isinstance(item, str) and not (sees and is_picture(item)) and infer_modality(item, model.modalities) == "text":
        return item, 0
    if not sees:
        return None, 0
    parts = {"image": item} if not isinstance(item, dict) else {k: v for k, v in item.items() if v is not None}
    pictures = parts.get("image", [])
    pictures = pictures if isinstance(pictures, (list, tuple)) else [pictures]
    text = parts.get("text", "")
    if not parts.keys() <= {"text", "image"} or not isinstance(text, str) or not all(map(_has_size, pictures)):
        return None, 0
    backbone: Any = model[0]
    # Each image is enclosed in a start and an end token.
    return text, sum(_visual_tokens(backbone, picture) + 2 for picture in pictures)


def _has_size(picture: Any) -> bool:
    """Whether its size is known without reading the whole image."""
    return isinstance(picture, (str, bytes, Path)) or (is_picture(picture) and hasattr(picture, "getbands"))


def _visual_tokens(backbone: Qwen2VLTransformer, picture: Any) -> int:
    processor = backbone.processor.image_processor
    merged = processor.merge_size**2
    try:
        width, height = _size(picture)
        return processor.get_number_of_image_patches(height, width, {}) // merged
    except Exception:  # a URL or unreadable: assume the maximum, and let encoding report the error
        return -(-backbone.max_pixels // (processor.patch_size**2 * merged))


def _size(picture: Any) -> tuple[int, int]:
    """Width and height."""
    import io

    from PIL import Image

    if hasattr(picture, "getbands"):
        return picture.size
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as file:
        return file.size
