"""Options of a multiple-choice question: as data sets write them, and as lines of the question."""

from __future__ import annotations

import re

from future_l1_verl.rewards.answer import LETTERS, normalise

# Capitals: lower-case letters number other things.
_AT_LINE_START = re.compile(r"^[ \t]*\(?([A-J])[).:](?=\s)", re.MULTILINE)
_ANYWHERE = re.compile(r"(?:^|\s)\(?([A-J])[).:](?=\s)")
_SENTENCE_ENDS = re.compile(r"(?:^|\n|[.?!:][\"')]*\s)\s*\(?\Z")


def split(question: str) -> tuple[str, list[str]]:
    """A question without the options that it ends with, and these, each behind its letter from A on; empty if there are none.

    Each starts a line, or the first follows the end of a sentence and the last does not end in a question mark: other letters
    are those of prose ("Vitamin A. He picks B. then?").
    """
    letters = _run(_AT_LINE_START, question)
    if not letters and not question.rstrip().endswith("?"):
        letters = _run(_ANYWHERE, question)
        if letters and not _SENTENCE_ENDS.search(question[: letters[0].start(1)]):
            letters = []
    if not letters:
        return question, []
    ends = [letter.start() for letter in letters[1:]] + [len(question)]
    found = [question[letter.end() : end].strip() for letter, end in zip(letters, ends, strict=True)]
    return question[: letters[0].start()], found


def _run(pattern: re.Pattern[str], question: str) -> list[re.Match[str]]:
    """The last letters, as far as they go from A on without a gap; at least two, or none."""
    letters = list(pattern.finditer(question))
    while letters and "".join(letter[1] for letter in letters) != LETTERS[: len(letters)]:
        letters = letters[1:]
    return letters if len(letters) > 1 else []


def inlined(question: str) -> list[str]:
    """The options that a question ends with."""
    return split(question)[1]


def asked(question: str, options: list[str]) -> str:
    """The question with its options, one a line, unless it has them already or there are none."""
    if [normalise(option) for option in inlined(question)] == [normalise(option) for option in options]:
        return question
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def texts(options: object) -> list[str]:
    """The options of a list, each behind its letter or not, or of a dict by letter. Raises ValueError, saying what is wrong."""
    if isinstance(options, dict):
        # The columns of a struct in a parquet file are those of the row with the most options.
        by_letter = {letter: text for letter, text in options.items() if text is not None}
        if sorted(by_letter) != list(LETTERS[: len(by_letter)]):
            raise ValueError(f"options do not go by letters from A on: {sorted(by_letter)}")
        options = [by_letter[letter] for letter in sorted(by_letter)]
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError(f"options are no texts: {options!r:.80}")
    lettered = inlined("\n".join(options))
    found = lettered if len(lettered) == len(options) else [option.strip() for option in options]
    if not 2 <= len(found) <= len(LETTERS) or len({normalise(option) for option in found}) < len(found):
        raise ValueError(f"options are not 2 to {len(LETTERS)} different ones: {found!r:.80}")
    return found
