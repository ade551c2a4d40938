from pathlib import Path
def test_open(open_notebook, browser, monkeypatch):
    from tests.notebooks.driver import OpenNotebook
    monkeypatch.setattr(OpenNotebook, "_settle", lambda self: None)
    nb = open_notebook(Path("/tmp/f/many.py"))
    js = """() => [...document.querySelectorAll(".jp-Notebook .jp-OutputArea-output *")].filter(e => !e.closest("svg") && !e.closest(".js-plotly-plot > *")).map(e => e.tagName + "." + e.className + (e.children.length ? "" : " EMPTY")).join("\\n")"""
    seen = set()
    for k in range(40):
        t = nb.evaluate(js)
        if t not in seen:
            print("=====", k); print(t); seen.add(t)
        nb.page.wait_for_timeout(50)
