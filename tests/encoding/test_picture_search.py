"""Images of a folder found by a text: order, what is kept, and images that cannot be read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from st_vi import build_vipolyqwen
from st_vi.__main__ import app
from st_vi.encoding.search import PictureIndex
from st_vi.inputs.pictures import open_image
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    base = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny") / "base")
    return build_vipolyqwen(base, embedding_dimension=16, min_pixels=28 * 28, max_pixels=16 * 28 * 28).cpu()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p" / "sub").mkdir(parents=True)
    for name, colour in (("a.png", "red"), ("sub/b.JPG", "blue"), ("c.webp", "white")):
        Image.new("RGB", (50, 40), colour).save(tmp_path / "p" / name)
    (tmp_path / "p" / "notes.txt").write_text("không phải ảnh")
    return tmp_path / "p"


def test_order_is_that_of_the_cosines(model, folder):
    index = PictureIndex(folder, model, batch_size=2)
    assert index.files == ["a.png", "c.webp", "sub/b.JPG"]
    query = "một tấm ảnh đỏ"
    pictures = [Image.open(folder / file).convert("RGB") for file in index.files]
    cosine = model.encode(pictures) @ model.encode(query)
    found = index.search(query, top=2)
    assert [one.file for one in found] == [index.files[number] for number in np.argsort(-cosine)[:2]]
    assert found[0].score == pytest.approx(cosine.max(), abs=1e-3)


def test_a_later_call_encodes_only_what_is_new(model, folder, tmp_path, monkeypatch):
    first = PictureIndex(folder, model, kept_in=tmp_path / "kept")
    Image.new("RGB", (30, 30), "green").save(folder / "d.png")
    (folder / "a.png").unlink()
    counts = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda inputs, **kw: counts.append(len(inputs)) or encode(inputs, **kw))
    again = PictureIndex(folder, model, kept_in=tmp_path / "kept")
    assert counts == [1] and again.files == ["c.webp", "d.png", "sub/b.JPG"]
    np.testing.assert_array_equal(again.vectors[0], first.vectors[1])
    monkeypatch.undo()
    model.max_seq_length, before = 100, model.max_seq_length  # another model: nothing is taken over
    counts.clear()
    monkeypatch.setattr(model, "encode", lambda inputs, **kw: counts.append(len(inputs)) or encode(inputs, **kw))
    PictureIndex(folder, model, kept_in=tmp_path / "kept")
    monkeypatch.undo()
    model.max_seq_length = before
    assert counts == [3]


def test_a_run_that_was_killed_goes_on_and_content_counts(model, folder, tmp_path, monkeypatch):
    """The second batch is never encoded; then an image moves, and another has its name."""
    encode, counts = model.encode, []

    def dies(inputs, **kwargs):
        if counts:
            raise KeyboardInterrupt
        counts.append(len(inputs))
        return encode(inputs, **kwargs)

    monkeypatch.setattr(model, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        PictureIndex(folder, model, kept_in=tmp_path / "kept", batch_size=2)
    (folder / "a.png").rename(folder / "moved.png")
    Image.new("RGB", (50, 40), "white").save(folder / "c.webp", lossless=True)
    counts.clear()
    monkeypatch.setattr(model, "encode", lambda inputs, **kw: counts.append(len(inputs)) or encode(inputs, **kw))
    index = PictureIndex(folder, model, kept_in=tmp_path / "kept")
    assert counts == [2] and index.files == ["c.webp", "moved.png", "sub/b.JPG"]
    fresh = PictureIndex(folder, model)
    np.testing.assert_allclose(index.vectors, fresh.vectors, atol=1e-3)


def test_bad_pictures_are_named_and_left_out(model, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (9, 9)).save(folder / ".hidden.png")
    with pytest.warns(UserWarning, match=r"bad\.png is left out: cannot read the image '.*bad\.png'"):
        assert PictureIndex(folder, model).files == ["a.png", "c.webp", "sub/b.JPG"]
    (folder / "gone.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match=r"gone\.png is left out: .*No such file"):
        assert len(PictureIndex(folder, model).files) == 3
    with pytest.raises(ValueError, match="is no folder"):
        PictureIndex(tmp_path / "none", model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image in"):
        PictureIndex(tmp_path / "empty", model)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="the query is empty"):
        PictureIndex(folder, model).search("  ")


def test_an_image_that_changes_while_it_is_read_is_not_kept_as_what_it_was(model, folder, tmp_path, monkeypatch):
    shutil.copy(folder / "a.png", folder / "d.png")

    def changed(file):
        if file.name == "d.png":
            Image.new("RGB", (50, 40), "green").save(file)
        return open_image(file)

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match=r"a\.png is left out: .*d\.png was changed"):
        patch.setattr("st_vi.encoding.search.pictures.open_image", changed)
        assert PictureIndex(folder, model, kept_in=tmp_path / "kept").files == ["c.webp", "sub/b.JPG"]
    again, fresh = PictureIndex(folder, model, kept_in=tmp_path / "kept"), PictureIndex(folder, model)
    assert again.files == fresh.files == ["a.png", "c.webp", "d.png", "sub/b.JPG"]
    np.testing.assert_allclose(again.vectors, fresh.vectors, atol=1e-3)


def test_all_copies_of_a_bad_image_are_named(model, folder, tmp_path):
    for name in ("x.png", "y.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.warns(UserWarning) as said:
        PictureIndex(folder, model)
    assert [str(one.message).partition(" is left out")[0] for one in said] == [
        str(folder / n) for n in ("x.png", "y.png")
    ]


def test_pictures_of_a_format_that_pillow_lacks_are_named(model, folder):
    """Photos of phones are HEIC, and nothing was said of a folder of them."""
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.warns(UserWarning, match=r"IMG_1\.HEIC is left out: .*pillow-heif"):
        assert PictureIndex(folder, model).files == ["a.png", "c.webp", "sub/b.JPG"]


def test_linked_folders_are_searched(model, folder, tmp_path):
    (tmp_path / "linked").symlink_to(folder)
    (folder / "sub" / "up").symlink_to(folder)
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "p").symlink_to(tmp_path / "linked")
    assert PictureIndex(tmp_path / "all", model).files == ["p/a.png", "p/c.webp", "p/sub/b.JPG"]


def test_the_command(model, folder, tmp_path):
    model.save_pretrained(str(tmp_path / "model"))
    arguments = ["search", "--images", str(folder), "ảnh đỏ", "--model", str(tmp_path / "model"), "--top", "2"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found) == 2 and set(found[0]) == {"file", "score"}
    assert len(list((folder / ".st_vi" / "all").rglob("part-*.npz"))) == 1
    plain = CliRunner().invoke(app, arguments)
    assert plain.stdout.startswith("1. ") and found[0]["file"] in plain.stdout.splitlines()[0]
    result = CliRunner().invoke(app, [*arguments, "--no-words"])
    assert isinstance(result.exception, ValueError) and "--no-words does nothing with --images" in str(result.exception)
