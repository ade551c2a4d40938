"""Batches by what they cost, in tokens with padding, and not by how many inputs they hold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_modality, is_image_url_or_path
from sentence_transformers.util import quantize_embeddings
from tqdm.auto import tqdm

from st_vi.modules import Qwen2VLTransformer
from st_vi.modules.unicode_text import is_unicode

MAX_TOKENS = 4096
"""Tokens a batch, padding included, unless the caller says otherwise."""

_COUNTED_AT_ONCE = 256  # texts; what counting holds in memory


def encode_by_cost(
    model: SentenceTransformer,
    inputs: Sequence[Any],
    *,
    max_tokens: int = MAX_TOKENS,
    prompt_name: str | None = None,
    prompt: str | None = None,
    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] = "float32",
    show_progress_bar: bool = False,
) -> np.ndarray:
    """Encode as ``model.encode`` does, in batches of at most `max_tokens` tokens each, padding included.

    Stock sorts by characters and takes a fixed number of inputs: 32 short texts leave a GPU idle, 32 pages or a
    picture among texts may not fit. Here every input's tokens are counted first (`token_counts`); each batch is then
    a call of the stock ``encode``. Counting preprocesses every text once more: little beside a model of real size, but
    for `WordSegmentedTransformer`, whose segmenter is slow.

    Args:
        model: Any `SentenceTransformer`.
        inputs: Whatever the model takes: texts, pictures, ``{"text": …, "image": …}``, …, mixed.
        max_tokens: Padded tokens a batch. An input that is longer makes a batch of its own. The default suits a CPU
            and a large model; a GPU with memory to spare takes more.
        prompt_name: As for ``encode``.
        prompt: As for ``encode``.
        precision: As for ``encode``: int8 and uint8 take their ranges from all inputs together.
        show_progress_bar: Whether to show one, in inputs.

    Returns:
        An array (len(inputs), D), in the order of the inputs.

    Raises:
        ValueError: `max_tokens` is not positive, or stock or the model refuses an input, a prompt or a precision.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.encoding import encode_by_cost
        >>> model = SentenceTransformer(modules=[BoW(["xin", "chào"])])
        >>> encode_by_cost(model, ["xin chào", "chào chào"], max_tokens=64).tolist()
        [[1.0, 1.0], [0.0, 2.0]]
    """
    prompt = model._resolve_prompt(prompt, prompt_name)
    inputs = list(inputs)
    batches = plan_batches(token_counts(model, inputs, prompt), max_tokens)
    embeddings = np.empty((0, model.get_embedding_dimension() or 0), dtype=np.float32)
    with tqdm(total=len(inputs), desc="Inputs", disable=not show_progress_bar) as progress:
        for number, batch in enumerate(batches):
            part = model.encode(
                [inputs[i] for i in batch], prompt=prompt, batch_size=len(batch), show_progress_bar=False
            )
            if number == 0:
                embeddings = np.empty((len(inputs), part.shape[1]), dtype=part.dtype)
            embeddings[batch] = part
            progress.update(len(batch))
    # Last, and once: a batch's own ranges would give the same vector other numbers in another batch.
    return embeddings if precision == "float32" else quantize_embeddings(embeddings, precision)  # type: ignore[return-value]


def plan_batches(counts: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group inputs of like length, the longest first, so that a batch has at most `max_tokens` tokens with padding.

    A batch also ends before an input less than half as long as its longest, so that no batch is more than half
    padding. That makes few batches more: as many as lengths can be halved.

    Args:
        counts: The tokens of each input.
        max_tokens: Inputs times the longest of them; a batch of one may have more.

    Returns:
        Lists of indices, every index once.

    Raises:
        ValueError: `max_tokens` is not positive.

    Example:
        >>> from st_vi.encoding.batches import plan_batches
        >>> plan_batches([5, 40, 6, 5, 90], max_tokens=16)
        [[4], [1], [2, 0], [3]]
    """
    if max_tokens <= 0:
        raise ValueError(f"max_tokens must be positive, got {max_tokens}")
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    batches, start = [], 0
    while start < len(order):
        width = max(1, counts[order[start]])
        longest, *others = order[start : start + max(1, max_tokens // width)]
        batches.append([longest, *takewhile(lambda i, width=width: 2 * counts[i] >= width, others)])  # type: ignore[misc]
        start += len(batches[-1])
    return batches


def token_counts(model: SentenceTransformer, inputs: Sequence[Any], prompt: str | None = None) -> list[int]:
    """How many tokens the model makes of each input: text, prompt, special and visual tokens.

    Texts are counted by the model's own ``preprocess``, template, truncation and word segmentation included. The
    visual tokens of a `Qwen2VLTransformer` follow from the sizes of the pictures, by the image processor's own
    function: a file is not read beyond its header, and one on the web counts as large as the pixel budget allows.
    A picture without text may be counted with a token or two too many. Inputs of any other kind are preprocessed
    one by one. A model without tokens has its texts' characters counted.

    Args:
        model: Any `SentenceTransformer`.
        inputs: Whatever it takes.
        prompt: What ``encode`` would put before each of them.

    Returns:
        One number for each input.

    Raises:
        ValueError: An input is of no kind that the model takes, or no Unicode text; names its number and itself.
    """
    if prompt and not is_unicode(prompt):
        raise ValueError(f"the prompt {prompt!r:.100} is no Unicode text: it has half of a surrogate pair")
    counts, texts = [], []
    for number, item in enumerate(inputs):
        try:
            text, visual = _parts(model, item)
            if text is None:
                counts.append(_preprocessed(model, [item], prompt)[0])
                continue
            if not is_unicode(text):
                raise ValueError("this is no Unicode text: it has half of a surrogate pair")
        except Exception as error:  # of many kinds, whatever a module stumbles over
            raise ValueError(f"input {number}, {item!r:.100}: {error or type(error).__name__}") from error
        counts.append(visual)
        texts.append((number, text))
    texts.sort(key=lambda pair: len(pair[1]))  # like lengths together: less padding
    for start in range(0, len(texts), _COUNTED_AT_ONCE):
        numbers, chunk = zip(*texts[start : start + _COUNTED_AT_ONCE], strict=True)
        for number, count in zip(numbers, _preprocessed(model, list(chunk), prompt), strict=True):
            counts[number] += count
    return counts


def _preprocessed(model: SentenceTransformer, inputs: list[Any], prompt: str | None) -> list[int]:
    """The tokens of each input in what the model's own preprocessing gives."""
    features = model.preprocess(inputs, prompt=prompt)
    if "attention_mask" in features:
        return features["attention_mask"].sum(dim=1).tolist()
    if "cu_seq_lens_q" in features:  # flattened for FlashAttention: no padding, but limits between the inputs
        return features["cu_seq_lens_q"].diff().tolist()
    return [max(1, len(item)) if isinstance(item, str) else 1 for item in inputs]


def _parts(model: SentenceTransformer, item: Any) -> tuple[str | None, int]:
    """The text of an input and its visual tokens; no text where it takes preprocessing to know."""
    if isinstance(item, str) and infer_modality(item, model.modalities) == "text":
        return item, 0
    if not isinstance(model[0], Qwen2VLTransformer):
        return None, 0
    parts = {"image": item} if not isinstance(item, dict) else {k: v for k, v in item.items() if v is not None}
    pictures = parts.get("image", [])
    pictures = pictures if isinstance(pictures, (list, tuple)) else [pictures]
    text = parts.get("text", "")
    if not parts.keys() <= {"text", "image"} or not isinstance(text, str) or not all(map(_is_picture, pictures)):
        return None, 0
    # Between the text and each picture stand a token that begins it and one that ends it.
    return text, sum(_visual_tokens(model[0], picture) + 2 for picture in pictures)


def _is_picture(value: Any) -> bool:
    from PIL.Image import Image

    return isinstance(value, Image) or (isinstance(value, str) and is_image_url_or_path(value))


def _visual_tokens(backbone: Qwen2VLTransformer, picture: Any) -> int:
    processor = backbone.processor.image_processor
    merged = processor.merge_size**2
    try:
        width, height = _size(picture)
        return processor.get_number_of_image_patches(height, width, {}) // merged
    except Exception:  # on the web, or not to be read: as large as it may be, and encoding says what is wrong
        return -(-backbone.max_pixels // (processor.patch_size**2 * merged))


def _size(picture: Any) -> tuple[int, int]:
    """Width and height."""
    from PIL import Image

    if not isinstance(picture, str):
        return picture.size
    with Image.open(picture) as file:
        return file.size
