"""How attention is computed in this environment, as ``${installed_attention:}`` in the config trees."""

from __future__ import annotations

import sys
from pathlib import Path

FALLBACK = "sdpa"
"""torch's own, which serves every model and device."""


def installed_attention() -> str:
    """Returns what recipes/env.sh wrote into the environment: ``flash_attention_2`` where flash-attn is installed, or ``sdpa``,
    which is also the answer for an environment that it has not made."""
    file = Path(sys.prefix) / "attention"
    return file.read_text().strip() if file.exists() else FALLBACK
