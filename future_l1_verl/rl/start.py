"""Prepares stage 2: input that cannot work raises here, before any worker starts."""

import os
from collections.abc import Callable, Sequence
from functools import partial

from omegaconf import DictConfig, OmegaConf

from future_l1_verl.config.record import save_resolved
from future_l1_verl.platform.launch import require_accelerator, take_platform
from future_l1_verl.versions import require


def prepare(config: DictConfig, overrides: Sequence[str]) -> Callable[[], None]:
    """Checks the input and returns the training, which starts Ray unless it runs. Raises ValueError or OSError, naming what is
    wrong with the input."""
    require("verl", "vllm", "transfer_queue", "transformers")
    require_accelerator(config.trainer.device, config.ray_kwargs.ray_init.get("address"))
    take_platform(config.trainer.device)
    for name, value in (OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env.env_vars") or {}).items():
        os.environ.setdefault(name, value)  # for this process, and for Ray if it starts here
    from future_l1_verl.rl.checks import check, take_as_trained
    from future_l1_verl.training.verl_methods import check_verl

    check_verl("rl")
    take_as_trained(config)
    check(config)
    save_resolved(config)
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from future_l1_verl.rl.launch import run

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    return partial(run, config)
