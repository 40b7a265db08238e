"""One process of stage 1, started by torchrun."""

from __future__ import annotations

import os

import hydra
from omegaconf import DictConfig

from future_l1_verl.platform.launch import require_platform
from future_l1_verl.sft.trainer import train


@hydra.main(config_path="pkg://future_l1_verl.config.sft", config_name="main", version_base=None)
def main(config: DictConfig) -> None:
    require_platform(config.trainer.device)
    # verl's tracker takes its folder from here alone.
    os.environ.setdefault("TENSORBOARD_DIR", os.path.join(config.trainer.default_local_dir, "tensorboard"))
    train(config)


if __name__ == "__main__":
    main()
