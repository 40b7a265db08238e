"""The attention implementation of this environment, ``${installed_attention:}`` in the config trees."""

import sys
from pathlib import Path

FALLBACK = "sdpa"
"""torch's own, which serves every model and device."""


def installed_attention() -> str:
    """Returns the value that recipes/env.sh wrote into the environment: ``flash_attention_2`` if flash-attn is installed, else
    ``sdpa``, which is also the default for other environments."""
    file = Path(sys.prefix) / "attention"
    return file.read_text().strip() if file.exists() else FALLBACK
