"""Sets for the tiny models: made by simulation, of clips that a package ships, and of sums."""
