"""The rewards of LA-DAPO (paper section 4) as plain functions. Knows neither verl nor vLLM."""
