r"""R_acc by rule: what a reply answers, and whether that is right.

An answer is read in this order: an option's whole text, the letter grammar, an option's text inside the answer, a number, plain
text. An answer that names nothing, or two things, is *unparsed*: it earns what a wrong one earns but is counted apart, since it
says something of the form and not of the content. Needs neither verl nor vLLM nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

LETTERS = "ABCDEFGHIJ"
LONGEST_NUMBER = 64  # characters; anything longer is text

Span = tuple[int, int]
Named = TypeVar("Named")


@dataclass(frozen=True)
class Grade:
    """``parsed``: the answer says one definite thing. ``correct``: it is the right one; ValueError if it was not parsed."""

    correct: bool
    parsed: bool

    def __post_init__(self) -> None:
        if self.correct and not self.parsed:
            raise ValueError("an answer that was not parsed cannot be correct")


def answer_text(reply: str) -> str | None:
    """What stands in the only ``<answer>...</answer>`` of a reply, unedited but for the whitespace at its ends.

    None if there is no such pair, if a tag occurs twice or without its counterpart, or if nothing stands between them.
    """
    if reply.count("<answer>") != 1 or reply.count("</answer>") != 1:
        return None
    text, closed, _ = reply.partition("<answer>")[2].partition("</answer>")
    return text.strip() or None if closed else None


def grade(answer: str, truth: str, options: Sequence[str] | None = None) -> Grade:
    """Compares an answer, or the answer of a reply if it has ``<answer>`` tags, with ``truth``.

    With ``options`` the question is multiple choice and ``truth`` the right option's letter or text. Without, a ``truth`` that
    is one letter from A to J means that the options stand in the question: the answer's letter is compared. Any other ``truth``
    is an open answer, right if equal as text (``normalise``) or as a number (``same_number``), and parsed if not empty.

    Raises ValueError if there are options and ``truth`` is none of them: such a question has no right answer.
    """
    if "<answer>" in answer or "</answer>" in answer:
        answer = answer_text(answer) or ""
    if options:
        right = chosen_option(truth, options)
        if right is None:
            raise ValueError(f"the right answer {truth!r} is not among the options {list(options)}")
        choice = chosen_option(answer, options)
        return Grade(correct=choice == right, parsed=choice is not None)
    if letter := _ALONE.match(plain(truth)):
        choice = _only(_letters(plain(answer)).values())
        return Grade(correct=choice == letter[1].upper(), parsed=choice is not None)
    answer = _LEAD_IN.sub("", answer).strip()
    equal = normalise(answer) == normalise(truth) or same_number(answer, truth)
    return Grade(correct=bool(answer) and equal, parsed=bool(answer))


# Text: what is left of an answer without its markup.

_BRACED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*+\})*+\})*+)\}"  # balanced, two levels of braces inside
_WRAPPER = re.compile(rf"\\(?:boxed|fbox|text(?:bf|it|rm)?|math(?:bf|it|rm))\s*{_BRACED}")
_ASCII = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u00d7": "*", "\u00f7": "/"}
)
_MARKUP = re.compile(r"\*\*|__|`|\\?\$|\\[()\[\]]")
_LEAD_IN = re.compile(r"^\W*(?:so,?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+)?answer\s*(?:is\s*:?|:)\s*", re.IGNORECASE)
_LEADING = re.compile(r"^(?:[ ,:;!?\"'*]|\.(?!\d))+")
_TRAILING = " .,:;!?\"'*"
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")


def plain(text: str) -> str:
    r"""Single spaces, plain quotes and dashes, no Markdown emphasis, no ``$``, no ``\boxed{}`` or ``\text{}`` around text."""
    for _ in range(3):  # \boxed{\text{\mathbf{B}}}
        text = _WRAPPER.sub(r"\1", text)
    return " ".join(_MARKUP.sub("", text.translate(_ASCII)).split())


def normalise(text: str) -> str:
    """``plain`` in lower case, with no punctuation at the ends and no leading article."""
    return _ARTICLE.sub("", _bare(plain(text).lower()))


def _bare(text: str) -> str:
    """Without punctuation at the ends; the point of ".5" is none."""
    return _LEADING.sub("", text).rstrip(_TRAILING)


# Letters. "A" and "I" are English words too: before another word they are no letters, but for "A is", "A because", "A or B".

_AFTER_A = r"(?:is|because|since|or|and|but)\b"
_CAPITAL = rf"(?<![\w'.-])([B-HJ]|A(?!\s+(?!{_AFTER_A})\w)|I(?!\s+\w))(?![\w'-]|\.\w)"
_ANY_CASE = rf"(?i:{_CAPITAL})"
_CUE = r"(?i:\b(?:is|it's|be|but|so|thus|therefore|hence|choose|chose|pick|select|think)\b)"
_ANSWER_CUE = r"(?i:\b(?:answer|option|choice)\b(?:\s+is\b)?)"
_AND = r"(?:\s*[,/&]\s*|\s+)(?:(?:or|and)\s+)?(?:[Oo]ption\s+)?"

_ALONE = re.compile(r"\A\W*([A-Ja-j])\W*\Z")
_LETTER_FORMS = [
    _ALONE,  # "B", "b.", "(b)"
    re.compile(r"\A([A-Ja-j])[).:](?=\s)"),  # "b. the left wall"
    re.compile(rf"\A{_CAPITAL}"),  # "B, because ...", "B the left wall"; not "A car ..."
    re.compile(r"(?<!\w)[(\[]([A-Ja-j])[)\]]"),  # "the left wall (b)"
    re.compile(rf"{_ANSWER_CUE}[\s:=]*{_ANY_CASE}"),  # "the answer is b", "Option B"
    re.compile(rf"{_CUE}[\s,:]*{_CAPITAL}"),  # "..., so B"; not "Player B"
    re.compile(rf"[.,;:!?>→-]\s*{_CAPITAL}\W*\Z"),  # "... the car door. B"
    re.compile(rf"{_CAPITAL}{_AND}{_CAPITAL}"),  # "B or C", "A, B": both
]
_NOT = r"(?i:\b(?:not|cannot|never|no|nor|neither|instead of|rather than|except)|n't)"
_NEGATION = re.compile(rf"{_NOT}\s+(?:be\s+)?(?:(?:the|an?)\s+)?\Z")


def _letters(text: str) -> dict[Span, str]:
    """The letters that a text names, as capitals, by where they stand."""
    found = {}
    for form in _LETTER_FORMS:
        for match in form.finditer(text):
            if not _negated(text, match.start()):
                found |= {match.span(group): match[group].upper() for group in range(1, form.groups + 1)}
    return found


def _negated(text: str, position: int) -> bool:
    """Whether a negation stands directly before ``position``."""
    return _NEGATION.search(text[max(0, position - 24) : position]) is not None


# Options.

_BESIDE = re.compile(r"\W*(?:(?:the|an?)\s+)?", re.IGNORECASE)


def chosen_option(answer: str, options: Sequence[str]) -> int | None:
    """Index of the one option that an answer names; None if it names none, several, or one that is not there.

    An answer that is an option's text names it. Else letters are looked for; a letter with another option's text right beside
    it ("B. the right wall" where that is C) names two. Without a letter, options' texts inside the answer count, as whole
    words, the longest where one lies in another, and not behind a negation; without any of those, an option's number.
    """
    texts = [_option_text(index, option) for index, option in enumerate(options)]
    if (text := normalise(answer)) and text in texts:
        return texts.index(text)
    answer = plain(answer)
    mentions = _mentions(answer, texts)
    named = {span: index for span, index in mentions.items() if not _negated(answer, span[0])}
    letters = _letters(_masked(answer, mentions))
    if letters:
        beside = {named[span] for span in named for letter in letters if _BESIDE.fullmatch(_between(answer, span, letter))}
        return _only({_option_of(letter, texts) for letter in letters.values()} | beside)
    if mentions:
        return _only(named.values())
    return _only(index for index, option in enumerate(options) if same_number(answer, option))


def _option_text(index: int, option: str) -> str:
    """An option without the letter that a data set may have written before it: "B. left wall"."""
    return normalise(re.sub(rf"^\s*\(?{LETTERS[index]}[).:]\s+", "", option) if index < len(LETTERS) else option)


def _option_of(letter: str, texts: Sequence[str]) -> int | None:
    """Options that are letters themselves are named by what they say, not by where they stand."""
    if letter.lower() in texts:
        return texts.index(letter.lower())
    return LETTERS.index(letter) if LETTERS.index(letter) < len(texts) else None


def _mentions(answer: str, texts: Sequence[str]) -> dict[Span, int]:
    """Where options' texts stand in an answer as whole words, longer ones before those that they contain."""
    sought = sorted((text for text in texts if len(text) > 1 or text.isdigit()), key=len, reverse=True)
    if not sought:
        return {}
    word = re.compile(rf"(?<![\w/-])(?<!\d[.,:])(?:{'|'.join(map(re.escape, sought))})(?![\w/-]|[.,:]\d)")
    return {match.span(): texts.index(match[0]) for match in word.finditer(answer.lower())}


