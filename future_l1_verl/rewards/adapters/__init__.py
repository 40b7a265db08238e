"""Adapters of `score` for other trainers, one module per trainer.

A reply that cannot be scored ends the run or is left out, depending on the trainer; it never counts as wrong. Settings are the
fields of `Scoring`. R_ctr and R_div, which need latents, are plain functions: docs/guides/rewards.md.
"""
