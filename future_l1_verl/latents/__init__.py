"""Defines latent spans: their tokens and their place in a response. Needs torch and nothing else of the project."""
