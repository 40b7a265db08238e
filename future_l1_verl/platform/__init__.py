"""Shims that let verl and vLLM run on a CPU. Each names the code that it works around."""