def _masked(answer: str, spans: Iterable[Span]) -> str:
    """``answer`` with an "x" for each character of the spans: the letters of "Team A and B" are no answers."""
    for start, end in spans:
        answer = answer[:start] + "x" * (end - start) + answer[end:]
    return answer


def _between(text: str, one: Span, other: Span) -> str:
    return text[min(one[1], other[1]) : max(one[0], other[0])]


def _only(named: Iterable[Named]) -> Named | None:
    """The one thing that was named; None if there are none or several."""
    distinct = set(named)
    return distinct.pop() if len(distinct) == 1 else None


# Numbers. The grammar is narrow because math-verify has no time limit outside a main thread (its limits are signals), and
# sympy needs minutes or all memory for deep braces or a power of a sum.

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


class Quantity(NamedTuple):
    expression: str  # LaTeX
    percent: bool
    unit: str  # lower case; empty if there is none


def quantity(text: str) -> Quantity | None:
    r"""The number that a whole text is; None if it is none.

    Understood: decimals, "1,000", powers of a number, ``\frac``, ``\sqrt``, pi, sums and products of these, one level of
    brackets, "%", and up to three words of unit. Not understood, so compared as text: number words, variables, "2-1", "1, 2",
    "10:30", anything longer than ``LONGEST_NUMBER`` characters.
    """
    text = plain(text)
    for pattern, replacement in _LATEX.items():
        text = re.sub(pattern, replacement, text)
    text = _THOUSANDS.sub("", _bare(" ".join(text.split())))
    match = _QUANTITY.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    if match is None or _RANGE.search(match["expression"]):
        return None
    return Quantity(match["expression"], bool(match["percent"]), match["unit"].strip().lower())


def same_number(one: str, other: str) -> bool:
    """Whether two texts are the same ``quantity``, judged by math-verify (equal to 6 decimals if one of them is a decimal).

    A unit may be missing on one side, or differ by a plural s; "50%" equals 50, 0.5 and 1/2.
    """
    left, right = quantity(one), quantity(other)
    if left is None or right is None or (left.unit and right.unit and left.unit.rstrip("s") != right.unit.rstrip("s")):
        return False
    if _equal(left.expression, right.expression):
        return True
    shares = [f"({side.expression})/100" if side.percent else side.expression for side in (left, right)]
    return left.percent != right.percent and _equal(*shares)


def _equal(one: str, other: str) -> bool:
    # Imported here: it brings in sympy, half a second that multiple choice never needs.
    from math_verify import LatexExtractionConfig, parse, verify

    parsed = [parse(f"${side}$", [LatexExtractionConfig()], "no_fallback", parsing_timeout=None) for side in (one, other)]
    return verify(*parsed, timeout_seconds=None)
