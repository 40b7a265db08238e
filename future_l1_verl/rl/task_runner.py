"""The process that drives stage 2: verl's task runner with our trainer. Light to import: the driver needs it early."""

from __future__ import annotations

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

from future_l1_verl.platform.launch import require_platform

# TaskRunnerV1 is a Ray actor class already (main_ppo.py:93); this is the class it was made of.
_TaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


class LatentTaskRunner(_TaskRunner):
    def run(self, config: DictConfig) -> None:
        """Upstream looks the trainer up by mode. The name stays "sync": verl's code compares with it in many places."""
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        from future_l1_verl.rl.trainer import LatentTrainer

        require_platform(config.trainer.device)
        TRAINER_REGISTRY["sync"] = LatentTrainer
        super().run(config)


task_runner = ray.remote(num_cpus=1)(LatentTaskRunner)
