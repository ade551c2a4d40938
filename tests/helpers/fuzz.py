"""Bad input for the fuzz tests, the property that all of them check, and the count of cases.

A case is one call, or one input of a batch. `ST_VI_FUZZ_SEED` gives other cases than the ones CI always takes;
`ST_VI_FUZZ=1` gives all of them, ten times as many as every push runs.
"""

from __future__ import annotations

import atexit
import io
import math
import os
import shutil
import signal
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from PIL import Image

from tests.conftest import SENTENCES

# What hypothesis remembers between runs stays out of the tree; failures are reproduced from seed and printed blob.
_home = tempfile.mkdtemp(prefix="st-vi-hypothesis-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
set_hypothesis_home_dir(_home)

SEED = os.environ.get("ST_VI_FUZZ_SEED")
SHARE = float(os.environ.get("ST_VI_FUZZ", "0.1"))
LEAST_EXAMPLES = 10  # of each test, however small the share
LONGEST = 30, 600  # seconds of CPU, or of waiting, for one case; what takes longer hangs
NAN, INF = math.nan, math.inf

answered: Counter[str] = Counter()
"""Cases with a result, by area."""
refused: Counter[str] = Counter()
"""Cases with an error that names the field, by area."""

REFUSED = object()


def fuzz(examples: int, **given_: st.SearchStrategy) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`hypothesis.given` with the share of so many examples, reproducible in CI; another seed where one is set."""
    examples = min(examples, max(LEAST_EXAMPLES, round(SHARE * examples)))
    profile = settings(max_examples=examples, deadline=None, database=None, print_blob=True, derandomize=SEED is None)

    def wrap(test: Callable[..., None]) -> Callable[..., None]:
        test = profile(given(**given_)(test))
        return test if SEED is None else seed(int(SEED))(test)

    return wrap


def outcome(area: str, call: Callable[[], Any], names: Iterable[str], cases: int = 1) -> Any:
    """What the call gives; `REFUSED` where it raises a ValueError or TypeError that names a field; else a failure.

    Args:
        area: Under which to count.
        call: The function, with its input.
        names: Fields, one of which the message must name.
        cases: How many inputs it has.
    """
    try:
        with _limit():
            result = call()
    except (ValueError, TypeError) as error:
        named = [name for name in names if name in str(error)]
        if not named:
            raise AssertionError(f"the error names none of {list(names)}: {error!r}") from error
        refused[area] += cases
        return REFUSED
    answered[area] += cases
    return result


@contextmanager
def _limit() -> Iterator[None]:
    timers = ((signal.SIGPROF, signal.ITIMER_PROF), (signal.SIGALRM, signal.ITIMER_REAL))
    before = [signal.signal(number, _hangs) for number, _ in timers]
    for (_, timer), seconds in zip(timers, LONGEST, strict=True):
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def _hangs(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("a case takes more than {} s of CPU, or {} s of waiting".format(*LONGEST))


def quoted(*names: str) -> list[str]:
    """Names of columns as messages have them."""
    return [f"column {name!r}" for name in names]


LONG = ("không " * 20_000, "ạ" * 100_000)
ODD_TEXTS = (
    *("", " ", "\t\r\n", "\0", "a\0b", "\x1b[31m", "\x7f\x85\u2028", "\u200b", "\ufeff", "\u00ad", "\uffff"),
    *(
        "e\u0302\u0301",
        "\u0301",
        "a" + "\u0323" * 50,
        unicodedata.normalize("NFD", SENTENCES[0]),
        "ﷺ",
        "ﬁ",
        "ß",
        "İ",
        "ſ",
    ),
    *("🙂", "👨‍👩‍👧", "🏳️‍🌈", "\u202eabc\u202c", "שלום עולם", "مرحبا", "漢字", "𝕏", "Z͑ͫ̓", "<s>", "</s><pad><unk><mask>"),
    *("{question}", "{", "}{", "%s", "nan", "None", "null", "0", "-1", "=1+1", '"', "'", "\\", "a,b\tc", "<ocr> a"),
    *("<|image_pad|>", "<|vision_start|>", "<|video_pad|><|im_end|>", "{{ 7 * 7 }}", "a.png", "không có.jpg", "/"),
    *("data:image/png;base64,AAAA", "x" * 300, "a b " * 100, "A", "b", "Không.", "Đã có mười hai năm."),
)
SURROGATES = ("\ud83d", "Trời mưa.\udc00", "\udfff\ud800", "\ud800a" * 40)

unicode_texts = st.one_of(
    st.sampled_from(SENTENCES),
    st.sampled_from(ODD_TEXTS),
    st.text(st.characters(codec="utf-8"), max_size=12),
)
"""What Arrow can hold: lone surrogates it cannot."""
texts = st.one_of(unicode_texts, st.sampled_from(SURROGATES), st.text(st.characters(), max_size=8))
good_texts = st.sampled_from(SENTENCES)
mostly_good_texts = st.one_of(*[good_texts] * 9, unicode_texts)

ODD_VALUES = (
    *(None, NAN, INF, -INF, 0, 1, -1, 0.5, 1.5, 10**400, -(2**63), True, False, b"", b"abc", [], [None], ["a", "b"]),
    *({}, {"a": 1}, {"bytes": None}, {"path": 3}, (), (1, 2), set(), 1e300, "", "0.5", "abc", "\ud800", object(), 1j),
    *(np.float32(0.5), np.array([0.2, 0.7]), np.array("x"), torch.tensor(0.5), torch.zeros(2), range(2), Ellipsis),
)
odd_values = st.sampled_from(ODD_VALUES)

ODD_COLUMNS: tuple[tuple[Any, ...], ...] = (  # each of one Arrow type
    *((None,), (0, 1, -1, 2**63 - 1, None), (0.5, NAN, INF, -0.0, 1e308, None), (True, False, None)),
    *((b"", b"abc", None), ([], ["a"], ["", None], None), ([1, 2], []), ([[]], [["a"]]), ({"a": 1}, {"a": None})),
    *(({"question": "a", "answer": "b"},), ([{"question": "a", "answer": None}], []), ("", " ", "\0")),
)


@st.composite
def tables(draw: st.DrawFn, most_rows: int = 5, **columns: st.SearchStrategy) -> Dataset:
    """A table with these columns, of which each may be missing, hold a None, or values of quite another type."""
    rows = draw(st.sampled_from([0, *range(1, most_rows + 1), most_rows, most_rows]))
    data = {}
    for name, good in columns.items():
        kind = draw(st.sampled_from(["good"] * 30 + ["none", "odd", "missing"]))
        if kind == "missing":
            continue
        values = st.sampled_from(draw(st.sampled_from(ODD_COLUMNS))) if kind == "odd" else good
        data[name] = draw(st.lists(values, min_size=rows, max_size=rows))
        if kind == "none" and rows:
            data[name][draw(st.integers(0, rows - 1))] = None
    return Dataset.from_dict(data)


@cache
def files() -> tuple[bytes, ...]:
    """One image in the formats that people have, still and animated, upright and turned."""
    ramp = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16)
    rgb = Image.fromarray(np.stack([ramp % 256, ramp // 2, 255 - ramp % 256], axis=2).astype(np.uint8))
    alpha, grey16 = rgb.convert("RGBA"), Image.fromarray(ramp * 150)
    turned = rgb.getexif()
    turned[0x0112] = 6
    frames = [rgb.rotate(90 * k) for k in range(3)]
    kinds = [
        *((rgb, "PNG", {}), (grey16, "PNG", {}), (rgb.quantize(8), "PNG", {"transparency": 0}), (alpha, "PNG", {})),
        *((rgb.convert("LA"), "PNG", {}), (rgb.convert("1"), "PNG", {}), (rgb, "PNG", {"exif": turned})),
        *((rgb, "JPEG", {}), (rgb, "JPEG", {"exif": turned}), (rgb.convert("CMYK"), "JPEG", {}), (rgb, "BMP", {})),
        *((rgb, "JPEG", {"progressive": True}), (rgb.convert("L"), "JPEG", {}), (rgb, "WEBP", {}), (rgb, "PPM", {})),
        *((alpha, "WEBP", {"lossless": True}), (rgb, "TIFF", {}), (rgb, "TIFF", {"compression": "tiff_lzw"})),
        *((grey16, "TIFF", {}), (rgb, "GIF", {}), (rgb, "ICO", {}), (rgb, "TGA", {}), (rgb, "JPEG2000", {})),
        *((rgb, kind, {"save_all": True, "append_images": frames}) for kind in ("GIF", "WEBP", "PNG", "TIFF")),
    ]
    made = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        made.append(buffer.getvalue())
    return tuple(made)
