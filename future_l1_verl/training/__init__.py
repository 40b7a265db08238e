"""The common part of both stages: the engine on verl's FSDP, micro-batches, and checks of a run's settings."""
