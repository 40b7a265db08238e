"""A tiny checkpoint and its plain transformers model, shared by all tests of decoding."""

from __future__ import annotations

from pathlib import Path

import pytest
from decoding_harness import Oracle

from future_l1_verl.toy import tiny


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("checkpoint")
    tiny.build(Path(out), seed=0, max_latents=6)
    return str(out)


@pytest.fixture(scope="session")
def oracle(tiny_checkpoint: str) -> Oracle:
    return Oracle(tiny_checkpoint)
