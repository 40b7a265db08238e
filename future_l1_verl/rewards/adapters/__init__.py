"""The score of a reply as other people's trainers call it; one module a trainer.

A reply that cannot be scored ends the run or leaves the reply out, as the trainer does it, and never counts as wrong. Settings
are the fields of `Scoring`. R_ctr and R_div, which need latents, are plain functions: docs/guides/rewards.md.
"""
