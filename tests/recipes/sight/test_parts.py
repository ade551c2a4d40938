"""The parts of the small viPolyQwen's training, each against something plainer."""

from __future__ import annotations

import copy
import re
import weakref
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from PIL import Image

from st_vi import build_vipolyqwen, load
from st_vi.data.generated.lines import draw_lines
from st_vi.data.generated.scenes import questions, scene
from st_vi.recipes.sight.deeper import add_layers
from st_vi.recipes.sight.half import HalfPrecision, learn
from st_vi.recipes.sight.letters import (
    add_letters,
    alphabet,
    cell_tokens,
    letters_step,
    patch_letters,
    phrase,
    reading_losses,
    remove_letters,
)
from st_vi.recipes.sight.looks import look
from st_vi.recipes.sight.pixels import Reader
from st_vi.recipes.sight.seeing import Named, Scenes, Seeing, for_testing, turns
from st_vi.recipes.sight.text import Texts, draw_paragraphs, text_step
from st_vi.recipes.sight.tower import even_cells, picture_vectors
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    base = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny") / "base")
    model = build_vipolyqwen(base, embedding_dimension=16, min_pixels=28 * 28, max_pixels=64 * 28 * 28).cpu()
    model[0].model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def pictures():
    texts = ["Mưa to.", "Quán phở Hoa Sữa", "Đội bóng thắng"]
    return [draw_lines(text, Random(seed), columns=9, rows=2).pixels for seed, text in enumerate(texts)]


def test_the_reader_reads_as_the_model_does(model, pictures):
    texts = ["Trong ảnh viết gì?", None, "Đọc."]
    ours = Reader(model)(pictures, texts, "<ocr>")
    inputs = [
        {"image": Image.fromarray(picture), "text": text} if text else Image.fromarray(picture)
        for picture, text in zip(pictures, texts, strict=True)
    ]
    theirs = model.preprocess(inputs, prompt="<ocr>")
    for name, value in ours.items():
        torch.testing.assert_close(value.float(), theirs[name].float(), atol=1e-5, rtol=0, msg=name)


