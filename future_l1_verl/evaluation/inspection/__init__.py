"""Writes a page about an evaluation run, ``inspect/index.html`` in its folder, with figures and answers beside their frames.

``folder`` writes it with the other modules: ``replies`` separates text and spans, ``nearest`` finds the future frame nearest to
a latent, ``maps`` projects latents to a plane, ``figures`` draws PNGs, and ``page`` fills
``page.html.jinja``.
"""

from future_l1_verl.evaluation.inspection.folder import inspect
from future_l1_verl.evaluation.inspection.maps import METHODS

__all__ = ["METHODS", "inspect"]
