"""What a latent span is: its tokens and where it lies in a response. Knows torch and nothing else of the project."""
