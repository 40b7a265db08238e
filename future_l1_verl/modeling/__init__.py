"""Qwen-VL models that take latents as inputs and return hidden states; preparing and exporting checkpoints."""
