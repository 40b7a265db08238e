"""Distances of a predicted latent from its target: the objectives of stage 1 (paper section 2).

Index convention: row k belongs to slot k; ``h`` is the hidden state at its feeding position, ``z`` the embedding of the future
frame in it. ``[K, H], [K, H] -> [K]`` in fp32; only h gets gradients.
"""

from torch import Tensor
from torch.nn.functional import cosine_similarity


def squared_error(h: Tensor, z: Tensor) -> Tensor:
    """Returns the squared error, averaged over the hidden dimension (lambda = 0.1 assumes the mean, docs/assumptions.md)."""
    return (h.float() - z.detach().float()).square().mean(-1)


def summed_squared_error(h: Tensor, z: Tensor) -> Tensor:
    """Returns the squared error, summed over the hidden dimension as in the paper's formula: H times `squared_error`."""
    return (h.float() - z.detach().float()).square().sum(-1)


def cosine_error(h: Tensor, z: Tensor) -> Tensor:
    """Returns 1 - cos(h, z), in [0, 2]; it does not depend on the lengths of h and z."""
    return 1 - cosine_similarity(h.float(), z.detach().float(), dim=-1)


ERRORS = {"mean": squared_error, "sum": summed_squared_error, "cosine": cosine_error}
