"""Divides the rows of a batch among ranks and micro-batches, with the answers to a question together.

Index convention: row i is an answer. ``questions[i]`` names its question, ``prompts[i]`` and ``answers[i]`` are lengths in
tokens; rows of a question have the same prompt, which is computed once for rows that are together. Plain functions that do
not need verl.
"""

from collections.abc import Hashable, Iterable, Sequence

Rows = list[int]


def together(questions: Sequence[Hashable]) -> list[Rows]:
    """Returns the rows of each question, in the order of their first rows."""
    found: dict[Hashable, Rows] = {}
    for row, question in enumerate(questions):
        found.setdefault(question, []).append(row)
    return list(found.values())


def packed_tokens(rows: Rows, questions: Sequence[Hashable], prompts: Sequence[int], answers: Sequence[int]) -> int:
    """Returns the packed length of ``rows``: each prompt once, and each answer."""
    return sum(prompts[part[0]] + sum(answers[row] for row in part) for part in _parts(rows, questions))


def cost(rows: Rows, questions: Sequence[Hashable], prompts: Sequence[int], answers: Sequence[int]) -> int:
    """Returns the arithmetic of a pass over ``rows``, up to a factor: that of tokens plus that of pairs in attention.

    With one answer per question it equals verl's for a 7B model (seqlen_balancing.py, calculate_workload).
    """
    pairs = 0
    for part in _parts(rows, questions):
        prompt = prompts[part[0]]
        pairs += prompt**2 + sum(2 * prompt * answers[row] + answers[row] ** 2 for row in part)
    return 24576 * packed_tokens(rows, questions, prompts, answers) + pairs


def over_ranks(questions: Sequence[Hashable], prompts: Sequence[int], answers: Sequence[int], ranks: int) -> list[Rows]:
    """Divides all rows into ``ranks`` parts of equal size and similar cost. A question is divided only if nothing else fits.

    Raises ValueError unless the number of rows is a multiple of ``ranks``.
    """
    if len(questions) % ranks:
        raise ValueError(f"{len(questions)} rows cannot be divided among {ranks} ranks")
    room, parts, costs = [len(questions) // ranks] * ranks, [[] for _ in range(ranks)], [0] * ranks

    def give(rank: int, rows: Rows) -> None:
        parts[rank] += rows
        room[rank] -= len(rows)
        costs[rank] += cost(rows, questions, prompts, answers)

    for rows in sorted(together(questions), key=lambda rows: -cost(rows, questions, prompts, answers)):
        fitting = [rank for rank in range(ranks) if room[rank] >= len(rows)]
        if fitting:
            give(min(fitting, key=costs.__getitem__), rows)
            continue
        while rows:
            rank = max(range(ranks), key=room.__getitem__)
            here, rows = rows[: room[rank]], rows[room[rank] :]
            give(rank, here)
    return parts


def within(
    budget: int, questions: Sequence[Hashable], prompts: Sequence[int], answers: Sequence[int], at_least: int = 1
) -> list[Rows]:
    """Divides all rows into ``at_least`` micro-batches or more, of at most ``budget`` packed tokens and similar cost.

    A question with more tokens is divided, and each part has the prompt. Raises ValueError for a single row with more, and if
    there are fewer rows than micro-batches.
    """
    units = []
    for rows in together(questions):
        prompt, size = prompts[rows[0]], budget + 1
        for row in rows:
            if prompt + answers[row] > budget:
                raise ValueError(
                    f"row {row} has {prompt + answers[row]} tokens, a micro-batch at most {budget} (max_token_len_per_gpu)"
                )
            if size + answers[row] > budget:
                units.append([])
                size = prompt
            units[-1].append(row)
            size += answers[row]

    def tokens(rows: Rows) -> int:
        return packed_tokens(rows, questions, prompts, answers)

    def weight(rows: Rows) -> int:
        return cost(rows, questions, prompts, answers)

    bins: list[Rows] = []
    for unit in sorted(units, key=tokens, reverse=True):
        fitting = [rows for rows in bins if tokens(rows) + tokens(unit) <= budget]
        if fitting:
            fitting[0].extend(unit)
        else:
            bins.append(list(unit))
    wanted = max(at_least, len(bins))
    if wanted <= len(units):
        even = [[] for _ in range(wanted)]
        for unit in sorted(units, key=weight, reverse=True):
            min(even, key=weight).extend(unit)
        if max(map(tokens, even)) <= budget:
            bins = even
    while len(bins) < wanted:
        largest = max(bins, key=len)
        if len(largest) < 2:
            raise ValueError(f"{len(questions)} rows cannot be divided into {wanted} micro-batches")
        half = len(largest) // 2
        bins.append(largest[half:])
        del largest[half:]
    return [sorted(rows) for rows in bins]


def first_of_parts(questions: Sequence[Hashable], sizes: Iterable[int]) -> Rows:
    """Returns the rows that are the first of their question in a part, for parts of each of ``sizes``."""
    found = set()
    for size in sizes:
        for start in range(0, len(questions), size):
            found |= {start + rows[0] for rows in together(questions[start : start + size])}
    return sorted(found)


def _parts(rows: Rows, questions: Sequence[Hashable]) -> list[Rows]:
    return [[rows[each] for each in part] for part in together([questions[row] for row in rows])]