def test_even_pictures_have_the_vectors_of_the_model(model, pictures):
    features = Reader(model)(pictures, [None, "Mưa", "Đội bóng nào thắng?"])
    with torch.no_grad():
        vectors, cells = picture_vectors(model, features)
        theirs = model(dict(features))["sentence_embedding"]
        tower = model[0].model.visual(features["pixel_values"], grid_thw=features["image_grid_thw"]).pooler_output
    torch.testing.assert_close(vectors, F.normalize(theirs, dim=1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(cells.flatten(0, 1), tower, atol=1e-5, rtol=1e-4)


def test_gradients_of_the_tower_are_the_stock_ones(model, pictures):
    features = Reader(model).pictures(pictures)
    visual = model[0].model.visual
    found = []
    for cells in (
        even_cells(visual, features["pixel_values"], features["image_grid_thw"][0]).flatten(0, 1),
        visual(features["pixel_values"], grid_thw=features["image_grid_thw"]).pooler_output,
    ):
        gradients = torch.autograd.grad(cells.pow(2).sum(), list(visual.parameters()))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)


def test_tokens_of_cells_against_a_loop(model):
    tokenizer, text = model.tokenizer, "Quán phở Hoa Sữa"
    drawn = draw_lines(text, Random(1), columns=9)
    ids, shares = cell_tokens(tokenizer, text, drawn)
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    area = drawn.coverage()
    assert len(ids) == len(spans) == shares.shape[1]
    for cell, row in enumerate(shares):
        plain = np.zeros(len(ids))
        for place in range(len(text)):
            owners = [number for number, (start, end) in enumerate(spans) if start <= place < end]
            for owner in owners:
                plain[owner] += area[cell, place] / len(owners)
        if plain.sum() > 0.15 * 28 * 28:
            np.testing.assert_allclose(row, plain / plain.sum())
        else:
            assert not row.any()


def test_letters_of_patches_against_a_loop():
    text, letters = "Mưa to!", {"M": 1, "o": 2, "t": 3, "ư": 4}
    drawn = draw_lines(text, Random(4), columns=5, rows=2)
    shares = patch_letters(letters, text, drawn)
    assert shares.shape == (4 * 10, 5)
    area = drawn.coverage(14)
    for patch, row in enumerate(shares):  # cells row by row, and the four patches of a cell together
        cell, part = divmod(patch, 4)
        place = (2 * (cell // 5) + part // 2) * 10 + 2 * (cell % 5) + part % 2
        plain = np.zeros(5)
        for number, letter in enumerate(text):
            plain[letters.get(letter, 0)] += area[place, number]
        if plain.sum() > 0.2 * 14 * 14:
            np.testing.assert_allclose(row, plain / plain.sum(), rtol=1e-5)
        else:
            assert not row.any()


def test_reading_losses_in_closed_form():
    table = torch.eye(3) * 2
    drawn = [([0, 1], np.array([[1.0, 0.0], [0.5, 0.5]])), ([1], np.array([[0.0]]))]
    cells = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [9.0, 9.0, 9.0]], requires_grad=True)
    losses = reading_losses(cells, table, drawn)
    assert losses["read"].item() == pytest.approx(0)
    one = -torch.tensor([1.0, 0.0]).div(0.07).log_softmax(0)[0]
    both = -torch.tensor([0.5**0.5] * 2).div(0.07).log_softmax(0).mean()
    assert losses["which"].item() == pytest.approx(((one + both) / 2).item(), rel=1e-5)
    sum(losses.values()).backward()
    assert not cells.grad[2].any()  # nothing is written there
    moved = torch.tensor([[5.0, 0.0, 0.0], [2.0, 2.0, 0.0], [9.0, 9.0, 9.0]])  # by 1 in one of six numbers
    # over the mean square of the targets (4, 0, 0) and (2, 2, 0), which is 4
    assert reading_losses(moved, 2 * table, drawn)["read"].item() == pytest.approx(1 / 6 / 4)


def test_phrases_are_of_the_text():
    random = Random(0)
    found = [phrase(SENTENCES[0], 3, random) for _ in range(60)]
    plain = [one for one in found if one in SENTENCES[0]]
    assert len(plain) > 30 and all(len(one.split()) == 3 for one in found)


@pytest.mark.parametrize("dialogue", [False, True])
def test_turns_ask_what_the_scene_answers(dialogue):
    random, topics = Random(2), set()
    for seed in range(40):
        found = scene("train", seed)
        said, answer, others = turns(found, random, dialogue)
        assert said.startswith("Hỏi: ") == dialogue
        assert any(question.answer == answer for question in questions(found))
        assert answer not in others and 1 <= len(others) <= 8
        if dialogue:  # its first part is true, and the second is about the same shape
            _, asked, told, last = re.fullmatch("(Hỏi: )(.*) Đáp: (.*) Hỏi: (.*)", said).groups()
            first = {q.subject for q in questions(found) if asked in q.wordings and q.answer == told}
            assert first & {q.subject for q in questions(found) if q.follow_up == last and q.answer == answer}
        topics |= {q.topic for q in questions(found) if q.answer == answer and (dialogue or said in q.wordings)}
    assert len(topics) > 2


def test_a_look_keeps_the_picture_and_changes_the_paper():
    emoji = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    emoji.paste((200, 30, 30, 255), (12, 12, 52, 52))
    looks = [look(emoji, Random(seed), 84) for seed in range(8)]
    assert {one.shape for one in looks} == {(84, 84, 3)}
    for one in looks:
        red = (one[..., 0].astype(int) - one[..., 1] > 60).mean()
        assert 0.1 < red < 0.5
    assert len({tuple(one[0, 0]) for one in looks}) > 4


def test_a_fifth_is_for_testing():
    assert 0.15 < np.mean([for_testing(f"tên {number}") for number in range(2000)]) < 0.25


def small_seeing(model, tmp_path):
    def teacher(texts):
        generator = torch.Generator()
        rows = [torch.randn(16, generator=generator.manual_seed(len(text) * 97 + ord(text[-2]))) for text in texts]
        return F.normalize(torch.stack(rows), dim=1)

    texts = sorted(dict.fromkeys(SENTENCES * 4), key=len)
    known = Texts(texts, teacher(texts).half())
    return Seeing(model, teacher, known, Scenes(tmp_path / "scenes.npy", 6, size=84))


def test_a_corpus_without_short_texts_is_drawn_in_phrases(model, tmp_path):
    seeing = small_seeing(model, tmp_path)
    random = Random(0)
    while Random(seed := random.random()).choice(range(8)) > 0:  # the smallest of the eight layouts
        pass
    assert len(seeing.texts[0]) > 15, "all are too long for its five cells"
    assert all(loss.isfinite() for loss in seeing.lines(Random(seed), cells=20).values())


def test_losses_to_targets_against_a_loop(model, tmp_path):
    seeing = small_seeing(model, tmp_path)
    vectors = F.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    texts, options = ["Có một.", "Không có."], [["Có hai."], ["Có một.", "Có ba."]]
    losses = seeing._to_targets("x", vectors, texts, options)
    known = ["Có một.", "Có hai.", "Không có.", "Có ba."]
    cosine = vectors @ F.normalize(seeing.targets(known), dim=1).T
    assert losses["x_cosine"].item() == pytest.approx(3 * (1 - (cosine[0, 0] + cosine[1, 2]) / 2).item(), rel=1e-4)
    plain = -(cosine[0] / 0.05).log_softmax(0)[0] - (cosine[1] / 0.05).log_softmax(0)[2]
    assert losses["x_which"].item() == pytest.approx(plain.item() / 2, rel=1e-4)
    own = -(cosine[0, :2] / 0.05).log_softmax(0)[0] - (cosine[1, [2, 0, 3]] / 0.05).log_softmax(0)[0]
    assert losses["x_options"].item() == pytest.approx(own.item() / 2, rel=1e-4)


def test_the_choice_of_the_picture_against_a_loop(model, tmp_path):
    """Text to image too, for named images; another image of the same name is no wrong one."""
    seeing = small_seeing(model, tmp_path)
    vectors = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    texts = ["Mèo.", "Chó.", "Mèo.", "Gà."]
    cosine = F.normalize(seeing.targets(texts), dim=1) @ vectors.T
    expected = 0.0
    for text in range(4):
        others = [picture for picture in range(4) if picture == text or texts[picture] != texts[text]]
        expected -= (cosine[text, others] / 0.05).log_softmax(0)[others.index(text)].item() / 4
    assert seeing._to_targets("named", vectors, texts)["named_back"].item() == pytest.approx(expected, rel=1e-4)
    assert "questions_back" not in seeing._to_targets("questions", vectors, texts)


def test_batches_of_names_that_mean_nearly_the_same(model, tmp_path):
    seeing, names_of = small_seeing(model, tmp_path), [f"{letter}o" for letter in "abcdefgh"]
    seeing.named = [Named(tmp_path / f"{name}.png", (name,)) for name in names_of]
    names = seeing.targets(names_of)
    near = {frozenset((names @ one).topk(3).indices.tolist()) for one in names}
    drawn = [seeing._named_batch(Random(number), 3) for number in range(30)]
    found = [frozenset(names_of.index(row.names[0]) for row in rows) for rows in drawn]
    assert all(len(rows) == 3 for rows in found)
    assert 8 <= sum(rows in near for rows in found) < 30


def test_new_layers_change_nothing_until_they_are_trained(model, tmp_path):
    wider = copy.deepcopy(model)
    before = wider.encode(SENTENCES)
    here = len(wider[0].model.language_model.layers)
    assert add_layers(wider, 2) == [f"layers.{here}.", f"layers.{here + 1}."]
    np.testing.assert_array_equal(wider.encode(SENTENCES), before)
    wider.save_pretrained(str(tmp_path / "wider"))
    np.testing.assert_allclose(load(tmp_path / "wider", device="cpu").encode(SENTENCES), before, atol=1e-6)
    wider(wider.preprocess(SENTENCES))["sentence_embedding"].square().sum().backward()
    for layer in wider[0].model.language_model.layers[here:]:
        assert layer.self_attn.o_proj.weight.grad.any() and layer.mlp.down_proj.weight.grad.any()
        torch.nn.init.normal_(layer.self_attn.o_proj.weight)  # as if trained
    wider.save_pretrained(str(tmp_path / "trained"))
    after = wider.encode(SENTENCES)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(load(tmp_path / "trained", device="cpu").encode(SENTENCES), after, atol=1e-5)


@pytest.mark.parametrize(("words", "batch"), [(20, 40), (60, 26), (120, 16)])
def test_a_batch_of_long_texts_is_smaller(model, words, batch, monkeypatch):
    """As many characters as 40 texts of 160 have, and 16 texts at least."""
    seen = []
    texts = [f"{number:02d} " + "mưa " * words for number in range(50)]
    targets = F.normalize(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)), dim=1).half()
    plain = model[0].forward
    monkeypatch.setattr(
        model[0], "forward", lambda features: seen.append(len(features["input_ids"])) or plain(features)
    )
    monkeypatch.setattr("st_vi.recipes.sight.text.VARIED", 0.0)
    text_step(model, Texts(texts, targets), None, size=40)(Random(0))
    assert seen == [batch]


