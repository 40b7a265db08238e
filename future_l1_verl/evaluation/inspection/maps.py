"""Projects latents to a plane: PCA and t-SNE."""

from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn.functional import normalize

POINTS = 2000  # the time of t-SNE is quadratic
LEAST = 5  # no map for fewer
DIRECTIONS = 50  # principal components, whose distances t-SNE uses

Map = Callable[[np.ndarray], np.ndarray]


def sample(points: int) -> np.ndarray:
    """Returns the sorted indices of at most `POINTS` of ``points``; always the same ones."""
    if points <= POINTS:
        return np.arange(points)
    return np.sort(np.random.default_rng(0).choice(points, POINTS, replace=False))


def project(method: str, latents: Tensor) -> np.ndarray:
    """Projects ``latents [N, H]`` to ``[N, 2]`` by a method of `METHODS`. Lengths are ignored, as in the rewards."""
    return METHODS[method](normalize(latents.float(), dim=-1).numpy())


def _pca(points: np.ndarray) -> np.ndarray:
    return PCA(2, random_state=0).fit_transform(points)


def _tsne(points: np.ndarray) -> np.ndarray:
    reduced = PCA(min(DIRECTIONS, *points.shape), random_state=0).fit_transform(points)
    return TSNE(2, perplexity=min(30, (len(points) - 1) / 3), random_state=0).fit_transform(reduced)


METHODS: dict[str, Map] = {"pca": _pca, "tsne": _tsne}
