"""Every sentence of the synthetic set. The vocabulary is small so that a small model learns it fast."""

from collections.abc import Iterable, Iterator
from itertools import product

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("ball", "square")
WALLS = ("left", "right", "top", "bottom")
SPLITS = ("1-hop", "2-hop", "3-hop", "interp")

PLACES = ("first", "second", "third")
ASKED = {
    "1-hop": "What does the {name} hit first?",
    "2-hop": "What does the {name} hit second?",
    "3-hop": "What does the {name} hit third?",
    "interp": "What does the {name} hit before the last frame?",
}

# Position words of the captions, by fifths of the frame.
COLUMNS = ("far left", "left", "center", "right", "far right")
ROWS = ("top", "upper", "middle", "lower", "bottom")
# Words at the end of a caption. A model that never had to look up a word in its prompt does not learn it from a few questions.
REPEATED = 4


def names() -> list[str]:
    """Returns the names of all things that move."""
    return [f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES)]


def wall(side: str) -> str:
    return f"{side} wall"


def reason(name: str, target: str, place: int) -> str:
    """Returns a reason; ``place`` counts hits from 0, in the question's words, to show whether this is the hit asked about."""
    return f"{name} hits {target} {PLACES[place]}"


def caption_request(repeated: Iterable[str]) -> str:
    return f"Describe the frames and repeat {', '.join(repeated)}."


def to_repeat() -> list[str]:
    """Returns the words that a caption request may name, in any order."""
    return [*names(), *map(wall, WALLS), *PLACES]


def sentences() -> Iterator[str]:
    """Yields each sentence form with each word, to train a tokenizer for the set."""
    yield "system\nuser\nassistant\n"
    yield caption_request([*names(), *PLACES])
    targets = [wall(side) for side in WALLS] + [f"{colour} ball" for colour in COLOURS]
    for name in names():
        yield from (asked.format(name=name) for asked in ASKED.values())
        for target in targets:
            yield from (reason(name, target, place) for place in range(len(PLACES)))
        for column, row in product(COLUMNS, ROWS):
            yield f"The {name} is {column} {row}, {column} {row}."
        for across, along in product(("left", "right"), ("up", "down")):
            yield f"{name} moves {across} {along}. {name} moves {along} {across}. It touches nothing, {across} wall."
    for letter, target in product("ABCD", targets):
        yield f"\n{letter}. {target}"
        # There is no space before a word at the start of an answer.
        yield letter
        yield target
