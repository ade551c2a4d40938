"""The live demo of the front page, in a browser: its vectors are Python's, it works offline, and without it there is
something to see."""

from __future__ import annotations

import importlib
import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from st_vi import load
from tests.docs.conftest import ROOT, write_record
from tests.docs.site import opened

pytestmark = pytest.mark.slow

LIVE = ".st-vi-live"
SENTENCE = "Chiều nay trời mưa to, nhiều tuyến phố ở Hà Nội ngập sâu."
TEXTS = [
    SENTENCE,
    "chieu nay troi mua to, nhieu tuyen pho o ha noi ngap sau",
    unicodedata.normalize("NFD", SENTENCE),
    unicodedata.normalize("NFKD", "ﬁ ① ｆｕｌｌ ㎏ ½"),
    "ﬁ ① ｆｕｌｌ ㎏ ½",
    SENTENCE.upper(),
    "Ngủ ngon nhé 😴🌙 mai gặp 👨‍👩‍👧!",
    "😀" * 40,
    "",
    " ",
    "a",
    "  đầu\t và\n\n cuối  ",
    "một\u00a0hai\u2003ba\u3000bốn\u0085năm\u200bsáu\ufeffbảy",
    "▁ ▁▁ gạch",
    "<s> thẻ <unk></s><pad>",
    "＜s＞",
    "1.234.567,89 đ – 50 % (x² + y²) https://vi.wikipedia.org/wiki/Huế?a=b#c",
    "Чай 茶 ชา ᑎ ქართული",
    "khongcodaucachnaocahaylamnhungmadaiqua" * 3,
    "nghiêng nghiêng " * 600,  # more than 512 tokens
    "\u0301\u0323 dấu đứng một mình a\u0323\u0302",
]

VECTORS = """async ([address, texts]) => {
  const { Encoder } = await import(new URL("assets/demo/encoder.js", document.baseURI));
  const stream = (await fetch(address)).body.pipeThrough(new DecompressionStream("gzip"));
  const encoder = await Encoder.from(new Uint8Array(await new Response(stream).arrayBuffer()));
  return texts.map(text => [...encoder.encode(text)]);
}"""


def settings(site: Any, page: str = "") -> dict[str, Any]:
    import html

    found = re.search(r'data-settings="([^"]*)"', (site.folder / page / "index.html").read_text(encoding="utf-8"))
    return json.loads(html.unescape(found[1]))


@contextmanager
def typing(page: Any) -> Iterator[Any]:
    """The box, with the model loaded."""
    page.locator(f"{LIVE} input").click()
    page.locator(f"{LIVE} form button").wait_for(state="detached", timeout=120_000)
    yield page.locator(f"{LIVE} input")


def answer(page: Any, text: str) -> tuple[list[str], list[float], int]:
    """Type a text: the sentences, their cosines and the milliseconds."""
    page.locator(f"{LIVE} input").fill("")
    page.locator(f"{LIVE} .st-vi-status").filter(has_not_text="ms").wait_for()
    page.locator(f"{LIVE} input").fill(text)
    page.locator(f"{LIVE} .st-vi-status").filter(has_text="ms").wait_for(timeout=60_000)
    ms = re.search(r"([\d.,]+) ms", page.locator(f"{LIVE} .st-vi-status").inner_text())
    return (*shown(page.locator(f"{LIVE} ol")), int(ms[1]))


def shown(answers: Any) -> tuple[list[str], list[float]]:
    rows = answers.locator("li")
    numbers = [float(number.replace(",", ".")) for number in rows.locator("b").all_inner_texts()]
    return rows.locator("span[lang]").all_text_contents(), numbers


def test_vectors_are_those_of_python(site, reader):
    wrong: list[str] = []
    with opened(reader, site.root, site.root, wrong) as page:
        found = torch.tensor(page.evaluate(VECTORS, [settings(site)["address"], TEXTS]))
    expected = load("vi-mini").encode(TEXTS, convert_to_tensor=True, batch_size=1)
    assert not wrong
    assert (found - expected).abs().max() < 1e-5  # what is asked of it is 1e-3


def test_the_file_is_loaded_when_asked_for_once_and_then_the_network_may_go(site, browser):
    context, wrong, loaded = browser.new_context(), [], []
    context.on("request", lambda one: loaded.append(one.url) if one.url.endswith(".bin") else None)
    with opened(context, site.root, site.root, wrong) as page:
        assert not loaded
        with typing(page) as box:
            context.set_offline(True)
            texts, cosines, ms = answer(page, "gia xang tang")
            assert texts[0] == "Giá xăng tăng khiến cước vận tải leo thang."
            vectors = load("vi-mini").encode(["gia xang tang", *texts], convert_to_tensor=True)
            assert cosines == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=0.0075)
            assert cosines == sorted(cosines, reverse=True) and len(set(texts)) == 5
            times = [ms, *(answer(page, text)[2] for text in ("mưa to", "xe buyt dem", "thuốc ho", "giá vàng hôm nay"))]
            write_record("live-demo.json", json.dumps({"ms": times}).encode())
            assert min(times) < 100  # the least: the machine may be busy
            box.fill("  ")
            page.locator(f"{LIVE} li").first.wait_for(state="detached")
            context.set_offline(False)
        assert loaded == [site.root + settings(site)["address"]]
        page.wait_for_function("async () => (await (await caches.open('st-vi-demo')).keys()).length === 1")
    with opened(context, site.root + "vi/", site.root, wrong) as page, typing(page):
        assert answer(page, "giá xăng tăng")[0][0] == "Giá xăng tăng khiến cước vận tải leo thang."
    assert len(loaded) == 1, "the browser has kept it"
    assert not wrong
    context.close()


