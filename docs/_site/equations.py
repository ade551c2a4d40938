"""Equations as they stand in docstrings, in plain Unicode, set as MathML.

Read are ``x_i``, ``x_ij``, ``x_{i ∈ S}``, ``e^{…}``, superscripts and subscripts of Unicode, and a division with spaces
around it, `` / ``, as a fraction of what stands beside it, up to a comma, a relation, a plus or a minus. A division
without spaces stays a slash.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass

TOKEN = re.compile(r"(?P<space>\s+)|(?P<number>[0-9.]*[0-9]|[½])|(?P<word>[A-Za-z]{2,})|(?P<sign>.)")
SEPARATORS = frozenset(",=←+−<≤≥∈:")
OPENING, CLOSING, BARS = "([{", ")]}", "|‖"
UNDER = frozenset({"Σ", "max", "mean"})  # what stands under them in a display, and not beside
RAISED = dict(zip("⁺⁻⁰¹²³ᵀ*", "+−0123T*", strict=True))
LOWERED = dict(zip("₊₋₀₁₂₃", "+−0123", strict=True))


@dataclass
class _Part:
    """A piece of MathML, what it is in the source, and whether it stands between operands."""

    xml: str
    source: str
    operator: bool = False


def mathml(line: str) -> str:
    """A line of an equation as a MathML element that keeps the line as its alternative text.

    Args:
        line: For example ``L_i = −log( e^{s_ii/τ} / Σ_j e^{s_ij/τ} )``.

    Raises:
        ValueError: A bracket is not closed, or nothing stands before or after a fraction, an index or a power.
    """
    tokens = [(match.lastgroup or "", match[0]) for match in TOKEN.finditer(line.strip())]
    reader = _Reader(line, tokens)
    body = reader.row("")
    return f'<math display="block" alttext="{html.escape(line.strip())}">{body}</math>'


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, line: str, tokens: list[tuple[str, str]]) -> None:
        self.line, self.tokens, self.place = line.strip(), tokens, 0

    def fail(self, what: str) -> ValueError:
        return ValueError(f"equation {self.line!r}: {what}")

    def row(self, end: str) -> str:
        """All up to a closing bracket, which is taken too."""
        parts: list[_Part] = []
        while self.place < len(self.tokens):
            kind, text = self.tokens[self.place]
            self.place += 1
            if end and text == end:
                return self.fractions(parts)
            if kind == "space":
                self.space(parts, text)
            elif text in "_^" or text in RAISED or text in LOWERED:
                self.attach(parts, text)
            else:
                parts.append(self.part(kind, text, opens=not parts or parts[-1].operator or parts[-1].source == " "))
        if end:
            raise self.fail(f"{end!r} is missing")
        return self.fractions(parts)

    def part(self, kind: str, text: str, opens: bool) -> _Part:
        """One operand or sign; a bracket with all that it holds. A bar is a bracket where no operand is before it."""
        if kind == "number":
            return _Part(f"<mn>{text}</mn>", text)
        if kind == "word" or (kind == "sign" and text.isalpha() and text != "Σ"):
            return _Part(_letter(text), text)
        if text in OPENING or (text in BARS and opens):
            close = text if text in BARS else CLOSING[OPENING.index(text)]
            held = self.row(close)
            tall = "" if "<mfrac>" in held or "<munder>" in held else ' stretchy="false"'
            fences = (f'<mo form="{form}"{tall}>{sign}</mo>' for form, sign in (("prefix", text), ("postfix", close)))
            return _Part(f"<mrow>{next(fences)}{held}{next(fences)}</mrow>", text)
        if text in CLOSING:
            raise self.fail(f"{text!r} closes nothing")
        close_up = ' lspace="0" rspace="0"' if text == "/" else ""
        return _Part(f"<mo{close_up}>{html.escape(text)}</mo>", text, operator=text != "∂")

    def space(self, parts: list[_Part], text: str) -> None:
        """Two spaces or more part formulas; one parts operands that would read as one word."""
        following = self.tokens[self.place][1] if self.place < len(self.tokens) else ""
        before = parts[-1].source if parts and parts[-1].operator else ""
        if len(text) > 1 and following not in SEPARATORS and before in ("", ","):
            parts.append(_Part('<mspace width="1.5em"></mspace>', ",", operator=True))
        elif following == "/" and self.tokens[self.place + 1][0] == "space":
            self.place += 2
            parts.append(_Part("", " / ", operator=True))
        elif parts and not parts[-1].operator and (following.isalnum() or following in "‖|(["):
            parts.append(_Part('<mspace width="0.25em"></mspace>', " "))

    def attach(self, parts: list[_Part], text: str) -> None:
        """An index or a power, to the operand before it."""
        while parts and parts[-1].source == " ":
            parts.pop()
        if not parts:
            raise self.fail(f"{text!r} has nothing before it")
        base = parts.pop()
        if text in RAISED or text in LOWERED:
            sign = {**RAISED, **LOWERED}[text]
            inner = f"<mn>{sign}</mn>" if sign.isdigit() else f"<mi>{sign}</mi>" if sign == "T" else f"<mo>{sign}</mo>"
        else:
            inner = self.argument()
        lower = text == "_" or text in LOWERED
        name = ("munder" if base.source in UNDER else "msub") if lower else "msup"
        xml = f"<{name}>{base.xml}<mrow>{inner}</mrow></{name}>"
        parts.append(_Part(xml, base.source if name == "munder" else "", operator=base.operator))

    def argument(self) -> str:
        """What follows ``_`` or ``^``: a group in braces, or letters and digits."""
        text = self.tokens[self.place][1] if self.place < len(self.tokens) else ""
        self.place += 1
        if text == "{":
            return self.row("}")
        if not text.isalnum():
            raise self.fail("an index is missing")
        found = "".join(f"<mn>{one}</mn>" if one.isdigit() else _letter(one) for one in text)
        following = self.tokens[self.place][1] if self.place < len(self.tokens) else ""
        return found + self.argument() if following.isalnum() and following not in {**RAISED, **LOWERED} else found

    def fractions(self, parts: list[_Part]) -> str:
        """Put each spaced division and its neighbours into a fraction."""
        while any(part.source == " / " for part in parts):
            at = next(index for index, part in enumerate(parts) if part.source == " / ")
            start, stop = at, at + 1
            while start > 0 and parts[start - 1].source not in SEPARATORS:
                start -= 1
            while stop < len(parts) and parts[stop].source not in SEPARATORS and parts[stop].source != " / ":
                stop += 1
            if start == at or stop == at + 1:
                raise self.fail("a fraction has an empty side")
            above, below = _bare(parts[start:at]), _bare(parts[at + 1 : stop])
            parts[start:stop] = [_Part(f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>", "/")]
        return "".join(part.xml for part in parts)


def _letter(text: str) -> str:
    """A letter or a word; the hat of a letter on its own, since fonts have no slanted letters with hats."""
    letter, *marks = unicodedata.normalize("NFD", text)
    if marks == ["\u0302"]:
        return f'<mover accent="true"><mi>{letter}</mi><mo stretchy="false">^</mo></mover>'
    return f"<mi>{text}</mi>"


def _bare(parts: list[_Part]) -> str:
    """The parts of one side of a fraction, without the round brackets around all of it."""
    xml = "".join(part.xml for part in parts)
    if len(parts) == 1 and parts[0].source == "(":
        return re.sub(r"^<mrow><mo[^>]*>\(</mo>|<mo[^>]*>\)</mo></mrow>$", "", xml)
    return xml


def letters(text: str) -> str:
    """What an equation says, without marks for its layout: the same of the source and of its MathML.

    Args:
        text: An equation, or the MathML of one.
    """
    if text.startswith("<math"):
        text = html.unescape(re.sub(r"<[^>]*>", "", text))
    raised = str.maketrans({**RAISED, **LOWERED})
    return re.sub(r"[\s_^(){}/\u0302]", "", unicodedata.normalize("NFD", text.translate(raised)))
