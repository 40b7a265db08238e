"""Future-L1: interleaved latent visual reasoning on stock verl, vLLM and Ray."""
