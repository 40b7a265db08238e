"""Prepares stage 1: input that cannot work raises here, before any worker starts."""

from collections.abc import Callable, Sequence
from functools import partial

from omegaconf import DictConfig

from future_l1_verl.config.record import save_resolved
from future_l1_verl.platform.launch import require_accelerator, take_platform
from future_l1_verl.versions import require


def prepare(config: DictConfig, overrides: Sequence[str]) -> Callable[[], None]:
    """Checks the input and returns the training: `worker` under torchrun, one process per ``trainer.n_gpus_per_node``. Raises
    ValueError or OSError, naming what is wrong with the input."""
    require("verl", "transformers")
    require_accelerator(config.trainer.device)
    take_platform(config.trainer.device)
    from future_l1_verl.sft.checks import check
    from future_l1_verl.training.verl_methods import check_verl

    check_verl("sft")
    torchrun = torchrun_arguments(config.trainer)
    check(config)
    if config.trainer.node_rank == 0:
        save_resolved(config)
    import torch.distributed.run

    return partial(torch.distributed.run.main, [*torchrun, "-m", "future_l1_verl.sft.worker", *overrides])


def torchrun_arguments(trainer: DictConfig) -> list[str]:
    """Returns the arguments by which torchrun finds the other nodes. Raises ValueError if they cannot work."""
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
