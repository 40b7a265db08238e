"""A run of the evaluation to look at: ``inspect/index.html`` in its folder, with figures and answers beside their frames.

``folder`` writes it, from what the other modules make: ``replies`` draws text and spans apart, ``nearest`` finds the future
frame that a latent is nearest to, ``maps`` lays latents out in a plane, ``figures`` draws PNGs, and ``page`` fills
``page.html.jinja``.
"""

from future_l1_verl.evaluation.inspection.folder import inspect
from future_l1_verl.evaluation.inspection.maps import METHODS

__all__ = ["METHODS", "inspect"]
