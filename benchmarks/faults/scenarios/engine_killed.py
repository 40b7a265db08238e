"""SIGKILL for the rollout's engine at a random moment of stage 2."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from training import Once, killing

DONE = "SIGKILL for the rollout's engine at a random moment of stage 2, the same command again"
UNIT = "questions of epochs begun"


def prepared(work: Path) -> AbstractContextManager[Once]:
    return killing(work, "EngineCore", reason="EngineDied|EngineDead")
