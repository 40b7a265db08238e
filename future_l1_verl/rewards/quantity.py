"""Reads numbers in answers and compares them."""

import re
from typing import NamedTuple

from future_l1_verl.rewards.text import bare, plain

LONGEST_NUMBER = 64  # characters; anything longer is text

# The grammar is narrow because math-verify has no time limit outside a main thread (its limits are signals), and sympy needs
# minutes or all memory for deep braces or a power of a sum.
_DECIMAL = r"(?:\d+(?:\.\d+)?|\.\d+)"
_TERM = rf"(?:{_DECIMAL}(?:\^(?:\d{{1,2}}|\{{-?\d{{1,2}}\}}))?|π|\\pi|\\sqrt(?:\d|\{{{_DECIMAL}\}}))"
_OPERATOR = r"(?:\s*(?:[+*/-]|\\times|\\cdot|\\div)\s*|(?=[\\π(]))"
_SUM = rf"\s*[+-]?{_TERM}(?:{_OPERATOR}{_TERM})*\s*"
_FACTOR = rf"(?:{_TERM}|\\[dt]?frac(?:\d\d|\{{{_SUM}\}}\{{{_SUM}\}})|\({_SUM}\))"
_EXPRESSION = rf"[+-]?\s*{_FACTOR}(?:{_OPERATOR}{_FACTOR})*"
_WORD = r"(?:[^\W\d_]|[²³/])+"
_QUANTITY = re.compile(
    rf"(?P<expression>{_EXPRESSION})(?P<percent>\s*(?:%|percent\b))?(?P<unit>(?:\s*{_WORD}(?:\s{_WORD}){{0,2}})?)"
)
_RANGE = re.compile(r"\d\s*-\s*\d")  # "2-1" is a score, a range or a date
_LATEX = {r"\\left|\\right": "", r"\\[,;! ]": " ", r"\\%": "%", r"\^\s*(?:\\circ|\{\\circ\})|°": " degrees "}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SCIENTIFIC = re.compile(rf"(?<![\w.])({_DECIMAL})[eE]\+?(-?\d{{1,2}})(?!\w|\.\d)")  # "1.5e-3"
_MIXED = re.compile(r"\A([+-]?)(\d+) (\d+/\d+)(?![\d./^])")  # "1 1/2"
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_POWER = re.compile(rf"(?<=\d)\u207a?(\u207b?[{_RAISED}]{{1,2}})(?![{_RAISED}])")  # "10²"
_LOWERED = str.maketrans(f"\u207b{_RAISED}", "-0123456789")


class Quantity(NamedTuple):
    expression: str  # LaTeX
    percent: bool
    unit: str  # lower case; empty if there is none


def quantity(text: str) -> Quantity | None:
    r"""Returns the number if the whole text is a number; else None.

    Understood: decimals, "1,000", "1.5e-3", "1 1/2", powers of a number ("10²" too), ``\frac``, ``\sqrt``, pi, sums and
    products of these, one level of brackets, "%", and up to three words of unit. Not understood, so compared as text: number
    words, variables, "2-1", "1, 2", "10:30", anything longer than ``LONGEST_NUMBER`` characters.
    """
    text = plain(text)
    for pattern, replacement in _LATEX.items():
        text = re.sub(pattern, replacement, text)
    text = _THOUSANDS.sub("", bare(" ".join(text.split())))
    text = _POWER.sub(lambda power: f"^{{{power[1].translate(_LOWERED)}}}", text)
    text = _MIXED.sub(r"\1(\2+\3)", _SCIENTIFIC.sub(r"(\1*10^{\2})", text))
    match = _QUANTITY.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    if match is None or _RANGE.search(match["expression"]):
        return None
    return Quantity(match["expression"], bool(match["percent"]), match["unit"].strip().lower())


def same_number(one: str, other: str) -> bool:
    """Returns whether two texts are the same ``quantity``: exactly, or, if one of them is a decimal, to six decimals and to a
    thousandth of the larger. A unit may be missing on one side, or differ by a plural s; "50%" equals 50, 0.5 and 1/2."""
    left, right = quantity(one), quantity(other)
    if left is None or right is None or (left.unit and right.unit and left.unit.rstrip("s") != right.unit.rstrip("s")):
        return False
    if _equal(left.expression, right.expression):
        return True
    shares = [f"({side.expression})/100" if side.percent else side.expression for side in (left, right)]
    return left.percent != right.percent and _equal(*shares)


def _equal(one: str, other: str) -> bool:
    # Imported here: it imports sympy, which takes half a second and which multiple choice does not need.
    from math_verify import LatexExtractionConfig, parse, verify

    left, right = (parse(f"${side}$", [LatexExtractionConfig()], "no_fallback", parsing_timeout=None) for side in (one, other))
    if "." not in one + other:
        return verify(left, right, timeout_seconds=None)
    try:
        a, b = float(left[0]), float(right[0])
    except (ArithmeticError, TypeError):  # "1.0/0" is not a number, and a float holds at most 1e308
        return False
    return round(a, 6) == round(b, 6) and abs(a - b) <= max(abs(a), abs(b)) / 1000
