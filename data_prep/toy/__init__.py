"""Data sets for the tiny models: simulated events, real clips from a package, and sums."""
