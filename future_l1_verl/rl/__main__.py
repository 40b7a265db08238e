"""``python -m future_l1_verl.rl actor_rollout_ref.model.path=DIR data.train_files=FILE data.val_files=FILE [...]``: stage 2."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from future_l1_verl.config.record import save_resolved
from future_l1_verl.config.refusal import refusing
from future_l1_verl.platform.launch import take_platform
from future_l1_verl.versions import require


@hydra.main(config_path="pkg://future_l1_verl.config.rl", config_name="main", version_base=None)
def main(config: DictConfig) -> None:
    require("verl", "vllm", "transfer_queue", "transformers")
    take_platform(config.trainer.device)
    from future_l1_verl.rl.checks import check, take_as_trained

    with refusing("stage 2"):
        take_as_trained(config)
        check(config)
        save_resolved(config)
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from future_l1_verl.rl.launch import run

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    run(config)


if __name__ == "__main__":
    main()
