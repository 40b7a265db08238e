"""The commands that begin with curate."""
