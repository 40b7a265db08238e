r"""Finds the letters that an answer names: "B", "(b)", "the answer is b", "选B".

"A" and "I" are English words too: before another word they do not count, except in "A is", "A because", "A or B". Chinese,
Japanese and Korean write no spaces around a letter: there it counts only next to words that mark an answer.
"""

import re
from collections.abc import Iterable

LETTERS = "ABCDEFGHIJ"

Span = tuple[int, int]

_AFTER_A = r"(?:is|because|since|or|and|but)\b"
_CAPITAL = rf"(?<![\w'.-])([B-HJ]|A(?!\s+(?!{_AFTER_A})\w)|I(?!\s+\w))(?![\w'-]|\.\w)"
_ANY_CASE = rf"(?i:{_CAPITAL})"
_CUE = r"(?i:\b(?:is|it's|be|(?<!thing )(?<!all )but|so|thus|therefore|hence|choose|chose|pick|select|think)\b)"
_ANSWER_CUE = r"(?i:\b(?:answer|option|choice)\b(?:\s+is\b)?)"
_AND = r"(?:\s*[,/&]\s*|\s+)(?:(?:or|and)\s+(?:(?:rather|maybe|perhaps|possibly)\s+)?)?(?:[Oo]ption\s+)?"

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_CJK_CUE = (
    r"(?:[回解]?答[案え]?|正解|[选選][项項择擇]?|選択肢?|정?답|선택지?|보기)"
    r"[\s:=\"'()\[\]]*+(?:应该|應該|应|應)?(?:[是为為はが은는이가][\s:\"'(\[]*+)?"
)
_CJK_AND = r"(?:或者?|[还還]是|[和与與跟及とや와과]|または|및|또는)"
_CJK_TOO = r"(?:[都皆均両]|모두|とも|どちら)"
_ANOTHER = r"不[选選是]\s*[A-J]"  # "选B不选C"
_CJK_NO_MORE = rf"(?:(?!因)[^,.;!?\n]){{0,8}}?(?:(?!{_ANOTHER})不|[错錯误誤]|ない|ません|아[니닙]|않)"  # "选项B是错误的"
_CJK_IS = r"です|だ(?!け)|である|でしょう|입니다|이다|예요|이에요|是?正[确確]|是[对對]|が正(?:解|しい)"
_CJK_END = rf"(?:{_CJK_IS}|を選|[番번]|[选選]?[项項](?!目))"

_ALONE = re.compile(r"\A\W*([A-Ja-j])\W*\Z")
_FORMS = [
    _ALONE,  # "B", "b.", "(b)"
    re.compile(rf"\A([A-Ja-j])[).:](?=[\s{_CJK}])"),  # "b. the left wall"
    re.compile(rf"\A{_CAPITAL}"),  # "B, because ...", "B the left wall"; not "A car ..."
    re.compile(r"(?<!\w)[(\[]([A-Ja-j])[)\]]"),  # "the left wall (b)"
    re.compile(rf"{_ANSWER_CUE}[\s:=]*{_ANY_CASE}"),  # "the answer is b", "Option B"
    re.compile(rf"{_CUE}[\s,:]*{_CAPITAL}"),  # "..., so B"; not "Player B"
    re.compile(rf"[.,;:!?>→-]\s*{_CAPITAL}\W*\Z"),  # "... the car door. B"
    re.compile(rf"{_CAPITAL}{_AND}{_CAPITAL}"),  # "B or C", "A, B": both
    re.compile(rf"{_CJK_CUE}([A-Ja-j])(?!{_CJK_NO_MORE})(?:(?={_CJK_END}|因|{_ANOTHER}|而[不非])|(?![\w'-]|\.\w))"),
    re.compile(rf"\A\W*([A-J])(?!{_CJK_NO_MORE})(?={_CJK_END})"),  # "Bです"
    re.compile(rf"{_CJK_CUE}([A-Ja-j])\s*(?:[,/&]|{_CJK_AND})\s*([A-J])(?![A-Za-z0-9_'-])"),  # "选A或B": both
    re.compile(
        rf"(?<![A-Za-z0-9_'.-])([A-J])\s*(?:{_CJK_AND}|[,/&](?=\s*[A-J]\s*{_CJK_TOO}))\s*([A-J])(?![A-Za-z0-9_'-])"
    ),  # "A和B", "A、B都对": both
]
_NOT = r"(?i:\b(?:not|cannot|never|no|nor|neither|instead of|rather than|except)|n't)"
_CJK_NOT = r"(?:不(?![过過仅僅])|非(?!常)|[别別勿没沒])[^,.;:!?]{0,8}"
_NEGATION = re.compile(rf"(?:{_NOT}\s+(?:be\s+)?(?:(?:the|an?)\s+)?|{_CJK_NOT})\Z")
_IS = r"(?:is|are|was|were|seems|looks|sounds|appears|can|could|does|did|will|would|must|should)"
_DENIAL = re.compile(
    rf"[\"')\]*]*\s+(?:{_IS}(?:\s+(?:be|to be|\w+ly|also|both|all))*\s+(?:not|never|wrong|incorrect|false|untrue|impossible|"
    rf"unlikely|invalid|excluded|eliminated|ruled out|out)\b|cannot\b|(?:{_IS}|ca|wo)n't\b)"
    r"|\W*\s(?:no\W+)?(?:wait|actually|sorry)\b|\s+[是就也]?(?:[错錯误誤]|不(?:对|對|是|行|可能|成立|正))",
    re.IGNORECASE,
)


def letter_alone(text: str) -> str | None:
    """Returns the letter, as a capital, if a `plain` text is only one letter; else None."""
    return alone[1].upper() if (alone := _ALONE.match(text)) else None


def letters(text: str) -> dict[Span, str]:
    """Returns the letters that a `plain` text names, as capitals, by position."""
    found: dict[Span, str] = {}
    for form in _FORMS:
        for match in form.finditer(text):
            if not negated(text, match.start()):
                found |= {match.span(group): match[group].upper() for group in range(1, form.groups + 1)}
    return found


def denied(text: str, spans: Iterable[Span]) -> bool:
    """Returns whether a `plain` text withdraws what it says at one of the ``spans``: "B is wrong", "B, wait, C"."""
    return any(_DENIAL.match(text, end) for _, end in spans)


def negated(text: str, position: int) -> bool:
    """Returns whether there is a negation directly before ``position``."""
    return _NEGATION.search(text[max(0, position - 24) : position]) is not None
