"""What both stages share: the engine on verl's FSDP, how a batch is cut into micro-batches, and checks of a run's settings."""