def test_whole_paragraphs_have_so_many_characters():
    rows = Dataset.from_dict({"text": ["a" * length for length in (100, 600, 700, 700, 1300)]})
    assert sorted(map(len, draw_paragraphs([rows], [1.0], 5, 0))) == [600, 700]
    assert len(draw_paragraphs([rows, rows], [0.5, 0.5], 2, 0)) == 2


def test_vectors_that_are_known_are_not_computed_again(model, tmp_path):
    asked, seeing = [], small_seeing(model, tmp_path)
    teacher, text = seeing.targets.teacher, seeing.known.texts[0]
    seeing.targets.teacher = lambda texts: asked.extend(texts) or teacher(texts)
    for _ in range(2):
        found = seeing.targets([text, "Một câu mới."])
    assert asked == ["Một câu mới."]
    torch.testing.assert_close(found[0], seeing.known.targets[0].float())


def test_scenes_are_drawn_once(model, tmp_path):
    first = Scenes(tmp_path / "s.npy", 3, size=84)
    before = (tmp_path / "s.npy").stat().st_mtime_ns
    again = Scenes(tmp_path / "s.npy", 3, size=84)
    assert (tmp_path / "s.npy").stat().st_mtime_ns == before
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.scene(2) == scene("train", 2) != scene("test", 2)
    again.seed = 1
    assert again.scene(2) == scene("train", 1_000_005)


