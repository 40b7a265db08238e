"""The rewards of LA-DAPO (paper section 4) as plain functions. Needs neither verl nor vLLM."""
