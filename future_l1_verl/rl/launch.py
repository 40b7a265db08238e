"""Starts stage 2: verl's task runner with our trainer, in the driver's own process."""

from types import SimpleNamespace

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

from future_l1_verl.platform.launch import require_devices
from future_l1_verl.rl.checks import devices

# TaskRunnerV1 is a Ray actor class already (main_ppo.py); this is the class behind it.
_TaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


class LatentTaskRunner(_TaskRunner):
    """Looks like an actor handle, since `run_ppo` calls ``TaskRunner.remote().run.remote(config)``.

    Upstream runs it in a separate process, which repeats the driver's imports (20 s on 2 cores). Profiling the runner with
    nsys, for which `run_ppo` asks the handle for ``.options``, is not supported here.
    """

    @classmethod
    def remote(cls) -> SimpleNamespace:
        runner = cls()
        return SimpleNamespace(run=SimpleNamespace(remote=lambda config: ray.put(runner.run(config))))

    def run(self, config: DictConfig) -> None:
        """Upstream picks its trainer by mode; here ours. Modes keep verl's names, which its code checks in many places."""
        require_devices(config.trainer.device, devices(config))
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        from future_l1_verl.rl.modes import TRAINERS

        TRAINER_REGISTRY.update(TRAINERS)
        super().run(config)


def run(config: DictConfig) -> None:
    """Starts Ray unless it runs, and runs stage 2 on it until its end. Raises the error that ended it, if any."""
    run_ppo(config, task_runner_class=LatentTaskRunner)
