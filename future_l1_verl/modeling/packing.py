"""The layout of a micro-batch whose answers share their prompts: positions of tokens, attention, and indices of states.

Index convention. A *row* is an answer with its prompt; rows with the same prompt belong to one *question*. Packed, a
micro-batch is one sequence ``[T]``::

    prompt of question 0 | ... | prompt of the last question | padding | answer of row 0 | ... | answer of the last row

A token of a prompt sees the prompt up to itself. A token of an answer sees its whole prompt and its answer up to itself. Token
i of an answer is predicted from the state at token i - 1, the first from the state at the last token of its prompt. The
*scored* tokens are all tokens of all answers, in packed order: ``[N]``, the last N of the sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


def queued(indices: Tensor, device: torch.device | str) -> Tensor:
    """Returns ``indices`` of the host on ``device``, without waiting for the device's pending work."""
    return indices.to(device, non_blocking=True)


@dataclass(frozen=True)
class Segments:
    """Pieces of attention. The last query of a piece sees all its keys, the query before it one fewer, and so on.

    ``queries`` and ``keys`` are their lengths, with at least as many keys as queries. The queries of all pieces are
    concatenated; so are their keys, taken from a longer tensor at the indices ``taken`` (int64), or all of it if that is None.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    taken: Tensor | None = None


@dataclass(frozen=True)
class Packing:
    """The layout of one micro-batch: ``prompts`` are the lengths of the prompts, by question, and ``answers`` those of the
    answers, by row; ``questions`` is the question of each row. ``padding`` tokens see each other, and nothing sees them.

    Raises ValueError if a prompt is empty: nothing would predict the first token of its answers.
    """

    prompts: tuple[int, ...]
    answers: tuple[int, ...]
    questions: tuple[int, ...]
    padding: int = 0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if min(self.prompts, default=1) < 1:
            raise ValueError(f"question {self.prompts.index(0)} of the micro-batch has an empty prompt")

    @property
    def asked(self) -> int:
        """The number of tokens before the answers."""
        return sum(self.prompts) + self.padding

    @property
    def scored(self) -> int:
        """N, the number of tokens of all answers."""
        return sum(self.answers)

    def __len__(self) -> int:
        """Returns T, the length of the packed sequence."""
        return self.asked + self.scored

    @cached_property
    def prompt_starts(self) -> list[int]:
        return list(accumulate(self.prompts, initial=0))[:-1]

    @cached_property
    def answer_starts(self) -> list[int]:
        return list(accumulate(self.answers, initial=self.asked))[:-1]

    @cached_property
    def states(self) -> Tensor:
        """int64 ``[N]``: the index of the state that predicts each scored token."""
        before = torch.arange(self.asked - 1, len(self) - 1)
        for question, start, length in zip(self.questions, self.answer_starts, self.answers, strict=True):
            if length:
                before[start - self.asked] = self.prompt_starts[question] + self.prompts[question] - 1
        return queued(before, self.device)

    @cached_property
    def prompt_segments(self) -> Segments:
        """Attention among the tokens before the answers."""
        lengths = tuple(length for length in (*self.prompts, self.padding) if length)
        return Segments(lengths, lengths)

    @cached_property
    def answer_segments(self) -> Segments:
        """Attention of the answers' tokens, which are the queries, over the whole sequence, from which keys are taken."""
        rows = [row for row in zip(self.questions, self.answer_starts, self.answers, strict=True) if row[2]]
        taken = [
            part
            for question, start, length in rows
            for part in (
                torch.arange(self.prompts[question]) + self.prompt_starts[question],
                torch.arange(start, start + length),
            )
        ]
        return Segments(
            queries=tuple(length for _, _, length in rows),
            keys=tuple(self.prompts[question] + length for question, _, length in rows),
            taken=queued(torch.cat([torch.zeros(0, dtype=torch.int64), *taken]), self.device),
        )

    def pack(self, rows: Sequence[Tensor], fill: int = 0) -> Tensor:
        """Returns ``[..., T]`` from the rows ``[..., prompt + answer]``; a question's prompt is that of its first row."""
        first = {question: row for row, question in reversed(list(enumerate(self.questions)))}
        prompts = [rows[first[question]][..., :length] for question, length in enumerate(self.prompts)]
        answers = [row[..., self.prompts[question] :] for row, question in zip(rows, self.questions, strict=True)]
        padding = rows[0].new_full((*rows[0].shape[:-1], self.padding), fill)
        return torch.cat([*prompts, padding, *answers], dim=-1)

    def entries(self, values: Tensor) -> Tensor:
        """Maps ``[N]`` to the concatenated rows ``[sum of prompt + answer]``, whose entry p is about token p + 1 of its row.

        Entries without a scored token are 0: those of a prompt, and the last of a row.
        """
        lengths = [self.prompts[question] + answer for question, answer in zip(self.questions, self.answers, strict=True)]
        where = [torch.arange(end - answer - 1, end - 1) for end, answer in zip(accumulate(lengths), self.answers, strict=True)]
        return values.new_zeros(sum(lengths)).index_copy(0, queued(torch.cat(where), values.device), values)
