"""The FSDP engine of stage 1, of the actor and of the reference: verl's own, with latents in and roles out.

Chosen by the model type ``latent_language_model``; importing this module registers it with verl.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.utils.ulysses import get_ulysses_sequence_parallel_world_size, slice_input_tensor
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from future_l1_verl.latents import likelihood
from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.spans import Role, feeding_positions, response_layout
from future_l1_verl.modeling.qwen3_vl import LatentQwen3VL, Objective
from future_l1_verl.sft.objective import squared_error
from future_l1_verl.versions import require

MODEL_TYPE = "latent_language_model"
SETTINGS = ("latent_objective", "latent_kappa", "latent_sigma", "min_latents", "freeze_vision")
"""Keys of the model's ``override_config`` that are settings of `LatentEngine`, not of the architecture."""


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cpu", "cuda"])
class LatentEngine(FSDPEngineWithLMHead):
    """Adds to each pass: latents injected, and per-entry outputs that follow the role table of design.md.

    A batch brings the latents of its slots either as the ragged field ``latents`` (rollouts) or as future frames among its
    ``multi_modal_inputs`` (stage 1). Outputs, ragged like ``input_ids`` and shifted like verl's (entry p scores token p + 1):

    ``log_probs``: the role table's entry for a rollout; in stage 1 log p(token), and log(1 - p(end)) where a slot follows.
    ``latent_term``: the objective of the slot that follows: squared error in stage 1, log-density in stage 2.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        require("verl", "transformers")
        super().__init__(*args, **kwargs)

    def _build_module(self) -> LatentQwen3VL:
        """Upstream (transformer_impl.py:254) knows two model types only, and leaves the model's forward to transformers."""
        settings = {key: vars(self.model_config.hf_config).pop(key) for key in SETTINGS}
        self.model_config.model_type = "language_model"
        module = super()._build_module()
        self.model_config.model_type = MODEL_TYPE
        LatentQwen3VL.adopt(module, _objective(settings), self._local_part)
        self.min_latents = settings["min_latents"]
        if settings["freeze_vision"]:
            module.model.visual.requires_grad_(False)
        return module

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Upstream (transformer_impl.py:459) keeps a forward-only model in pinned memory, which needs an accelerator."""
        if torch.cuda.is_available():
            return super()._build_fsdp_module(module)
        forward_only = self.engine_config.forward_only
        object.__setattr__(self.engine_config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            object.__setattr__(self.engine_config, "forward_only", forward_only)

    def _local_part(self, tensor: Tensor) -> Tensor:
        if get_ulysses_sequence_parallel_world_size() == 1:
            return tensor
        return slice_input_tensor(tensor, dim=1, padding=False)

    def forward_backward_batch(self, data: TensorDict, loss_function: object, forward_only: bool = False) -> object:
        """Upstream counts the supervised tokens of the global batch; the latent loss also needs the number of latents."""
        if "latents" in data:
            _require_unchanged(data)
        latents = (data["input_ids"].values() == self._latent_id).sum().to(get_device_id())
        torch.distributed.all_reduce(latents, group=self.get_data_parallel_group())
        tu.assign_non_tensor(data, batch_num_latents=max(int(latents), 1))
        return super().forward_backward_batch(data, loss_function, forward_only)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict, dict]:
        """Upstream scores each token under its own id. A slot's decision is scored by the end token it did not choose."""
        inputs, output_args = super().prepare_model_inputs(micro_batch)
        if "latents" in micro_batch:
            inputs["latents"] = _rows_of_latents(micro_batch, self._latent_id)
        labels = output_args["input_ids_rmpad_rolled"]
        output_args["input_ids_rmpad_rolled"] = torch.where(labels == self._latent_id, self._end_id, labels)
        return inputs, output_args

    def prepare_model_outputs(
        self, output: object, output_args: dict, micro_batch: TensorDict, logits_processor_func: object
    ) -> dict[str, Tensor]:
        """Upstream returns log p(label) for every entry; those of a rollout follow the role table instead."""
        outputs = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        ids = micro_batch["input_ids"]
        term = output.latent_term
        if tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True):
            term = self._gather_and_unpad_packed(term.squeeze(0), output_args["pad_size"])
        else:
            term = torch.cat([row[:length] for row, length in zip(term, ids.offsets().diff(), strict=True)])
        outputs["latent_term"] = _ragged_like(ids, term)
        log_probs = outputs["log_probs"].values()
        if "latents" in micro_batch:
            entries = likelihood.log_prob_entries(self._roles_of_next_token(ids), log_probs, term)
        else:
            before_slot = feeding_positions(ids.values() == self._latent_id)
            go_on = likelihood.log_complement(torch.where(before_slot, log_probs, -1.0))
            entries = torch.where(before_slot, go_on, log_probs)
        outputs["log_probs"] = _ragged_like(ids, entries)
        return outputs

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

    @property
    def _end_id(self) -> int:
        return self.module.latent.tokens.end


def _objective(settings: dict) -> Objective:
    """The squared error of stage 1, or a density of stage 2; the setting comes from the config tree (config/)."""
    if settings["latent_objective"] == "squared_error":
        return squared_error
    return likelihood.density(settings["latent_objective"], settings["latent_kappa"], settings["latent_sigma"])


def _ragged_like(ids: Tensor, values: Tensor) -> Tensor:
    return torch.nested.nested_tensor_from_jagged(values, ids.offsets())


def _require_unchanged(data: TensorDict) -> None:
    """Raises ValueError naming the row if latents are not, byte for byte, those that left the agent loop."""
    for index, (latents, expected) in enumerate(zip(data["latents"].unbind(), data["latents_checksum"].unbind(), strict=True)):
        if checksum(latents) != int(expected):
            raise ValueError(f"row {index} of the batch: its latents are not the ones the rollout used (checksum differs)")


def _rows_of_latents(micro_batch: TensorDict, latent_id: int) -> Tensor:
    """``[K, H]``: the latents of all rows, one per slot.

    verl fills a batch up with copies of a row whose tokens are all end-of-text (uid ``pad...``): such a row has latents but
    no slots, and contributes none. Raises ValueError naming the row if the numbers differ otherwise.
    """
    rows = []
    for index, (ids, latents) in enumerate(
        zip(micro_batch["input_ids"].unbind(), micro_batch["latents"].unbind(), strict=True)
    ):
        slots = int((ids == latent_id).sum())
        if slots not in (0, len(latents)):
            raise ValueError(f"row {index} of the micro-batch has {slots} slots but {len(latents)} latents")
        rows.append(latents[:slots])
    return torch.cat(rows)