def test_the_file_of_scenes_is_not_mapped_when_it_gets_its_name(tmp_path, monkeypatch):
    """Windows renames no file that is."""
    opened, rename, mapped = np.lib.format.open_memmap, Path.rename, []
    monkeypatch.setattr(
        np.lib.format, "open_memmap", lambda *a, **kw: mapped.append(weakref.ref(found := opened(*a, **kw))) or found
    )
    monkeypatch.setattr(Path, "rename", lambda old, new: mapped.append(mapped[0]()) or rename(old, new))
    Scenes(tmp_path / "s.npy", 2, size=84)
    assert mapped[1] is None


def test_training_goes_on_where_it_stopped(tmp_path):
    """An interrupted training ends with the weights of one that was not, and its steps draw the same numbers."""
    drawn = []

    def train(folder, *stops):
        for stop in stops:
            torch.manual_seed(0)
            layer = torch.nn.Linear(4, 4)
            training = HalfPrecision(layer, 0.01)

            def step(random, layer=layer, stop=stop):
                if stop is not None and len(drawn) == stop:
                    raise KeyboardInterrupt
                drawn.append(random.random())
                x = torch.full((2, 4), drawn[-1], dtype=torch.bfloat16)
                return {"square": (layer(x) - x).pow(2).mean()}

            try:
                learn(training, step, 12, folder, save_seconds=0, warm_up=2)
            except KeyboardInterrupt:
                continue
            training.to_single()
        return layer

    whole = train(tmp_path / "a", None)
    numbers = drawn.copy()
    drawn.clear()
    parts = train(tmp_path / "b", 5, None)
    assert drawn == numbers
    torch.testing.assert_close(whole.weight, parts.weight, rtol=0, atol=0)
    assert whole.weight.dtype == torch.float32


def test_a_step_against_what_is_said_of_it():
    """Rates by a part of the name, no decay of vectors, a gradient of length 1 at most."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    training = HalfPrecision(model, 0.1, {"weight": 0.5, "": 1.0})
    groups = {id(one): group for group in training.optimizer.param_groups for one in group["params"]}
    of = {name: groups[id(master)] for name, master in zip(training.names, training.masters, strict=True)}
    assert [(name, group["rate"], group["weight_decay"]) for name, group in of.items()] == [
        ("0.weight", 0.05, 0.01),
        ("0.bias", 0.1, 0.0),
    ]
    model[0].weight.grad = torch.full((2, 2), 4.0, dtype=torch.bfloat16)
    before = model[0].bias.clone()
    assert training.step(0.25) == pytest.approx(8.0)
    assert training.masters[0].grad.norm().item() == pytest.approx(1.0, rel=1e-4)
    assert of["0.weight"]["lr"] == 0.25 * 0.05 and torch.equal(model[0].bias, before)


def test_the_rate_rises_and_falls_along_a_cosine(tmp_path):
    layer, shares = torch.nn.Linear(2, 2), []
    training = HalfPrecision(layer, 0.01)
    plain = training.step
    training.step = lambda share: shares.append(share) or plain(share)
    learn(
        training,
        lambda _: {"x": layer(torch.ones(1, 2, dtype=torch.bfloat16)).sum()},
        4,
        tmp_path,
        warm_up=2,
        lowest=0.1,
    )
    cosine = [0.1 + 0.9 * (1 + np.cos(np.pi * number / 4)) / 2 for number in range(4)]
    assert shares == pytest.approx([cosine[0] / 2, *cosine[1:]])


def test_letters_teach_the_tower_alone(model, tmp_path):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    add_letters(model, len(alphabet(SENTENCES)))
    training, records = HalfPrecision(model, 3e-3), []
    learn(
        training,
        letters_step(model, SENTENCES, size=4),
        8,
        tmp_path,
        log=records.append,
        log_every=4,
        warm_up=1,
    )
    training.to_single()
    remove_letters(model)
    assert records[-1]["letters"] < records[0]["letters"]
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]) != ("visual" in name and "inv_freq" not in name), name
    model.load_state_dict(state)
