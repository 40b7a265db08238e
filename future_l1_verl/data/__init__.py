"""What training, rollout, evaluation and data_prep share: rows, clips, their frames, and how they become a prompt."""
