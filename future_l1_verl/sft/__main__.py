"""``python -m future_l1_verl.sft model.path=DIR data.train_files=FILE [...]``: stage 1.

Checks its input and starts `worker` under torchrun, one process per ``trainer.n_gpus_per_node``. On several nodes the same
command runs on each of them, with ``trainer.nnodes``, ``trainer.master_addr`` and its own ``trainer.node_rank``, and files
that all of them see. ``--cfg job --resolve`` prints the config and ends.
"""

from __future__ import annotations

import sys

import hydra
import torch.distributed.run
from omegaconf import DictConfig

from future_l1_verl.config.record import save_resolved
from future_l1_verl.config.refusal import refusing
from future_l1_verl.platform.launch import take_platform
from future_l1_verl.versions import require


@hydra.main(config_path="pkg://future_l1_verl.config.sft", config_name="main", version_base=None)
def main(config: DictConfig) -> None:
    require("verl", "transformers")
    take_platform(config.trainer.device)
    from future_l1_verl.sft.checks import check

    with refusing("stage 1"):
        torchrun = torchrun_arguments(config.trainer)
        check(config)
        if config.trainer.node_rank == 0:
            save_resolved(config)
    torch.distributed.run.main([*torchrun, "-m", "future_l1_verl.sft.worker", *sys.argv[1:]])


def torchrun_arguments(trainer: DictConfig) -> list[str]:
    """How torchrun meets its like on the other nodes. Raises ValueError if that cannot work."""
    workers = f"--nproc-per-node={trainer.n_gpus_per_node}"
    if not 0 <= trainer.node_rank < trainer.nnodes:
        raise ValueError(
            f"trainer.node_rank must lie in 0 to trainer.nnodes - 1 = {trainer.nnodes - 1}, not {trainer.node_rank}"
        )
    if trainer.nnodes == 1:
        return ["--standalone", workers]
    if trainer.master_addr is None:
        raise ValueError(f"trainer.nnodes={trainer.nnodes} needs trainer.master_addr, the address of node 0, on every node")
    meeting = (f"--{name.replace('_', '-')}={trainer[name]}" for name in ("nnodes", "node_rank", "master_addr", "master_port"))
    return [*meeting, workers]


if __name__ == "__main__":
    main()
