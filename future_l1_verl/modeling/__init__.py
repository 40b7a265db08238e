"""Latents going into a Qwen-VL forward and hidden states coming out; the tiny checkpoint."""
