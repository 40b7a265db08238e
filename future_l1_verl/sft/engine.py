"""The FSDP engine of stage 1, of the actor and of the reference: verl's own, with latents in and roles out.

Chosen by the model type ``latent_language_model``; importing this module registers it with verl.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_device_name
from verl.utils.ulysses import (
    get_ulysses_sequence_parallel_group,
    get_ulysses_sequence_parallel_world_size,
    slice_input_tensor,
)
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry

from future_l1_verl.latents import likelihood
from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.spans import Role, feeding_positions, response_layout
from future_l1_verl.modeling.backbones import adopt
from future_l1_verl.modeling.latent_vl import LatentVL
from future_l1_verl.platform.verl_engine import PortableEngine
from future_l1_verl.sft.objective import ERRORS
from future_l1_verl.versions import require

MODEL_TYPE = "latent_language_model"
SETTINGS = (
    "latent_objective",
    "latent_kappa",
    "latent_sigma",
    "latent_spans",
    "latent_targets",
    "latent_unit",
    "min_latents",
    "freeze_tower",
    "freeze_merger",
)
"""Keys of the model's ``override_config`` that are settings of `LatentEngine`, not of the architecture."""


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cpu", "cuda"])
class LatentEngine(PortableEngine):
    """Adds to each pass: latents injected, and per-entry outputs that follow the role table of design.md.

    A batch brings the latents of its slots either as the ragged field ``latents`` (rollouts) or as future frames among its
    ``multi_modal_inputs`` (stage 1). Outputs, ragged like ``input_ids`` and shifted like verl's (entry p scores token p + 1):

    ``log_probs``: what the output head decided. For a rollout the role table's entry without its density; in stage 1
    log p(token), and log(1 - p(end)) where a slot follows.
    ``latent_term``: the objective of the slot that follows: squared error in stage 1, log-density in stage 2.
    ``latent_kl``: the KL of the latent that follows to the reference, for a batch with the field ``ref_latent_states``.
    ``latent_states``, ``latent_targets``: ragged ``[slots, H]``, the states that feed the slots and what is in them, for a
    batch with ``return_latent_states``.
    """

    def __init__(
        self,
        model_config: HFModelConfig,
        engine_config: FSDPEngineConfig,
        optimizer_config: FSDPOptimizerConfig,
        checkpoint_config: CheckpointConfig,
    ) -> None:
        """Raises ValueError for settings that cannot work together, naming the keys."""
        require("verl", "transformers")
        _require_possible(model_config, engine_config)
        super().__init__(model_config, engine_config, optimizer_config, checkpoint_config)

    def _build_module(self) -> LatentVL:
        """Upstream (transformer_impl.py:254) knows two model types only, and leaves the model's forward to transformers."""
        settings = {key: vars(self.model_config.hf_config).pop(key) for key in SETTINGS}
        self.model_config.model_type = "language_model"
        module = super()._build_module()
        self.model_config.model_type = MODEL_TYPE
        family = _family(settings)
        adopt(
            module,
            family.log_density if family else ERRORS[settings["latent_objective"]],
            self._local_part,
            divergence=family.kl if family else None,
            spans=settings["latent_spans"],
            pool_targets=settings["latent_targets"] == "pool",
            unit_targets=settings["latent_unit"],
        )
        self.min_latents = settings["min_latents"]
        module.freeze(tower=settings["freeze_tower"], merger=settings["freeze_merger"])
        return module

    def _build_lora_module(self, module: LatentVL) -> PeftModel:
        """Upstream (transformer_impl.py:339) adapts every linear layer that ``target_modules`` fits, those of the vision tower
        too, whose features are the latents of stage 1. Raises ValueError if a loaded adapter does so.
        """
        chosen = self.model_config.exclude_modules
        tower = r"model\.visual\..*"
        object.__setattr__(self.model_config, "exclude_modules", f"{tower}|{chosen}" if chosen else tower)
        try:
            adapted = super()._build_lora_module(module)
        finally:
            object.__setattr__(self.model_config, "exclude_modules", chosen)
        outside = [name for name, p in adapted.named_parameters() if p.requires_grad and ".visual." in name]
        if outside:
            raise ValueError(
                f"model.lora_adapter_path={self.model_config.lora_adapter_path} adapts the vision tower ({outside[0]})"
            )
        return adapted

    def _local_part(self, tensor: Tensor) -> Tensor:
        if get_ulysses_sequence_parallel_world_size() == 1:
            return tensor
        return slice_input_tensor(tensor, dim=1, padding=False)

    def forward_backward_batch(self, data: TensorDict, loss_function: object, forward_only: bool = False) -> object:
        """Upstream counts the supervised tokens of the global batch; stage 1's loss also needs the number of latents."""
        if "latents" in data:
            _require_unchanged(data)
        latents = (data["input_ids"].values() == self._latent_id).sum().to(get_device_id())
        torch.distributed.all_reduce(latents, group=self.get_data_parallel_group())
        tu.assign_non_tensor(data, batch_num_latents=max(int(latents), 1))
        return super().forward_backward_batch(data, loss_function, forward_only)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict, dict]:
        inputs, output_args = super().prepare_model_inputs(micro_batch)
        if "latents" in micro_batch:
            inputs["latents"] = _rows_of_slots(micro_batch, "latents", self._latent_id)
        if "ref_latent_states" in micro_batch:
            inputs["reference_states"] = _rows_of_slots(micro_batch, "ref_latent_states", self._latent_id)
        inputs["return_latent_states"] = tu.get_non_tensor_data(micro_batch, "return_latent_states", False)
        inputs["temperature"] = float(micro_batch["temperature"])
        return inputs, output_args

    def prepare_model_outputs(
        self, output: object, output_args: dict, micro_batch: TensorDict, logits_processor_func: object
    ) -> dict[str, Tensor]:
        """Upstream returns log p(label) for every entry; those of a rollout follow the role table instead."""
        outputs = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        ids = micro_batch["input_ids"]
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)

        def per_token(values: Tensor) -> Tensor:
            if packed:
                return self._gather_and_unpad_packed(values.squeeze(0), output_args["pad_size"])
            return torch.cat([row[:length] for row, length in zip(values, ids.offsets().diff(), strict=True)])

        outputs["latent_term"] = _ragged_like(ids, per_token(output.latent_term))
        if output.latent_divergence is not None:
            outputs["latent_kl"] = _ragged_like(ids, per_token(output.latent_divergence))
        if output.latent_states is not None:
            outputs["latent_states"] = self._ragged_slots(ids, self._whole(output.latent_states))
            outputs["latent_targets"] = self._ragged_slots(ids, output.latent_targets)
        log_probs, log_go_on = outputs["log_probs"].values(), per_token(output.log_go_on)
        if "latents" in micro_batch:
            entries = likelihood.decision_entries(self._roles_of_next_token(ids), log_probs, log_go_on)
        else:
            entries = torch.where(feeding_positions(ids.values() == self._latent_id), log_go_on, log_probs)
        outputs["log_probs"] = _ragged_like(ids, entries)
        return outputs

    def _whole(self, states: Tensor) -> Tensor:
        """``[K, H]`` in fp32; under Ulysses each rank has brought its part of the rows, and zeros."""
        states = states.float()
        if get_ulysses_sequence_parallel_world_size() > 1:
            torch.distributed.all_reduce(states, group=get_ulysses_sequence_parallel_group())
        return states

    def _ragged_slots(self, ids: Tensor, rows: Tensor) -> Tensor:
        """``[K, H]`` to ragged ``[K_i, H]`` per row of the batch, in fp32."""
        counts = [int((row == self._latent_id).sum()) for row in ids.unbind()]
        return torch.nested.as_nested_tensor(list(rows.float().split(counts)), layout=torch.jagged)

    def _roles_of_next_token(self, ids: Tensor) -> Tensor:
        """int8 ``[sum of T_i]``: entry p has the role of token p + 1 of its row; the last of a row is text, and unused."""
        module = self.module
        padded = ids.to_padded_tensor(padding=-1)
        roles = response_layout(padded, module.latent.tokens, module.latent.max_latents, self.min_latents).roles
        following = torch.cat([roles[:, 1:], torch.full_like(roles[:, :1], Role.TEXT)], dim=1)
        return following[padded != -1]

    @property
    def _latent_id(self) -> int:
        return self.module.latent.tokens.latent


