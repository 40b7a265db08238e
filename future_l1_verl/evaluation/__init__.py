"""Asking a checkpoint the questions of a test set, with the engine that trained it, and scoring what it says."""
