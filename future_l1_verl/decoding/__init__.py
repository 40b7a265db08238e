"""Latent spans while generating: stock vLLM with a handful of overrides (``vllm``), and a plain oracle (``hf``)."""
