"""Rows, clips, their frames, and prompts made from them, for training, rollout, evaluation and data_prep."""
