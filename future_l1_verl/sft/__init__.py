"""Stage 1: supervised fine-tuning with a latent loss on verl's FSDP trainer (paper section 2)."""
