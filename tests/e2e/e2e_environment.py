"""What the libraries underneath are told by the environment, as in recipes/quickstart.sh; and the recipes as processes."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SEED = "3"
"""The seed of the quickstart that the tests share. Answers end in another order in each run, and stage 2 of seed 1 teaches too
little for a sharp check: three runs gained 0.09, 0.07 and 0.02 on validation questions."""
PATIENCE = 1800
"""Seconds after which a process counts as hung, however busy the machine is."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def recipe(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return finished(["bash", str(ROOT / "recipes" / name), *arguments], seconds=2 * PATIENCE)


def finished(command: list[str], seconds: float = PATIENCE, **how: Any) -> subprocess.CompletedProcess[str]:
    """Returns a process that has ended, by itself or, with all that it started, by the time it had."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **how
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, err = process.communicate()
            err += f"\nended after {seconds} s"
    return subprocess.CompletedProcess(command, process.returncode, out, err)
