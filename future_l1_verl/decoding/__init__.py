"""Generates latent spans: stock vLLM with a few overrides (``vllm``), and a simple reference decoder (``hf``)."""
