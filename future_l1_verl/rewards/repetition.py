"""A penalty for repetition. It has its own column and is never part of accuracy, which the group filter reads."""

from collections.abc import Sequence


def repetition(tokens: Sequence[int] | Sequence[str], n: int = 20) -> float:
    """Returns minus the share of repeated n-grams, in [-1, 0]: ``-(1 - distinct / T)`` for ``T = len(tokens) - n + 1``.

    It is 0 if T < 2. ``tokens`` are ids or words without the latents: a span repeats one id and would count as repetition.
    Raises ValueError if n < 1.

    After the n-gram repetition penalty of Yeo et al., arXiv 2502.03373, appendix C.2, which is per token; this is per reply.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    total = len(tokens) - n + 1
    if total < 2:
        return 0.0
    return len({tuple(tokens[i : i + n]) for i in range(total)}) / total - 1
