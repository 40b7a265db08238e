"""The hydra trees of both stages, and what a run says of itself."""

from future_l1_verl.config.attention import register

register()
