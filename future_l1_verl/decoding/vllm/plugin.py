"""What vLLM loads in each of its processes (entry point in ``vllm.general_plugins``, see pyproject.toml)."""

from __future__ import annotations


def register() -> None:
    """An error here ends the process; vLLM logs and forgets those of importing this module (vllm/plugins/__init__.py)."""
    from future_l1_verl.decoding.vllm import selection

    selection.install()
