"""Tiny models and the report of their trainings, only for the recipes on a CPU."""
