r"""Makes texts comparable: one form of each character, no markup, no words that only announce an answer."""

import re
import unicodedata

# A superscript or subscript digit is not a digit of the number before it, so these keep their form.
_RAISED = "\u00b2\u00b3\u00b9\u2070-\u209c"
_FLAT = re.compile(f"[^{_RAISED}]+")
_FRACTION_BEHIND_DIGIT = re.compile(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e\u2189])")
_PLAIN = str.maketrans(
    dict.fromkeys("\u2018\u2019", "'")
    | dict.fromkeys("\u201c\u201d\u00ab\u00bb\u300c\u300d\u300e\u300f", '"')
    | dict.fromkeys("\u2010\u2011\u2013\u2014\u2212", "-")
    | dict.fromkeys("\u200b\u2060\ufeff\u00ad", "")  # invisible
    | {"\u00d7": "*", "\u00f7": "/", "\u2044": "/", "\u3010": "[", "\u3011": "]", "\u3001": ", ", "\u3002": ". "}
)
_SUPERSCRIPTS = str.maketrans("+-0123456789", "\u207a\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")

# Only in pairs: "<B>" alone may be an answer. Strikethrough is not here, since it withdraws the text.
_HTML = re.compile(
    r"<(b|i|u|em|strong|span|font|mark|code|kbd|tt|small|big|ins|p|div|center|li|h[1-6])(?:\s[^<>]*)?>([^<>]*)</\1\s*>",
    re.IGNORECASE,
)
_HTML_POWER = re.compile(r"<sup>([+-]?\d+)</sup>", re.IGNORECASE)
_HTML_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BRACED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*+\})*+\})*+)\}"  # balanced, two levels of braces inside
_WRAPPER = re.compile(rf"\\(?:boxed|fbox|text(?:bf|it|rm)?|math(?:bf|it|rm))\s*{_BRACED}")
_MARKUP = re.compile(r"\*\*(?!\d)|(?<!\d)\*\*|__|`|\\?\$|\\[()\[\]]")  # "10**2" is a power

_ANNOUNCED = [
    r"(?:so,?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+)?answer\s*(?:is\s*:?|:)",
    r"(?:(?:所以|因此|故)[,\s]*)?(?:正[确確]|最[终終]|正しい|최종)?的?\s*"
    r"(?:答案|回答|解答|答え|正解|정답|답)\s*(?:(?:应该|應該|应|應)?[是为為は은는]\s*:?|:)",
]
_LEAD_IN = re.compile(rf"^\W*+(?:{'|'.join(_ANNOUNCED)})\s*", re.IGNORECASE)
_LEADING = re.compile(r"^(?:[ ,:;!?\"'*]|\.(?!\d))+")
_TRAILING = " .,:;!?\"'*"
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")


def uniform(text: str) -> str:
    """Applies Unicode's NFKC, except to raised digits ("10²"), and makes quotes and dashes plain; "1½" becomes "1 1/2"."""
    text = _FRACTION_BEHIND_DIGIT.sub(" ", text.replace("\u00ba", "\u00b0"))
    return _FLAT.sub(lambda flat: unicodedata.normalize("NFKC", flat[0]), text).translate(_PLAIN)


def plain(text: str) -> str:
    r"""Applies `uniform`, then removes double spaces, Markdown and HTML emphasis, ``$``, ``\boxed{}`` and ``\text{}``."""
    text = _HTML_POWER.sub(lambda power: power[1].translate(_SUPERSCRIPTS), _HTML_BREAK.sub(" ", uniform(text)))
    for _ in range(3):  # \boxed{\text{\mathbf{B}}}
        text = _WRAPPER.sub(r"\1", _HTML.sub(r"\2", text))
    return " ".join(_MARKUP.sub("", text).split())


def normalise(text: str) -> str:
    """Applies `plain`, then lower-cases and removes punctuation at the ends and a leading article."""
    return _ARTICLE.sub("", bare(plain(text).lower()))


def bare(text: str) -> str:
    """Removes punctuation at the ends, but not the point of ".5"."""
    return _LEADING.sub("", text).rstrip(_TRAILING)


def without_lead_in(text: str) -> str:
    """Applies `uniform`, then removes a leading "The answer is"."""
    return _LEAD_IN.sub("", uniform(text)).strip()
