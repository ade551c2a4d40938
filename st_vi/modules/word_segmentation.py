"""Word segmentation for encoders trained on segmented text (PhoBERT)."""

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
    """The stock `Transformer` on text in which the syllables of each Vietnamese word are joined by underscores.

    PhoBERT (arXiv 2003.00744) was trained on segmented text: "sinh_viên đại_học" instead of "sinh viên đại học". This
    module segments texts in training and in `encode`, so callers pass plain Vietnamese. Words that are joined already
    stay joined.

    Needs ``pip install "st-vi[vi]"``. *Inferred*: the segmenter is pyvi; the authors of PhoBERT used VnCoreNLP, which
    needs Java.

    Args:
        model_name_or_path: A model on the Hub or in a folder, such as "vinai/phobert-base-v2".
        **kwargs: As for the stock `Transformer`.

    Raises:
        ImportError: pyvi is not installed.

    Example:
        >>> from st_vi.text.segmentation import segment_words  # applied to every text
        >>> segment_words("Sinh viên đại học bách khoa.")
        'Sinh_viên đại_học bách_khoa .'
    """

    def __init__(self, model_name_or_path: str, **kwargs: Any) -> None:
        segmenter()  # fail now, not at the first batch
        super().__init__(model_name_or_path, **kwargs)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor | Any]:  # type: ignore[override]
        """Segment strings and pairs of strings, then preprocess them as the stock module does.

        Raises:
            ValueError: A text is not valid Unicode (a lone surrogate); names the input by its place in the batch.
        """
        segmented = []
        for number, text in enumerate(inputs):
            try:
                segmented.append(_segment(text))
            except UnicodeError as error:
                raise ValueError(f"input {number} of the batch, {text!r:.100}: {error}") from error
        return super().preprocess(segmented, prompt=prompt, **kwargs)

    def on_model_ready(self, model: SentenceTransformer) -> None:  # type: ignore[override]
        """Use a model card that says how to load the model."""
        with_own_card(model)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save as the stock module does."""
        super().save(output_path, *args, **kwargs)
        declare_requirement(output_path)


def _segment(text: Any) -> Any:
    if isinstance(text, str):
        text.encode()  # the segmenter accepts lone surrogates, tokenizers do not
        return segment_words(text)
    if isinstance(text, (tuple, list)):
        return type(text)(_segment(part) for part in text)
    if isinstance(text, dict) and "text" in text:  # stock's other form of a text
        return {**text, "text": _segment(text["text"])}
    return text
