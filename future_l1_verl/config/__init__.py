"""The hydra trees of both stages, and the record of a run's config."""
