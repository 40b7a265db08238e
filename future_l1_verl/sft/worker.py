"""One process of stage 1, started by torchrun with the overrides of its config tree."""

import logging
import os
import sys

from future_l1_verl.collector import spare_libraries
from future_l1_verl.config.tree import composed
from future_l1_verl.platform.launch import require_platform


def main() -> None:
    spare_libraries()
    from future_l1_verl.sft.trainer import train

    config = composed("sft", sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    require_platform(config.trainer.device)
    # verl's tracker reads its folder only from here.
    os.environ.setdefault("TENSORBOARD_DIR", os.path.join(config.trainer.default_local_dir, "tensorboard"))
    train(config)


if __name__ == "__main__":
    main()
