"""Equations of docstrings, set as MathML."""

from __future__ import annotations

import importlib
import re
from xml.dom.minidom import parseString

import pytest

from tests.docs.conftest import ROOT

griffe = pytest.importorskip("griffe", reason='pip install "st-vi[docs]"')


@pytest.fixture
def equations(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_site")
    return importlib.import_module("equations")


def inner(mathml: str) -> str:
    return re.sub(r"<math[^>]*>|</math>| (form|stretchy|accent|lspace|rspace)=\"\w+\"", "", mathml)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a_ij", "<msub><mi>a</mi><mrow><mi>i</mi><mi>j</mi></mrow></msub>"),
        ("e^{x}", "<msup><mi>e</mi><mrow><mi>x</mi></mrow></msup>"),
        ("τ₊", "<msub><mi>τ</mi><mrow><mo>+</mo></mrow></msub>"),
        ("a / b + c", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac><mo>+</mo><mi>c</mi>"),
        ("a/b", "<mi>a</mi><mo>/</mo><mi>b</mi>"),
        (
            "(a − b) / c",
            "<mfrac><mrow><mi>a</mi><mo>−</mo><mi>b</mi></mrow><mrow><mi>c</mi></mrow></mfrac>",
        ),
        (
            "Σ_{j} f(j)",
            "<munder><mo>Σ</mo><mrow><mi>j</mi></mrow></munder><mi>f</mi><mrow><mo>(</mo><mi>j</mi><mo>)</mo></mrow>",
        ),
        ("ŝ", "<mover><mi>s</mi><mo>^</mo></mover>"),
        ("|P|", "<mrow><mo>|</mo><mi>P</mi><mo>|</mo></mrow>"),
        ("KL(P‖Q)", "<mi>KL</mi><mrow><mo>(</mo><mi>P</mi><mo>‖</mo><mi>Q</mi><mo>)</mo></mrow>"),
        ("j < 2", "<mi>j</mi><mo>&lt;</mo><mn>2</mn>"),
    ],
)
def test_what_is_read(line, expected, equations):
    assert inner(equations.mathml(line)) == expected


@pytest.mark.parametrize("line", ["log( a", "a)", "_i", "x_", "( / b)", "a = / b", "e^{a", "x_)"])
def test_what_is_no_equation_is_an_error(line, equations):
    with pytest.raises(ValueError, match=re.escape(repr(line))):
        equations.mathml(f"    {line}")


def described(entry):
    for member in entry.members.values():
        if not member.is_alias:
            if member.docstring:
                yield member
            yield from described(member)


@pytest.mark.slow
def test_every_equation_of_the_package_is_set_and_says_the_same(equations):
    """Nothing of a line is lost but the marks for its layout."""
    docstrings = importlib.import_module("docstrings")
    found = 0
    for member in described(griffe.load("st_vi", search_paths=[ROOT])):
        source = member.docstring.value
        for made in re.findall(r"<math.*?</math>", docstrings.with_equations(source)):
            found += 1
            line = re.search(r'alttext="(.*?)"', made)[1].replace("&lt;", "<")
            assert f"    {line}" in source
            assert equations.letters(made) == equations.letters(line), member.path
            parseString(made)
    assert found >= 30


def test_code_below_the_sections_stays_code(equations):
    docstrings = importlib.import_module("docstrings")
    source = "A term:\n\n    L = a / b\n\nArgs:\n    x: A number.\n\n        more\n\nExample:\n    >>> 1\n"
    made = docstrings.with_equations(source)
    assert made.count("<math") == 1 and made.endswith(source.partition("Args:")[2])
