"""What lets verl and vLLM run on a CPU, and nothing else. Each shim names the line it works around."""