def _require_possible(model: HFModelConfig, engine: FSDPEngineConfig) -> None:
    frozen = [getattr(model.hf_config, key) for key in ("freeze_tower", "freeze_merger")]
    if engine.strategy == "fsdp" and get_device_name() == "cpu":
        raise ValueError("FSDP1 needs an accelerator: on a CPU set engine.strategy=fsdp2")
    if model.lora_rank > 0 and not all(frozen):
        raise ValueError("model.lora_rank trains adapters of the language model alone: leave freeze_tower, freeze_merger true")
    if model.lora_rank == 0 and engine.strategy == "fsdp" and any(frozen) and not engine.use_orig_params:
        raise ValueError("engine.strategy=fsdp shards frozen and trained parameters together: set engine.use_orig_params=true")


def _family(settings: dict) -> likelihood.Family | None:
    """The density of stage 2, None for stage 1's squared error; the setting comes from the config tree (config/)."""
    if settings["latent_objective"] in ERRORS:
        return None
    return likelihood.Family(settings["latent_objective"], settings["latent_kappa"], settings["latent_sigma"])


def _ragged_like(ids: Tensor, values: Tensor) -> Tensor:
    return torch.nested.nested_tensor_from_jagged(values, ids.offsets())


def _require_unchanged(data: TensorDict) -> None:
    """Raises ValueError naming the row if latents are not, byte for byte, those that left the agent loop."""
    for index, (latents, expected) in enumerate(zip(data["latents"].unbind(), data["latents_checksum"].unbind(), strict=True)):
        if checksum(latents) != int(expected):
            raise ValueError(f"row {index} of the batch: its latents are not the ones the rollout used (checksum differs)")


def _rows_of_slots(micro_batch: TensorDict, field: str, latent_id: int) -> Tensor:
    """``[K, H]``: the rows of a ragged field ``[K_i, H]``, one per slot.

    verl fills a batch up with copies of a row whose tokens are all end-of-text (uid ``pad...``): such a row has latents but
    no slots, and contributes none. Raises ValueError naming the row if the numbers differ otherwise.
    """
    rows = []
    for index, (ids, values) in enumerate(zip(micro_batch["input_ids"].unbind(), micro_batch[field].unbind(), strict=True)):
        slots = int((ids == latent_id).sum())
        if slots not in (0, len(values)):
            raise ValueError(f"row {index} of the micro-batch has {slots} slots but {len(values)} {field}")
        rows.append(values[:slots])
    return torch.cat(rows)
