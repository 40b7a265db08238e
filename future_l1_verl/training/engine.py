"""The FSDP engine of stage 1, of the actor and of the reference: verl's, with packed questions and outputs by role.

Chosen by the model type ``latent_language_model``; importing this module registers it with verl.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from tensordict import NonTensorStack, TensorDict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_device_name
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.spans import response_layout
from future_l1_verl.modeling.backbones import install_latents
from future_l1_verl.modeling.latent_vl import LatentOutput, LatentVL
from future_l1_verl.modeling.packing import Packing, queued
from future_l1_verl.modeling.sequence import Whole
from future_l1_verl.platform.verl_engine import PortableEngine
from future_l1_verl.training.micro_batches import on_host, questions_of, rows_of_prompts
from future_l1_verl.training.settings import EngineSettings
from future_l1_verl.training.ulysses import Ulysses
from future_l1_verl.versions import require

MODEL_TYPE = "latent_language_model"
PIXELS = ("pixel_values", "pixel_values_videos")
SEEN = (*PIXELS, "image_grid_thw", "video_grid_thw")
"""The model's inputs from a question's images and videos; those from a row's future frames are `TARGETS`."""
TARGETS = ("latent_pixel_values", "latent_grid_thw")


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cpu", "cuda"])
class LatentEngine(PortableEngine):
    """Computes each question once per pass, injects latents, and returns per-entry outputs that follow the role table.

    Rows of a batch with the same ``uid`` are answers to one question (`Packing`); without that field each row is its own. A
    batch has the latents of its slots either as the ragged field ``latents`` (rollouts) or as future frames among its
    ``multi_modal_inputs`` (stage 1). Outputs, ragged like ``input_ids`` and shifted like verl's (entry p is about token p +
    1), 0 in prompts:

    ``log_probs``: the decision of the output head. For a rollout it is the role table's entry without its density; in stage 1
    log p(token), and log(1 - p(end)) where a slot follows.
    ``latent_term``: the objective of the slot that follows: the error in stage 1, the log-density in stage 2.
    ``latent_kl``: the KL of the latent that follows to the reference, for a batch with the field ``ref_latent_states``.
    ``entropy``: of the decision, for a batch with ``calculate_entropy``.
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
        self.latent = EngineSettings.from_section(model_config.override_config["latent"])
        _require_possible(self.latent, model_config, engine_config)
        super().__init__(model_config, engine_config, optimizer_config, checkpoint_config)

    def _build_module(self) -> LatentVL:
        """Upstream (transformer_impl.py) has only two model types, and uses the forward pass of transformers, or its own for
        packed rows and Ulysses; neither supports shared prompts. Here latents are installed."""
        self.model_config.model_type = "language_model"
        with self._unpatched():
            module = super()._build_module()
        self.model_config.model_type = MODEL_TYPE
        size = self.ulysses_sequence_parallel_size
        install_latents(
            module,
            self.latent.objective,
            self.latent.divergence,
            spans=self.latent.spans,
            targets=self.latent.targets,
            unit_targets=self.latent.unit_targets,
            sequence=Ulysses(size) if size > 1 else Whole(),
        )
        module.freeze(tower=self.latent.freeze_tower, merger=self.latent.freeze_merger)
        return module

    @contextmanager
    def _unpatched(self) -> Iterator[None]:
        """Resets, in the block, two settings by which upstream patches transformers (models/transformers/monkey_patch.py)."""
        kept = self.use_remove_padding, self.ulysses_sequence_parallel_size
        self.use_remove_padding, self.ulysses_sequence_parallel_size = False, 1
        try:
            yield
        finally:
            self.use_remove_padding, self.ulysses_sequence_parallel_size = kept

    def _build_lora_module(self, module: LatentVL) -> PeftModel:
        """Upstream (transformer_impl.py) adapts every linear layer that matches ``target_modules``; here not those of the
        vision tower, whose features are the latents of stage 1. Raises ValueError if a loaded adapter does.
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
        # The class for causal language models adds arguments (attention_mask, labels) that our forward does not have.
        adapted.__class__ = PeftModel
        return adapted

    def get_per_tensor_param(self, *args: Any, **kwargs: Any) -> tuple[Iterator[tuple[str, Tensor]], Any]:
        """Upstream (transformer_impl.py) sends the rollout its master weights in fp32; here they are sent in the precision
        that the actor computes in, which may be half."""
        weights, adapter = super().get_per_tensor_param(*args, **kwargs)
        return ((name, weight.to(self._autocast_dtype)) for name, weight in weights), adapter

    def forward_backward_batch(self, data: TensorDict, loss_function: object, forward_only: bool = False) -> object:
        """Upstream counts the supervised tokens of the global batch; here also the latents, for stage 1's loss. Pixels come
        with one row of a question, and are given to all, since any micro-batch may need them."""
        if "latents" in data:
            _require_unchanged(data)
        _share_pixels(data)
        latents = (data["input_ids"].values() == self._latent_id).sum().to(get_device_id())
        torch.distributed.all_reduce(latents, group=self.get_data_parallel_group())
        tu.assign_non_tensor(data, batch_num_latents=max(int(latents), 1))
        return super().forward_backward_batch(data, loss_function, forward_only)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Upstream's rows each have a prompt; here they are packed by question. Token ids are read on the host, once, since
        each read from the device would wait for it."""
        ids, positions = micro_batch["input_ids"].unbind(), micro_batch["position_ids"].unbind()
        device, questions, rows = ids[0].device, questions_of(micro_batch), on_host(micro_batch["input_ids"])
        prompts = rows_of_prompts(micro_batch)
        first = {question: row for row, question in reversed(list(enumerate(questions)))}
        for row, question in enumerate(questions):
            length, other = prompts[row], first[question]
            if prompts[other] != length or not torch.equal(rows[row][:length], rows[other][:length]):
                raise ValueError(f"rows {other} and {row} of the micro-batch have the same uid but not the same prompt")
        packing = Packing(
            prompts=tuple(prompts[first[question]] for question in range(len(first))),
            answers=tuple(len(row) - length for row, length in zip(rows, prompts, strict=True)),
            questions=tuple(questions),
            device=device,
        )
        size = self.ulysses_sequence_parallel_size
        packing = replace(packing, padding=-len(packing) % size)
        inputs = {
            "input_ids": packing.pack(ids)[None],
            "position_ids": packing.pack(positions)[:, None],
            "packing": packing,
            "temperature": float(micro_batch["temperature"]),
            "return_entropy": tu.get_non_tensor_data(micro_batch, "calculate_entropy", False),
            "return_latent_states": tu.get_non_tensor_data(micro_batch, "return_latent_states", False),
        }
        media = list(micro_batch["multi_modal_inputs"]) if "multi_modal_inputs" in micro_batch else [{}] * len(ids)
        inputs |= _joined([media[first[question]] for question in range(len(first))], SEEN, device)
        inputs |= _joined(media, TARGETS, device)
        slots = [int((row == self._latent_id).sum()) for row in rows]
        for name, field in (("latents", "latents"), ("reference_states", "ref_latent_states")):
            if field in micro_batch:
                inputs[name] = _rows_of_slots(micro_batch, field, slots)
        return inputs, {"packing": packing, "rows": rows}

    def prepare_model_outputs(
        self, output: LatentOutput, output_args: dict, micro_batch: TensorDict, logits_processor_func: object
    ) -> dict[str, Tensor]:
        """Upstream computes log-probs from the logits of all tokens; here the model returns those of the answers."""
        ids, packing, rows = micro_batch["input_ids"], output_args["packing"], output_args["rows"]
        is_slot = torch.cat([row[len(row) - n :] for row, n in zip(rows, packing.answers, strict=True)]) == self._latent_id
        slots = queued(is_slot.nonzero()[:, 0], packing.device)

        def ragged(values: Tensor) -> Tensor:
            return torch.nested.nested_tensor_from_jagged(packing.entries(values), ids.offsets())

        def at_slots(values: Tensor) -> Tensor:
            return ragged(values.new_zeros(len(is_slot)).index_copy(0, slots, values))

        def by_row(values: Tensor) -> Tensor:
            counts = [int(row.sum()) for row in is_slot.split(packing.answers)]
            return torch.nested.as_nested_tensor(list(values.float().split(counts)), layout=torch.jagged)

        log_probs = output.log_probs
        if "latents" in micro_batch:
            log_probs = log_probs.masked_fill(queued(self._forced(rows, packing), packing.device), 0.0)
        outputs = {"log_probs": ragged(log_probs), "latent_term": at_slots(output.latent_term)}
        if output.entropy is not None:
            outputs["entropy"] = ragged(output.entropy)
        if output.latent_divergence is not None:
            outputs["latent_kl"] = at_slots(output.latent_divergence)
        if output.latent_states is not None:
            outputs["latent_states"], outputs["latent_targets"] = by_row(output.latent_states), by_row(output.latent_targets)
        return outputs

    def _forced(self, rows: Sequence[Tensor], packing: Packing) -> Tensor:
        """Returns which scored tokens the policy did not choose, bool ``[N]``. ``rows`` are token ids."""
        latent = self.module.latent
        padded = pad_sequence(list(rows), batch_first=True, padding_value=-1)
        forced = response_layout(padded, latent.tokens, latent.max_latents, self.latent.min_latents).forced
        parts = zip(forced, rows, packing.answers, strict=True)
        return torch.cat([each[len(row) - n : len(row)] for each, row, n in parts])

    @property
    def _latent_id(self) -> int:
        return self.module.latent.tokens.latent


def _require_possible(latent: EngineSettings, model: HFModelConfig, engine: FSDPEngineConfig) -> None:
    frozen = (latent.freeze_tower, latent.freeze_merger)
    if engine.strategy == "fsdp" and get_device_name() == "cpu":
        raise ValueError("FSDP1 needs an accelerator: on a CPU set engine.strategy=fsdp2")
    if model.lora_rank > 0 and not all(frozen):
        raise ValueError(
            "model.lora_rank trains adapters of the language model alone: leave latent.freeze_tower, latent.freeze_merger true"
        )
    if model.lora_rank == 0 and engine.strategy == "fsdp" and any(frozen) and not engine.use_orig_params:
        raise ValueError("engine.strategy=fsdp shards frozen and trained parameters together: set engine.use_orig_params=true")
    heads, size = model.hf_config.get_text_config().num_attention_heads, engine.ulysses_sequence_parallel_size
    if heads % size:
        raise ValueError(f"ulysses_sequence_parallel_size={size} must divide the model's {heads} attention heads")


def _require_unchanged(data: TensorDict) -> None:
    """Raises ValueError naming the row if latents differ in any byte from those that left the agent loop."""
    for index, (latents, expected) in enumerate(zip(data["latents"].unbind(), data["latents_checksum"].unbind(), strict=True)):
        if checksum(latents) != int(expected):
            raise ValueError(f"row {index} of the batch: its latents are not the ones the rollout used (checksum differs)")


def _share_pixels(data: TensorDict) -> None:
    """Gives every row of a question the pixels of the one row that has them, in place, without a copy."""
    if "multi_modal_inputs" not in data:
        return
    questions, media = questions_of(data), list(data["multi_modal_inputs"])
    pixels: dict[int, dict[str, Tensor]] = {}
    for question, inputs in zip(questions, media, strict=True):
        pixels.setdefault(question, {}).update({name: inputs[name] for name in PIXELS if name in inputs})
    for row, (question, inputs) in enumerate(zip(questions, media, strict=True)):
        for grid, needed in (("image_grid_thw", "pixel_values"), ("video_grid_thw", "pixel_values_videos")):
            if grid in inputs and needed not in pixels[question]:
                raise ValueError(f"row {row} of the batch has {grid}, but no row of its question has {needed}")
    data["multi_modal_inputs"] = NonTensorStack(
        *(inputs | pixels[question] for question, inputs in zip(questions, media, strict=True))
    )


def _joined(media: list[dict[str, Tensor]], names: tuple[str, ...], device: torch.device) -> dict[str, Tensor]:
    """Returns the concatenated tensors of each name, on the device."""
    found = {name: [inputs[name] for inputs in media if name in inputs] for name in names}
    return {name: queued(torch.cat(tensors), device) for name, tensors in found.items() if tensors}


def _rows_of_slots(micro_batch: TensorDict, field: str, slots: list[int]) -> Tensor:
    """Returns ``[K, H]``: the rows of a ragged field ``[K_i, H]``, one per slot; ``slots`` has the number per row.

    verl pads a batch with copies of a row whose tokens are all end-of-text (uid ``pad...``): such a row has latents but no
    slots, and contributes none. Raises ValueError naming the row if the numbers differ otherwise.
    """
    rows = []
    for index, (count, values) in enumerate(zip(slots, micro_batch[field].unbind(), strict=True)):
        if count not in (0, len(values)):
            raise ValueError(f"row {index} of the micro-batch has {count} slots but {len(values)} {field}")
        rows.append(values[:count])
    return torch.cat(rows)
