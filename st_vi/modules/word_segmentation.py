"""Vietnamese word segmentation in front of encoders that were trained on segmented text (PhoBERT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from st_vi.modules.model_card import with_own_card
from st_vi.modules.saved_module import declare_requirement
from st_vi.text.segmentation import segment_words, segmenter


class WordSegmentedTransformer(Transformer):
    """The stock `Transformer`, with the syllables of each Vietnamese word joined by underscores first.

    PhoBERT (arXiv 2003.00744) was trained on word-segmented text: "sinh viên đại học" is "sinh_viên đại_học" to
    it. Texts are segmented here, in training and in `encode` alike, so that callers pass plain Vietnamese. Text
    in which somebody has already joined words is joined as it stands.

    Needs the extra ``pip install "st-vi[vi]"``. *Inferred*: the segmenter is pyvi, not the VnCoreNLP of PhoBERT's
    authors, which needs Java.

    Args:
        model_name_or_path: A model on the Hub or in a folder, such as "vinai/phobert-base-v2".
        **kwargs: As for the stock `Transformer`.

    Raises:
        ImportError: pyvi is not installed.

    Example:
        >>> from st_vi.text.segmentation import segment_words  # what it does to every text
        >>> segment_words("Sinh viên đại học bách khoa.")
        'Sinh_viên đại_học bách_khoa .'
    """

    def __init__(self, model_name_or_path: str, **kwargs: Any) -> None:
        segmenter()  # fail now, not at the first batch
        super().__init__(model_name_or_path, **kwargs)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor | Any]:  # type: ignore[override]
        """Segment strings and pairs of strings, then preprocess as the stock module does.

        Raises:
            ValueError: A text is no Unicode: it has half of a surrogate pair. Names the input, within the batch.
        """
        segmented = []
        for number, text in enumerate(inputs):
            try:
                segmented.append(_segment(text))
            except UnicodeError as error:
                raise ValueError(f"input {number} of the batch, {text!r:.100}: {error}") from error
        return super().preprocess(segmented, prompt=prompt, **kwargs)

    def on_model_ready(self, model: SentenceTransformer) -> None:  # type: ignore[override]
        """Let the model's card say how a model with this module is loaded."""
        with_own_card(model)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save as the stock module does."""
        super().save(output_path, *args, **kwargs)
        declare_requirement(output_path)


def _segment(text: Any) -> Any:
    if isinstance(text, str):
        text.encode()  # the segmenter takes half of a surrogate pair, and no tokenizer does
        return segment_words(text)
    if isinstance(text, (tuple, list)):
        return type(text)(_segment(part) for part in text)
    if isinstance(text, dict) and "text" in text:  # as stock has it, beside a plain string
        return {**text, "text": _segment(text["text"])}
    return text
