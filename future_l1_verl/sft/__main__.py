"""``python -m future_l1_verl.sft model.path=DIR data.train_files=FILE [...]``: stage 1.

Started plainly it checks its input and starts itself again under torchrun, one process per ``trainer.n_gpus_per_node``;
on several nodes start it under torchrun.
"""

from __future__ import annotations

import sys

import hydra
import torch
import torch.distributed.run
from omegaconf import DictConfig

from future_l1_verl.config.record import save_resolved
from future_l1_verl.platform.launch import require_platform
from future_l1_verl.sft.checks import check
from future_l1_verl.versions import require


@hydra.main(config_path="pkg://future_l1_verl.config.sft", config_name="main", version_base=None)
def main(config: DictConfig) -> None:
    require("verl", "transformers")
    if torch.distributed.is_torchelastic_launched():
        from future_l1_verl.sft.trainer import train

        require_platform(config.trainer.device)
        train(config)
        return
    check(config)
    save_resolved(config)
    workers = f"--nproc_per_node={config.trainer.n_gpus_per_node}"
    torch.distributed.run.main(["--standalone", workers, "-m", "future_l1_verl.sft", *sys.argv[1:]])


if __name__ == "__main__":
    main()
