"""Stage 2: LA-DAPO on verl's V1 trainer (paper section 4)."""
