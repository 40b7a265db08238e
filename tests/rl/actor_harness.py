"""Real actors on recorded rollouts, on one or more ranks: verl's FSDP2 engine with latents, gloo, CPU."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from PIL import Image
from tensordict import NonTensorStack, TensorDict
from torch import Tensor

from future_l1_verl.latents.spans import Layout, Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.total import Rollout, group_rewards
from future_l1_verl.rewards.weights import PARTS
from future_l1_verl.rl.settings import RewardSettings

RANKS = Path(__file__).with_name("actor_ranks.py")

# Right or wrong, by rollout; four to a prompt.
CORRECT = [True, False, True, False, False, True, True, False]


def config(checkpoint: Path, *overrides: str, platform: str = "cpu") -> DictConfig:
    common = [
        f"platform={platform}", f"actor_rollout_ref.model.path={checkpoint}", "data.train_files=none", "data.val_files=none",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.actor.use_dynamic_bsz=false",
        "actor_rollout_ref.actor.optim.lr=1e-3", "actor_rollout_ref.actor.clip_ratio_low=0.2",
    ]  # fmt: skip
    with initialize_config_module("future_l1_verl.config.rl", version_base=None):
        return compose("main", overrides=[*common, *overrides])


# What a prompt shows: what stands in it, and what the processor is given.
SHOWN: dict[str, list[str]] = {"text": [], "image": ["image"], "video": ["video"], "both": ["video", "image"]}


def recorded(
    checkpoint: Path, likelihood: str = "vmf", spans: bool = True, shown: Sequence[str] = ("image", "text")
) -> TensorDict:
    """Four rollouts each of prompts that show what ``shown`` says, with every role among them, as they arrive at the actor: the
    pixels of a prompt come with one of them.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from future_l1_verl.rl.agent_loop import LatentAgentLoopWorker

    settings, generator = LatentSettings.from_checkpoint(checkpoint), torch.Generator().manual_seed(0)
    processor, plain = AutoProcessor.from_pretrained(checkpoint), AutoModelForImageTextToText.from_pretrained(checkpoint)
    worker = object.__new__(LatentAgentLoopWorker)
    worker.config = DictConfig({"latent": {"likelihood": likelihood, "min_latents": 1}})
    rows = []
    for i in range(4 * len(shown)):
        seen = _processed(processor, SHOWN[shown[i // 4]])
        response = _response(settings, i, generator, spans)
        ids = torch.cat([seen["input_ids"][0], response])
        kinds = torch.zeros(1, len(ids), dtype=torch.int)
        kinds[0, : seen["input_ids"].shape[1]] = seen["mm_token_type_ids"][0]
        grids = {key: seen.get(key) for key in ("image_grid_thw", "video_grid_thw")}
        rope, _ = plain.model.get_rope_index(ids[None], mm_token_type_ids=kinds, **grids)
        layout = _layout(response, settings)
        chosen = worker._chosen(layout)
        kept = [key for key in seen if "grid_thw" in key or (key.startswith("pixel") and i % 4 == 2)]
        rows.append({
            "prompts": seen["input_ids"][0], "responses": response, "input_ids": ids,
            "position_ids": torch.cat([torch.arange(len(ids))[None], rope[:, 0]]),
            "response_mask": chosen.long(), "loss_mask": chosen.long(),
            "latents": torch.randn(int(layout.slots.sum()), 128, generator=generator),
            "advantages": torch.full((len(response),), 0.5 if CORRECT[i % 8] else -0.5) * chosen,
            "images": {key: seen[key] for key in kept},
            "uid": f"prompt {i // 4}",
        })  # fmt: skip
    return batch(rows)


def _processed(processor: Any, parts: list[str]) -> dict[str, Tensor]:
    """A prompt of a picture, a clip of four frames, both or neither."""
    pixels = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    content = [*({"type": part} for part in parts), {"type": "text", "text": "What is next?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    media: dict[str, Any] = {"images": [Image.fromarray(pixels[4])]} if "image" in parts else {}
    if "video" in parts:
        times = {"fps": 1.0, "duration": 4.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}
        media |= {"videos": [pixels[:4]], "video_metadata": [times], "do_sample_frames": False}
    return dict(processor(text=[text], return_tensors="pt", **media))


def text_row(response: Tensor, latents: Tensor, settings: LatentSettings) -> dict[str, Any]:
    """A rollout of a prompt of three words."""
    ids = torch.cat([torch.tensor([20, 21, 22]), response])
    mask = (_layout(response, settings).roles != Role.STOP_FORCED).long()
    return {
        "prompts": ids[:3], "responses": response, "input_ids": ids, "position_ids": torch.arange(len(ids)).expand(4, -1),
        "response_mask": mask, "loss_mask": mask, "latents": latents, "advantages": mask.float(), "images": {},
    }  # fmt: skip


def _response(settings: LatentSettings, index: int, generator: torch.Generator, spans: bool) -> Tensor:
    """Text, and by turns: a span that stops, both that and one that ends at the budget in either order, none."""
    t = settings.tokens
    words = torch.randint(20, 400, (5 + index,), generator=generator).tolist()
    stopped, full = [t.start, t.latent, t.latent, t.end], [t.start, *[t.latent] * settings.max_latents, t.end]
    between = {0: stopped, 1: full + words[:1] + stopped, 2: stopped + words[:2] + full, 3: []}[index % 4] if spans else []
    return torch.tensor(words[:3] + between + words[3:])


def _layout(response: Tensor, settings: LatentSettings) -> Layout:
    return response_layout(response, settings.tokens, settings.max_latents)


def batch(rows: list[dict[str, Any]]) -> TensorDict:
    from verl.utils import tensordict_utils as tu

    def ragged(name: str) -> Tensor:
        return torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged)

    names = ("prompts", "responses", "input_ids", "response_mask", "loss_mask", "advantages", "latents")
    data = TensorDict({name: ragged(name) for name in names}, batch_size=[len(rows)])
    data["position_ids"] = tu.nested_tensor_from_tensor_list([row["position_ids"] for row in rows], ragged_idx=2)
    data["multi_modal_inputs"] = NonTensorStack(*[row["images"] for row in rows])
    data["latents_checksum"] = _checksums(data)
    data["uid"] = NonTensorStack(*[row.get("uid", f"row {i}") for i, row in enumerate(rows)])
    return data


def apart(data: TensorDict) -> TensorDict:
    """The same rows as verl has them: each with its own prompt and pixels."""
    data, media = data.copy(), list(data["multi_modal_inputs"])
    pixels = {}
    for uid, inputs in zip(data["uid"], media, strict=True):
        pixels.setdefault(uid, {}).update(inputs)
    data["multi_modal_inputs"] = NonTensorStack(*[dict(pixels[uid]) for uid in data["uid"]])
    data["uid"] = NonTensorStack(*[f"row {i}" for i in range(len(data))])
    return data


def _checksums(data: TensorDict) -> Tensor:
    from future_l1_verl.latents.checksum import checksum

    return torch.tensor([[checksum(row)] for row in data["latents"].unbind()])


def with_rewards(data: TensorDict, config: DictConfig) -> TensorDict:
    """The batch with the advantages of its own rewards, as the agent loop and the trainer of ``config`` give them."""
    from future_l1_verl.rl.advantage import rollout_advantages

    settings = LatentSettings.from_checkpoint(config.actor_rollout_ref.model.path)
    rewards, infos = RewardSettings.read(config, "rewards"), []
    layouts = [_layout(response, settings) for response in data["responses"].unbind()]
    lengths = [(layout.spans[:, 1] - layout.spans[:, 0]).tolist() for layout in layouts]
    spans = [latents.split(lengths[i]) for i, latents in enumerate(data["latents"].unbind())]
    for first in range(0, len(data), 4):
        rollouts = [Rollout(Grade(CORRECT[i % 8], True), i % 3 == 0, spans[i]) for i in range(first, first + 4)]
        for parts in group_rewards(rollouts, rewards.weights, rewards.temperature).parts.tolist():
            named = dict(zip(PARTS, parts, strict=True))
            infos.append(named | {"acc": named["accuracy"]})
    mask = data["response_mask"].to_padded_tensor(padding=0)
    slots = torch.nn.utils.rnn.pad_sequence([layout.slots for layout in layouts], batch_first=True)
    advantages = rollout_advantages(infos, list(data["uid"]), rewards.weights, mask, slots, by_std=True, **config.advantage)
    rows = [advantages[i, : len(layout.roles)] for i, layout in enumerate(layouts)]
    data = data.copy()
    data["advantages"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    return data


def rows_of(data: TensorDict, rows: Sequence[int]) -> TensorDict:
    from verl.utils import tensordict_utils as tu

    return tu.index_select_tensor_dict(data, list(rows))


class Actor:
    """The engine of a role, and the passes of a step as verl's trainer makes them."""

    def __init__(self, config: DictConfig, forward_only: bool = False, sequence_parallel: int = 1) -> None:
        from verl.utils.config import omega_conf_to_dataclass
        from verl.workers.engine import EngineRegistry

        import future_l1_verl.rl.register  # noqa: F401
        from future_l1_verl.rl.trainer import loss_function

        torch.manual_seed(0)
        actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
        engine_config = actor.engine
        object.__setattr__(engine_config, "ulysses_sequence_parallel_size", sequence_parallel)
        object.__setattr__(engine_config, "forward_only", forward_only)
        self.engine = EngineRegistry.new(
            model_type=model.model_type, backend=engine_config.strategy, model_config=model, engine_config=engine_config,
            optimizer_config=actor.optim, checkpoint_config=actor.checkpoint,
        )  # fmt: skip
        self.engine.initialize()
        self.loss = loss_function(config, LatentSettings.from_checkpoint(config.actor_rollout_ref.model.path))
        self.temperature = config.actor_rollout_ref.rollout.temperature
        self.kl = config.latent_loss.kl_coef > 0

    def infer(self, data: TensorDict, states: bool = False, **shape: Any) -> dict[str, Tensor]:
        data = self._prepared(data, **shape)
        from verl.utils import tensordict_utils as tu

        tu.assign_non_tensor(data, return_latent_states=states)
        with self.engine.eval_mode():
            return self.engine.infer_batch(data)["model_output"]

    def update(self, data: TensorDict, **shape: Any) -> dict[str, Any]:
        """One optimiser step: the sums of its loss and metrics, the gradients, clipped, and the number of micro-batches."""
        data = self._prepared(data, **shape)
        with self.engine.train_mode():
            output = self.engine.train_batch(data, loss_function=self.loss)
            named = self.engine.module.named_parameters()
            gradients = {name: p.grad.full_tensor().clone() for name, p in named if p.grad is not None}
        metrics = {key: _total(value) for key, value in output["metrics"].items()}
        losses = output["loss"]
        return {"metrics": {"loss": sum(losses)} | metrics, "gradients": gradients, "micro_batches": len(losses)}

    def parameters(self) -> dict[str, Tensor]:
        return {name: p.full_tensor().detach().clone() for name, p in self.engine.module.named_parameters()}

    def _prepared(
        self, data: TensorDict, micro_batch: int = 8, max_tokens: int | None = None, one_update: bool = False
    ) -> TensorDict:
        """Cut into micro-batches of ``micro_batch`` rows, or dynamically of about ``max_tokens`` tokens."""
        from verl.utils import tensordict_utils as tu

        data = data.copy()
        tu.assign_non_tensor(
            data, temperature=self.temperature, use_dynamic_bsz=max_tokens is not None, max_token_len_per_gpu=max_tokens,
            micro_batch_size_per_gpu=micro_batch, calculate_entropy=False, global_batch_size=8, one_update=one_update,
        )  # fmt: skip
        return data


def with_old(actor: Actor, data: TensorDict, **options: Any) -> TensorDict:
    """The batch with what the old pass and, with the same weights, the reference pass add."""
    from verl.workers.utils.padding import response_from_nested

    output, data = actor.infer(data, states=actor.kl, **options), data.copy()
    data["old_log_probs"] = response_from_nested(output["log_probs"], data["response_mask"])
    data["old_log_density"] = response_from_nested(output["latent_term"], data["response_mask"])
    data["ref_log_prob"] = data["old_log_probs"]
    if actor.kl:
        data["ref_latent_states"] = output["latent_states"]
    return data


def _total(value: Any) -> float:
    """Sums over micro-batches, as verl's Metric.aggregate does for sums."""
    return float(value.aggregate()) if hasattr(value, "aggregate") else float(np.sum(value))


def run_ranks(function: str, ranks: int, out: Path, *arguments: str, timeout: float = 900, script: Path = RANKS) -> list[Any]:
    """Runs ``script function arguments`` as ``ranks`` processes with a gloo group; what each returned, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(ranks), str(port), str(out), function, *arguments])
        for rank in range(ranks)
    ]
    try:
        codes = [process.wait(timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * ranks
    return [pickle.loads((out / f"{function}-{ranks}-{rank}.pickle").read_bytes()) for rank in range(ranks)]
