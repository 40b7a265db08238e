"""What only the recipes on a CPU use: tiny models, and the report of their trainings."""
