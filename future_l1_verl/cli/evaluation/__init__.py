"""The commands that begin with eval."""
