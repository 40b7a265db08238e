"""Options of a multiple-choice question: as data sets write them, and as lines of the question."""

from __future__ import annotations

import re

from future_l1_verl.data.rows import RowError
from future_l1_verl.rewards.answer import LETTERS, normalise

_LETTER = re.compile(r"(?:^|\s)\(?([A-J])[).:](?=\s)")  # capitals: lower-case letters number other things


def inlined(question: str) -> list[str]:
    """The options that a question ends with, each behind its letter from A on; empty if there are none."""
    letters = list(_LETTER.finditer(question))
    while letters and "".join(letter[1] for letter in letters) != LETTERS[: len(letters)]:
        letters = letters[1:]
    if len(letters) < 2:
        return []
    ends = [letter.start() for letter in letters[1:]] + [len(question)]
    return [question[letter.end() : end].strip() for letter, end in zip(letters, ends, strict=True)]


def asked(question: str, options: list[str]) -> str:
    """The question with its options, one a line, unless it has them already or there are none."""
    if [normalise(option) for option in inlined(question)] == [normalise(option) for option in options]:
        return question
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def texts(options: object) -> list[str]:
    """The options of a list, each behind its letter or not, or of a dict by letter. Raises RowError, saying what is wrong."""
    if isinstance(options, dict):
        # The columns of a struct in a parquet file are those of the row with the most options.
        by_letter = {letter: text for letter, text in options.items() if text is not None}
        if sorted(by_letter) != list(LETTERS[: len(by_letter)]):
            raise RowError(f"options do not go by letters from A on: {sorted(by_letter)}")
        options = [by_letter[letter] for letter in sorted(by_letter)]
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        raise RowError(f"options are no texts: {options!r:.80}")
    lettered = inlined("\n".join(options))
    found = lettered if len(lettered) == len(options) else [option.strip() for option in options]
    if not 2 <= len(found) <= len(LETTERS) or len({normalise(option) for option in found}) < len(found):
        raise RowError(f"options are not 2 to {len(LETTERS)} different ones: {found!r:.80}")
    return found
