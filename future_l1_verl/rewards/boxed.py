r"""Finds the ``\boxed{...}`` of a text, which may contain further braces."""

import re
from collections.abc import Iterator

_OPENS = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yields start, end and content of each closed box, in order; of nested boxes only the outermost.

    The time is linear in the length of the text.
    """
    position = 0
    while opened := _OPENS.search(text, position):
        depth = 1
        for brace in _BRACE.finditer(text, opened.end()):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                yield opened.start(), brace.end(), text[opened.end() : brace.start()].strip()
                position = brace.end()
                break
        else:  # an unclosed box contains the rest of the text
            return
