"""What the options of an evaluation can be."""

STYLES = ("latent", "letter", "text_only", "reasoning", "direct")
"""How a question is put (prompting.py)."""
KINDS = ("swap", "noise", "zero", "drop", "shuffle", "freeze")
"""What is put in the place of latents (interventions.py)."""
PROTOCOLS = ("ours", "reference")
"""How TwiFF-Bench is marked (marks.py)."""