def test_what_is_recorded_is_what_is_computed(site, browser):
    with opened(browser, site.root, site.root, []) as page:
        queries = page.locator(f"{LIVE} .st-vi-examples button").all_inner_texts()
        recorded = []
        for query in queries:
            page.get_by_role("button", name=query, exact=True).click()
            recorded.append(shown(page.locator(f"{LIVE} ol")))
        with typing(page):
            live = [answer(page, query)[:2] for query in queries]
        assert len(queries) == 3
        for (texts, cosines), (found, computed) in zip(recorded, live, strict=True):
            assert texts == found and cosines == pytest.approx(computed, abs=0.011)  # vectors of sentences are in bf16


def test_it_is_small_and_says_so(site):
    file = site.folder / settings(site)["address"]
    assert file.stat().st_size < 30e6
    assert f"({file.stat().st_size / 1e6:.0f} MB)" in settings(site)["words"]["load"]
    assert (site.folder / "vi" / settings(site, "vi")["address"]).resolve() == file
    assert [path.name for path in site.folder.rglob("*.bin")] == [file.name]


@pytest.mark.parametrize("page", ["", "vi/"])
def test_without_scripts_there_are_recorded_answers(page, site, browser):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(site.root + page)
    figures = tab.locator(f"{LIVE} figure").all()
    assert len(figures) == 3
    for figure in figures:
        texts, cosines = shown(figure)
        assert len(texts) == 5 and cosines == sorted(cosines, reverse=True)
        assert all(bar.bounding_box()["width"] > 10 for bar in figure.locator(".st-vi-bar > i").all())
    context.close()


def test_where_webassembly_is_off_the_page_says_so(site, browser):
    context, wrong = browser.new_context(), []
    context.add_init_script("delete self.WebAssembly")
    with opened(context, site.root, site.root, wrong) as page:
        assert page.locator(f"{LIVE} figure").count() == 3 and not page.locator(f"{LIVE} input").count()
        assert page.locator(f"{LIVE} p").last.inner_text() == settings(site)["words"]["old"]
    assert not wrong
    context.close()


def test_a_model_that_does_not_load_can_be_tried_again(site, browser):
    context = browser.new_context()
    context.route("**/*.bin", lambda route: route.fulfill(status=503))
    with opened(context, site.root, site.root, []) as page:
        button = page.locator(f"{LIVE} form button")
        button.click()
        page.locator(f"{LIVE} .st-vi-status").filter(has_text="HTTP 503").wait_for()
        context.unroute("**/*.bin")
        button.click()
        button.wait_for(state="detached", timeout=120_000)
        assert answer(page, "mưa")[0]
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400, 1900])
def test_nothing_is_cut_off_or_overlaps(width, scheme, site, readers):
    with opened(readers[scheme], site.root + "vi/", site.root, [], width) as page:
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        box = page.locator(LIVE).bounding_box()
        for row in page.locator(f"{LIVE} li").all():
            text, bar, number = (row.locator(part).bounding_box() for part in ("span[lang]", ".st-vi-bar", "b"))
            assert bar["x"] + bar["width"] <= number["x"]
            assert text["x"] + text["width"] <= bar["x"] or text["y"] + text["height"] <= bar["y"]
            assert box["x"] <= text["x"] and number["x"] + number["width"] <= box["x"] + box["width"]
        write_record(f"live-demo-{scheme}-{width}.png", page.screenshot())


@pytest.fixture
def of_the_site(monkeypatch):
    """Modules of docs/_site."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_site")
    return importlib.import_module


def test_another_model_than_the_port_knows_stops_the_build(of_the_site, monkeypatch, tmp_path):
    demo_file = of_the_site("demo_file")
    config, tokenizer = (json.loads((demo_file.MODEL / name).read_text()) for name in ("config.json", "tokenizer.json"))
    demo_file._check(config, tokenizer)
    with pytest.raises(ValueError, match="hidden_act is 'relu'"):
        demo_file._check({**config, "hidden_act": "relu"}, tokenizer)
    with pytest.raises(ValueError, match="normalizer is None"):
        demo_file._check(config, {**tokenizer, "normalizer": None})


def test_figures_of_a_page_are_taken_from_the_table(of_the_site, monkeypatch, tmp_path):
    tables = of_the_site("tables")
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    source = "# A\n\n| m | x |\n|---|---|\n| one | 9 |\n\n## B `c`\n\n"
    source += "| m | x | y |\n|---|---|---|\n| **one** | **1.5** | |\n"
    (tmp_path / "numbers.md").write_text(source)
    asked = "<!-- figures: numbers.md#b-c -->\n| a |\n|---|\n| {one: x} % |\n\nand {one: x}\n"
    assert tables.with_figures(asked) == "| a |\n|---|\n| 1.5 % |\n\nand {one: x}\n"
    assert "| 1,5 % |" in tables.with_figures(asked, comma=",")
    for wrong in (("one: x", "two: x"), ("one: x", "one: z"), ("one: x", "one: y"), ("#b-c", "#b")):
        with pytest.raises(tables.NoSuchFigure):
            tables.with_figures(asked.replace(*wrong))
