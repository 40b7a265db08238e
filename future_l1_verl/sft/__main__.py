"""``python -m future_l1_verl.sft model.path=DIR data.train_files=FILE [...]``: stage 1 on one node.

Checks its input and starts `worker` under torchrun, one process per ``trainer.n_gpus_per_node``. On several nodes run
``torchrun ... -m future_l1_verl.sft.worker`` with the same arguments on each of them.
"""

from __future__ import annotations

import sys

import hydra
import torch.distributed.run
from omegaconf import DictConfig

from future_l1_verl.config.record import save_resolved
from future_l1_verl.sft.checks import check
from future_l1_verl.versions import require


@hydra.main(config_path="pkg://future_l1_verl.config.sft", config_name="main", version_base=None)
def main(config: DictConfig) -> None:
    require("verl", "transformers")
    check(config)
    save_resolved(config)
    workers = f"--nproc_per_node={config.trainer.n_gpus_per_node}"
    torch.distributed.run.main(["--standalone", workers, "-m", "future_l1_verl.sft.worker", *sys.argv[1:]])


if __name__ == "__main__":
    main()
