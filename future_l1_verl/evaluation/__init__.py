"""Asks a checkpoint the questions of a test set, with the engine used in training, and scores its answers."""
