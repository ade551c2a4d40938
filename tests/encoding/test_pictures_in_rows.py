"""Images of a corpus: found where they are meant, an error where they are not, and no name is read as a text."""

from __future__ import annotations

import base64
import io
import json
from unicodedata import normalize

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from st_vi import build_vipolyqwen
from st_vi.encoding import encode_by_tokens, encode_corpus
from st_vi.encoding.batches import token_counts
from st_vi.encoding.rows import InputColumns, looks_like_picture
from st_vi.inputs.kinds import is_picture
from st_vi.inputs.pictures import open_image
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

COLOURS = ["red", "green", "blue", "orange", "black"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    base = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    return build_vipolyqwen(str(base), embedding_dimension=16, max_pixels=112 * 112)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images, and some that are none, in a folder beside the rows."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "ảnh").mkdir()
    for number, colour in enumerate(COLOURS):
        picture = Image.effect_noise((60 + number, 90), 50).convert("RGB")
        picture.paste(colour, (0, 0, 30, 30))
        picture.save(folder / "ảnh" / f"{number} {colour}.png")
    Image.new("RGB", (3000, 10)).save(folder / "strip.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def names():
    return [f"ảnh/{number} {colour}.png" for number, colour in enumerate(COLOURS)]


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def vectors(folder):
    return np.stack(
        [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path)["embedding"].to_pylist()]
    )


def decoded(folder):
    return [open_image(str(folder / name)) for name in names()]


@pytest.mark.slow
@pytest.mark.parametrize("column", ["image", "product_image", "scan"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_paths_are_relative_to_the_file_of_the_rows(model, folder, tmp_path, monkeypatch, column, elsewhere):
    monkeypatch.chdir(tmp_path if elsewhere else folder)
    source = write(folder, normalize("NFD", "dòng.jsonl"), [{column: name} for name in names()])  # as a Mac names it
    encode_corpus(model, source.with_name("dòng.jsonl"), tmp_path / "out", column)
    assert np.abs(vectors(tmp_path / "out") - model.encode(decoded(folder))).max() < 1e-5


def test_names_of_images_in_the_letters_of_another_system(model, folder, tmp_path):
    picture = folder / normalize("NFD", "ảnh một.png")
    decoded(folder)[0].save(picture)
    encode_corpus(model, write(folder, "dòng.jsonl", [{"image": "ảnh một.png"}]), tmp_path / "out", "image")
    assert np.abs(vectors(tmp_path / "out") - model.encode(decoded(folder)[:1])).max() < 1e-5


@pytest.mark.slow
def test_every_form_of_a_picture_gives_the_same_vector(model, folder, tmp_path):
    paths = [folder / name for name in names()]
    features = datasets.Features({"image": datasets.Image()})
    forms = {
        "names": [str(path) for path in paths],
        "paths": paths,
        "bytes": [path.read_bytes() for path in paths],
        "PIL": [Image.open(path) for path in paths],
        "arrays": [np.asarray(picture) for picture in decoded(folder)],
        "tensors": [torch.tensor(np.asarray(picture)).permute(2, 0, 1) for picture in decoded(folder)],
        "views": [memoryview(path.read_bytes()) for path in paths],
        "open files": [io.BytesIO(path.read_bytes()) for path in paths],
        "base64": [f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in paths],
        "dicts": [{"bytes": None, "path": str(path)} for path in paths],
        "inputs": [{"image": str(path)} for path in paths],
        "lists": [[str(path)] for path in paths],
        "dataset": datasets.Dataset.from_dict({"image": [str(path) for path in paths]}, features=features),
    }
    expected = model.encode(decoded(folder))
    for name, form in forms.items():
        rows = form if name == "dataset" else [{"image": value} for value in form]
        for option in ({"column": "image"}, {"image_column": "image"}):
            if name == "inputs" and "image_column" in option:
                continue
            out = tmp_path / f"{name} {len(option)} {next(iter(option))}"
            encode_corpus(model, rows, out, **option)
            assert np.abs(vectors(out) - expected).max() < 1e-5, (name, option)


def test_text_and_picture_of_a_row_are_one_input(model, folder, tmp_path):
    texts = ["Màu gì?", "", "Có gì?", None, "Chỉ có chữ, logo.png"]
    pictures = [*names()[:2], None, names()[3], {"bytes": None, "path": None}]
    rows = [{"text": text, "photo": name} for text, name in zip(texts, pictures, strict=True)]
    expected = [
        {"text": texts[0], "image": decoded(folder)[0]},
        decoded(folder)[1],
        texts[2],
        decoded(folder)[3],
        {"text": texts[4]},
    ]
    encode_corpus(model, write(folder, "pairs.jsonl", rows), tmp_path / "out", image_column="photo", prompt_name="ocr")
    alone = np.stack([model.encode(item, prompt_name="ocr") for item in expected])
    assert np.abs(vectors(tmp_path / "out") - alone).max() < 1e-5
    renamed = [{"body": row["text"], "photo": row["photo"]} for row in rows]
    source = write(folder, "renamed.jsonl", renamed)
    encode_corpus(model, source, tmp_path / "named", "body", image_column="photo", prompt_name="ocr")
    assert np.array_equal(vectors(tmp_path / "named"), vectors(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"renamed\.jsonl: column 'photo', row 2: nothing to encode in None"):
        encode_corpus(model, source, tmp_path / "alone", image_column="photo")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("missing.png", "no such image: .*missing.png"),
        ("ảnh/0 red.jgp", "no such image"),
        ("s3://ảnh/a.png", "no such image: 's3://ảnh/a.png'; only files are read here: download it"),
        ("broken.png", "cannot read the image .*broken.png"),
        ("strip.png", ".*3000 × 10"),
        (None, "nothing to encode in None"),
        (3, "nothing to encode in 3|expected an image, got 3"),
    ],
)
@pytest.mark.parametrize("option", ["column", "image_column"])
def test_what_is_no_picture_is_an_error_or_is_skipped(model, folder, tmp_path, value, problem, option):
    rows = [{"image": name} for name in [*names(), value, *names()]]
    source = write(folder, "bad.jsonl", rows)
    with pytest.raises(ValueError, match=rf"bad\.jsonl: column 'image', row 5: ({problem})"):
        encode_corpus(model, source, tmp_path / "out", **{option: "image"})
    assert not (tmp_path / "out").exists()
    result = encode_corpus(model, source, tmp_path / "out", bad_row="skip", **{option: "image"})
    assert (result.rows, list(result.skipped_rows)) == (10, [5])
    assert np.abs(vectors(tmp_path / "out")[5:] - model.encode(decoded(folder))).max() < 1e-5


TEXTS = ["Trời mưa.", "Một tô phở.", "Hai cái bánh.", "Hãy mở tệp logo.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("Xem <|image_pad|> này", "has <|image_pad|>, which stands for an image"),
        ("<|vision_start|>", "has <|vision_start|>"),
        ("a\ud83d", "no Unicode text"),
        ("\u200b", "nothing to encode"),
        ("missing.png", "no such image"),
        ("ảnh của tôi/phở bò.png", "no such image"),
        ({"text": "Gì?", "image": "missing.png"}, "no such image"),
        ({"text": " ", "image": None}, "nothing to encode"),
        ({"text": 3}, "expected a text, got 3"),
        ({"txt": "Gì?"}, ""),
        ([1, 2], ""),
        (object(), ""),
        ("row", "expected a dict of columns, got 'row'"),
    ],
)
def test_one_bad_row_among_texts_is_named_or_skipped(model, tmp_path, value, problem):
    bad = value if value == "row" else {"text": value}
    rows = [*({"text": text} for text in TEXTS), bad, *({"text": text} for text in TEXTS)]
    with pytest.raises(ValueError, match=rf"column 'text', row 4: .*{problem.replace('|', '.')}"):
        encode_corpus(model, rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = encode_corpus(model, rows, tmp_path / "out", bad_row="skip")
    assert (result.rows, list(result.skipped_rows)) == (8, [4])
    assert np.abs(vectors(tmp_path / "out") - model.encode(TEXTS * 2)).max() < 1e-5


def test_strings_can_all_be_texts(model, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    odd = ["strip.png", "https://example.org/a.png", "data:image/png;base64,AAAA", "file:///etc/hosts", "missing.jpg"]
    rows = [{"text": text} for text in [*odd, *TEXTS]]
    encode_corpus(model, rows, tmp_path / "out", text_only=True)
    expected = model.encode([{"text": row["text"]} for row in rows])
    assert np.abs(vectors(tmp_path / "out") - expected).max() < 1e-5


def test_a_picture_that_changed_in_its_file_is_another_row(model, folder, tmp_path):
    (tmp_path / "a.png").write_bytes((folder / names()[0]).read_bytes())
    source = write(tmp_path, "rows.jsonl", [{"image": "a.png"}])
    encode_corpus(model, source, tmp_path / "out", "image")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "elsewhere" / "b.png")  # the content counts, not the name
    moved = write(tmp_path, "moved.jsonl", [{"image": "elsewhere/b.png"}])
    assert encode_corpus(model, moved, tmp_path / "out", "image").reused == 1
    (tmp_path / "a.png").write_bytes((folder / names()[1]).read_bytes())
    with pytest.raises(ValueError, match=r"shard-00000\.parquet was made of other rows: row 0 is not what it was"):
        encode_corpus(model, source, tmp_path / "out", "image")


def test_a_model_for_texts_is_given_no_names_of_pictures(tiny_model, folder, tmp_path):
    rows = [{"image": name, "text": f"Ảnh {name}"} for name in names()]
    for option in ({"column": "image"}, {"image_column": "image"}):
        with pytest.raises(ValueError, match="column 'image' holds images, and this model takes none"):
            encode_corpus(tiny_model, rows, tmp_path / "out", **option)
    with pytest.raises(ValueError, match="row 0: this is an image, and the model takes none"):
        encode_corpus(tiny_model, [{"text": Image.new("RGB", (30, 30))}], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    encode_corpus(tiny_model, rows, tmp_path / "out", "image", text_only=True)
    assert np.abs(vectors(tmp_path / "out") - tiny_model.encode(names())).max() < 1e-5
    encode_corpus(tiny_model, [*({"text": text} for text in TEXTS), {"text": "logo.png"}], tmp_path / "one")


def test_pictures_are_opened_when_their_batch_comes(model, folder, tmp_path, monkeypatch):
    """Memory is that of a batch: a shard of decoded photographs would not fit."""
    open_at_once, encode = [], model.encode
    monkeypatch.setattr(
        model, "encode", lambda items, **kwargs: open_at_once.append(len(items)) or encode(items, **kwargs)
    )
    rows = [{"image": (folder / name).read_bytes()} for name in names() * 8]
    encode_corpus(model, rows, tmp_path / "out", "image", max_tokens=64)
    assert sum(open_at_once) == 40 and max(open_at_once) < 10


def test_bytes_and_paths_in_batches_by_cost(model, folder):
    path = folder / names()[0]
    data = io.BytesIO(path.read_bytes()).getvalue()
    got = encode_by_tokens(model, [path, data, {"image": path}, {"image": [data], "text": "Màu gì?"}])
    picture = open_image(str(path))
    expected = [picture, picture, picture, {"image": picture, "text": "Màu gì?"}]
    assert np.abs(got - np.stack([model.encode(item) for item in expected])).max() < 1e-5


@pytest.mark.parametrize(
    ("values", "pictures"),
    [
        (["a.png", "b.jpg", "tô phở"], True),
        (["a.png", "tô phở"], False),
        (["Xem logo.png nhé", "Trời mưa."], False),
        ([None, "", "a.TIFF"], True),
        ([None, 3], False),
    ],
)
def test_a_column_is_of_pictures_if_most_of_it_is(values, pictures):
    rows = [{"x": value} for value in values]
    assert InputColumns.of(rows, "x", None, False, None).pictures is pictures
    assert not InputColumns.of(rows, "x", None, True, None).pictures


def test_names_of_pictures():
    pictures = ["a.png", "thư mục/ảnh 1.JPG", "https://a.vn/b.webp?w=3", "a.tif"]
    pictures += [
        "data:image/png;x",
        "data:;base64,x",
        "DATA:application/octet-stream;base64,x",
        " data:image/png;base64,x",
    ]
    assert all(map(looks_like_picture, pictures))
    assert all(map(is_picture, pictures[2:]))
    assert not any(map(looks_like_picture, ["Trời mưa.", "a.pdf", "png", "a.png\nb", "Xem a.png.", "https://a.vn/b"]))


def test_long_texts_in_chunks_beside_pictures(model, folder, tmp_path):
    """A text is cut; a row with an image stays one row, and has no place in a text."""
    long = "Màu đỏ là màu của hoa phượng. " * 12
    rows = [
        {"text": long, "photo": None},
        {"text": "Màu gì?", "photo": names()[0]},
        {"text": None, "photo": names()[1]},
    ]
    source = write(folder, "long.jsonl", rows)
    settings = {"image_column": "photo", "chunk": 60, "prompt_name": "ocr"}
    result = encode_corpus(model, source, tmp_path / "out", **settings)
    lines = pq.read_table(tmp_path / "out" / "shard-00000.parquet").to_pylist()
    assert result.rows == 3 and len(lines) == result.vectors > 4
    assert [(line["id"], line["start"], line["end"]) for line in lines[-2:]] == [(1, None, None), (2, None, None)]
    pieces = [long[line["start"] : line["end"]] for line in lines[:-2]]
    assert " ".join(pieces) == long.strip()
    assert max(token_counts(model, pieces, model.prompts["ocr"])) <= 60
    expected = [*pieces, {"text": "Màu gì?", "image": decoded(folder)[0]}, decoded(folder)[1]]
    alone = np.stack([model.encode(item, prompt_name="ocr") for item in expected])
    assert np.abs(vectors(tmp_path / "out") - alone).max() < 1e-5
