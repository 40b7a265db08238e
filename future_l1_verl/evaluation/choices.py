"""The choices of an evaluation's options."""

STYLES = ("latent", "letter", "text_only", "reasoning", "direct")
"""The styles of a question (prompting.py)."""
KINDS = ("swap", "noise", "zero", "drop", "shuffle", "freeze")
"""The replacements of latents (interventions.py)."""
PROTOCOLS = ("ours", "reference")
"""The protocols by which TwiFF-Bench is marked (marks.py)."""
