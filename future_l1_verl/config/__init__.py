"""The hydra trees of both stages, and what a run says of itself."""
