"""``python stage_1_ranks.py RANK RANKS PORT OUT FUNCTION [ARGUMENTS...]``: one rank of stage 1; its result goes to a file."""

from __future__ import annotations

import os
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import conftest  # noqa: F401  the environment of the tests
import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict


class Stage1:
    """The engine of stage 1, fed from the dataset without a trainer."""

    def __init__(self, model: Path, *overrides: str) -> None:
        from verl.utils.config import omega_conf_to_dataclass
        from verl.workers.engine import EngineRegistry

        from future_l1_verl.sft.objective import latent_sft_loss
        from future_l1_verl.training.engine import MODEL_TYPE

        with initialize_config_module("future_l1_verl.config.sft", version_base=None):
            common = [
                "platform=cpu",
                f"model.path={model}",
                "data.train_files=none",
                "optim.lr=1e-3",
                "data.system_prompt=null",
            ]
            self.config = compose("main", overrides=[*common, *overrides])
        torch.manual_seed(0)
        self.model = omega_conf_to_dataclass(self.config.model)
        optimiser, engine = (omega_conf_to_dataclass(self.config[key]) for key in ("optim", "engine"))
        optimiser.total_training_steps = 30
        self.engine = EngineRegistry.new(
            model_type=MODEL_TYPE, backend="fsdp2", model_config=self.model, engine_config=engine,
            optimizer_config=optimiser, checkpoint_config=omega_conf_to_dataclass(self.config.checkpoint),
        )  # fmt: skip
        self.engine.initialize()
        self.loss = partial(latent_sft_loss, weight=self.config.latent.weight)

    def rows(self, file: Path, form: str = "frames") -> list[dict[str, Any]]:
        from omegaconf import open_dict

        from future_l1_verl.sft.dataset import LatentSFTDataset

        with open_dict(self.config):
            self.config.data.update(
                max_latents=4, supervise_decisions=False, targets="resize", observed=form, manifest=f"{file}.skipped.jsonl"
            )
        data = LatentSFTDataset(str(file), self.model.tokenizer, self.config.data, self.model.processor)
        return [data[i] for i in range(len(data))]

    def step(self, items: list[dict[str, Any]], max_tokens: int | None = None) -> dict[str, float]:
        """One optimiser step on one micro-batch, or on several of at most so many tokens."""
        from verl.utils import tensordict_utils as tu
        from verl.utils.dataset.dataset_utils import SFTTensorCollator

        meta = {
            "use_dynamic_bsz": max_tokens is not None, "max_token_len_per_gpu": max_tokens, "temperature": 1.0,
            "micro_batch_size_per_gpu": len(items), "global_batch_size": 8, "pad_mode": "no_padding",
        }  # fmt: skip
        data: TensorDict = tu.get_tensordict(tensor_dict=SFTTensorCollator("no_padding")(items), non_tensor_dict=meta)
        with self.engine.train_mode():
            output = self.engine.train_batch(data, loss_function=self.loss)
            self.engine.lr_scheduler_step()
        loss = torch.tensor(sum(output["loss"]), dtype=torch.float64)
        torch.distributed.all_reduce(loss)
        return {
            "loss": float(loss) / torch.distributed.get_world_size(),
            "grad_norm": output["metrics"]["grad_norm"],
            "micro_batches": len(output["loss"]),
        }

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: p.full_tensor().detach().clone() for name, p in self.engine.module.named_parameters()}


def mine(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """This rank's share of a global batch."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    share = len(items) // ranks
    return items[rank * share : (rank + 1) * share]


def thirty_steps(model: str, file: str, max_tokens: str) -> dict[str, Any]:
    stage = Stage1(Path(model))
    items = stage.rows(Path(file))
    steps = []
    for number in range(30):
        chosen = [items[(8 * number + i) % len(items)] for i in range(8)]
        steps.append(stage.step(mine(chosen), int(max_tokens) if max_tokens else None))
    return {"steps": steps, "parameters": stage.parameters()}


def modalities(model: str, frames: str, text: str) -> dict[str, list[float]]:
    """Eight steps of each combination of what two ranks may hold."""
    stage = Stage1(Path(model))
    held = {"images": stage.rows(Path(frames))[:2], "videos": stage.rows(Path(frames), "video")[:2]}
    held["text"] = stage.rows(Path(text))[:2]
    found = {}
    for first in held:
        for second in held:
            items = held[(first, second)[torch.distributed.get_rank()]]
            found[f"{first} and {second}"] = [stage.step(items)["loss"] for _ in range(8)]
    return found


if __name__ == "__main__":
    rank, ranks, port, out, function, *arguments = sys.argv[1:]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, WORLD_SIZE=ranks, LOCAL_RANK="0")
    import verl  # noqa: F401  its plugins

    torch.distributed.init_process_group("gloo")
    result = globals()[function](*arguments)
    (Path(out) / f"{function}-{ranks}-{rank}.pickle").write_bytes(pickle.dumps(result))
    torch.distributed.destroy_process_group()
