"""Reads the options of a multiple-choice question, writes them into the question, and finds the one that is meant."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from future_l1_verl.rewards.letters import LETTERS, Span, denied, letters, negated
from future_l1_verl.rewards.quantity import same_number
from future_l1_verl.rewards.text import normalise, plain, uniform, without_lead_in

Named = TypeVar("Named")

# Capitals: lower-case letters number other things.
_AT_LINE_START = re.compile(r"^[ \t]*\(?([A-J])[).:](?=\s)", re.MULTILINE)
_ANYWHERE = re.compile(r"(?:^|\s)\(?([A-J])[).:](?=\s)")
_SENTENCE_ENDS = re.compile(r"(?:^|\n|[.?!:][\"')]*\s)\s*\(?\Z")
_BESIDE = re.compile(r"\W*(?:(?:the|an?)\s+)?", re.IGNORECASE)


def texts(options: object) -> list[str]:
    """Returns the options of a list (or numpy array), with or without letters before them, or of a mapping from letters.

    Raises ValueError, saying why, unless they are 2 to 10 different texts.
    """
    options = _unpacked(options)
    if isinstance(options, Mapping):
        if set(options) != set(LETTERS[: len(options)]):
            raise ValueError(f"options must go by the letters from A to J, none left out, not by {list(options)!r:.80}")
        options = [options[letter] for letter in LETTERS[: len(options)]]
    if isinstance(options, str) or not isinstance(options, Sequence):
        raise ValueError(f"options must be a list of texts, not {type(options).__name__}: {options!r:.80}")
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError(f"every option must be a text that is not empty: {options!r:.80}")
    lettered = inlined("\n".join(options))
    found = lettered if len(lettered) == len(options) else [option.strip() for option in options]
    if not 2 <= len(found) <= len(LETTERS):
        raise ValueError(f"options must be 2 to {len(LETTERS)}, not {len(found)}: {found!r:.80}")
    if len({normalise(option) for option in found}) < len(found):
        raise ValueError(f"options must differ by more than case, punctuation and article: {found!r:.80}")
    return found


def given(options: object) -> list[str]:
    """Returns `texts` of options that may be missing: empty for None, an empty list or mapping, or a mapping of nulls."""
    options = _unpacked(options)
    missing = options is None or (isinstance(options, Sequence | Mapping) and not options)
    return [] if missing else texts(options)


def _unpacked(options: object) -> object:
    """Returns a numpy array as a list, and a mapping without nulls: a parquet struct has the fields of its longest row."""
    if hasattr(options, "tolist"):
        options = options.tolist()
    if isinstance(options, Mapping):
        return {letter: text for letter, text in options.items() if text is not None}
    return options


def split(question: str) -> tuple[str, list[str]]:
    """Returns a question without the options at its end, and those options (lettered from A in the text), or an empty list.

    Each option starts a line, or the first follows the end of a sentence and the last does not end in a question mark: other
    letters belong to prose ("Vitamin A. He picks B. then?").
    """
    found = _run(_AT_LINE_START, question)
    if not found and not question.rstrip().endswith("?"):
        found = _run(_ANYWHERE, question)
        if found and not _SENTENCE_ENDS.search(question[: found[0].start(1)]):
            found = []
    if not found:
        return question, []
    ends = [letter.start() for letter in found[1:]] + [len(question)]
    return question[: found[0].start()], [question[letter.end() : end].strip() for letter, end in zip(found, ends, strict=True)]


def _run(pattern: re.Pattern[str], question: str) -> list[re.Match[str]]:
    """Returns the last letters if they run from A without a gap and are at least two; else none."""
    found = list(pattern.finditer(question))
    while found and "".join(letter[1] for letter in found) != LETTERS[: len(found)]:
        found = found[1:]
    return found if len(found) > 1 else []


def inlined(question: str) -> list[str]:
    """Returns the options at the end of a question."""
    return split(question)[1]


def asked(question: str, options: list[str]) -> str:
    """Returns the question with its options, one per line, unless it has them already, even with text after them."""
    there, wanted = ([normalise(option) for option in each] for each in (inlined(question), options))
    if there[:-1] == wanted[:-1] and "".join(there[-1:]).startswith("".join(wanted[-1:])):
        return question
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def require_truth(truth: str, options: Sequence[str]) -> int:
    """Returns the index of the right answer, given as a letter or a text, among the `texts` of options.

    Raises ValueError if it is not one of them.
    """
    index = chosen_option(truth, options)
    if index is None:
        raise ValueError(f"the right answer {truth!r} is not among the options {list(options)}")
    return index


def chosen_option(answer: str, options: Sequence[str]) -> int | None:
    """Returns the index of the one option that an answer names; None if it names none, several, or one that does not exist.

    An answer equal to an option's text names that option. Else letters count; a letter directly beside the text of another
    option ("B. the right wall" where that is C) names two. Without a letter, options' texts inside the answer count, as whole
    words, the longest if one contains another, unless a negation precedes them. Without these, an option's number counts. An
    answer that withdraws what it names ("B is wrong") names nothing.
    """
    wanted = [_option_text(index, option) for index, option in enumerate(options)]
    for text in (normalise(answer), normalise(without_lead_in(answer))):
        if text and text in wanted:
            return wanted.index(text)
    answer = plain(answer)
    mentions = _mentions(answer, wanted)
    named = {span: index for span, index in mentions.items() if not negated(answer, span[0])}
    found = letters(_masked(answer, mentions))
    if denied(answer, found or named):
        return None
    if found:
        beside = {named[span] for span in named for letter in found if _BESIDE.fullmatch(_between(answer, span, letter))}
        return only({_option_of(letter, wanted) for letter in found.values()} | beside)
    if mentions:
        return only(named.values())
    return only(index for index, option in enumerate(options) if same_number(answer, option))


def _option_text(index: int, option: str) -> str:
    """Returns an option without the letter that a data set may have written before it: "B. left wall"."""
    if index < len(LETTERS):
        option = re.sub(rf"^\s*\(?{LETTERS[index]}[).:]\s+", "", uniform(option))
    return normalise(option)


def _option_of(letter: str, wanted: Sequence[str]) -> int | None:
    """Returns the index of the option that a letter names; options that are letters themselves are named by their text."""
    if letter.lower() in wanted:
        return wanted.index(letter.lower())
    return LETTERS.index(letter) if LETTERS.index(letter) < len(wanted) else None


def _mentions(answer: str, wanted: Sequence[str]) -> dict[Span, int]:
    """Returns the positions of options' texts in an answer, as whole words; longer texts win over those they contain."""
    sought = sorted((text for text in wanted if len(text) > 1 or text.isdigit()), key=len, reverse=True)
    if not sought:
        return {}
    apart = r"(?<![\w/-])(?<!\d[.,:])(?:(?<!\d )|(?!\d+/\d))"  # neither "1/2" nor "10" is part of "10 1/2"
    word = re.compile(rf"{apart}(?:{'|'.join(map(re.escape, sought))})(?![\w/-]|[.,:]\d| \d+/\d)")
    return {match.span(): wanted.index(match[0]) for match in word.finditer(answer.lower())}


def _masked(answer: str, spans: Iterable[Span]) -> str:
    """Returns ``answer`` with an "x" for each character of the spans: the letters of "Team A and B" are not answers."""
    for start, end in spans:
        answer = answer[:start] + "x" * (end - start) + answer[end:]
    return answer


def _between(text: str, one: Span, other: Span) -> str:
    return text[min(one[1], other[1]) : max(one[0], other[0])]


def only(named: Iterable[Named]) -> Named | None:
    """Returns the one distinct item; None if there are none or several."""
    distinct = set(named)
    return distinct.pop() if len(distinct) == 1 else None
