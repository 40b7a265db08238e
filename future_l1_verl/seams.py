"""The functions of another library that this package overrides or wraps, compared with what is installed."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

# An owner, the name of what is overridden or wrapped there, and its parameters in order; a version may have more of them behind
# these, with defaults, which are handed on.
Seam = tuple[Any, str, tuple[str, ...]]


def different(seams: Iterable[Seam], library: str) -> Iterator[str]:
    """Yields a sentence for each seam that the installed library lacks or gives other parameters.

    Signatures are read beside the version, because a patched or vendored library keeps its version number.
    """
    for owner, name, expected in seams:
        function = f"{owner.__name__}.{name}"
        if not hasattr(owner, name):
            yield f"{function} is not in this {library}"
            continue
        there = getattr(owner, name)
        found = inspect.signature(there.fget if isinstance(there, property) else there).parameters
        more = list(found.values())[len(expected) :]
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [parameter for parameter in more if parameter.default is parameter.empty and parameter.kind not in kinds]
        if tuple(found)[: len(expected)] != expected or needed:
            yield f"{function} takes {tuple(found)} in this {library}, {expected} in tested ones"
