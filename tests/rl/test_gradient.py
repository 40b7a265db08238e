"""Autograd of the full loss against finite differences: a two-layer Qwen3-VL in fp64, every role, every term."""

from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from actor_harness import config, recorded, rows_of
from tensordict import TensorDict
from transformers import AutoConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRMSNorm
from verl.utils import tensordict_utils as tu

from future_l1_verl.latents.likelihood import Family
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.backbones import install_latents
from future_l1_verl.rl.trainer import loss_function
from future_l1_verl.toy import tiny
from future_l1_verl.training.engine import LatentEngine, _share_pixels
from future_l1_verl.training.settings import EngineSettings

FAMILIES = {"vmf": Family("vmf", kappa=2.0), "gaussian": Family("gaussian", sigma=3.0)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    tiny.build(out, seed=1)
    return out


def in_full_precision(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """transformers' norm rounds to fp32, which a difference of 1e-6 would drown in."""
    return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


def engine_of(checkpoint: Path, family: Family) -> LatentEngine:
    """The engine's hooks around a plain module: no processes, no sharding."""
    architecture = AutoConfig.from_pretrained(checkpoint)
    architecture.text_config.num_hidden_layers = 2
    module = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, config=architecture, dtype=torch.float64)
    for part in module.modules():
        if isinstance(part, Qwen3VLTextRMSNorm):
            part.forward = MethodType(in_full_precision, part)
    engine = object.__new__(LatentEngine)
    engine.module = install_latents(module, family.log_density, family.kl)
    engine.module.model.visual.requires_grad_(False)
    engine.latent, engine.ulysses_sequence_parallel_size = EngineSettings(likelihood=family.name), 1
    return engine


def jagged(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The rows of ``values``, as long as those of ``like``."""
    return torch.nested.as_nested_tensor(list(values.split(like.offsets().diff().tolist())), layout=torch.jagged)


def noise(like: torch.Tensor, generator: torch.Generator, scale: float) -> torch.Tensor:
    return torch.randn(len(like.values()), generator=generator, dtype=torch.float64) * scale


def batch(checkpoint: Path, engine: LatentEngine, **options: Any) -> TensorDict:
    """Rollouts, `recorded` with ``options``, whose old weights and reference differ from the model's: ratios are not 1, and no
    KL is 0."""
    data, generator = rows_of(recorded(checkpoint, **options), range(8)), torch.Generator().manual_seed(3)
    data["latents"] = jagged(data["latents"].values().double(), data["latents"])
    for row in data["multi_modal_inputs"]:
        row.update({key: value.double() for key, value in row.items() if key == "pixel_values"})
    _share_pixels(data)
    states = torch.randn(data["latents"].values().shape, generator=generator, dtype=torch.float64)
    data["ref_latent_states"] = jagged(states, data["latents"])
    mask = data["response_mask"]
    data["advantages"] = jagged(noise(mask, generator, 1.0), mask)
    tu.assign_non_tensor(
        data, temperature=0.9, calculate_entropy=False, dp_size=1, global_batch_size=8,
        batch_num_tokens=int(mask.values().sum()),
    )  # fmt: skip
    with torch.no_grad():
        output = outputs(engine, data)
    from verl.workers.utils.padding import response_from_nested

    for field, name, scale in (
        ("old_log_probs", "log_probs", 0.15), ("ref_log_prob", "log_probs", 0.3), ("old_log_density", "latent_term", 0.15)
    ):  # fmt: skip
        values = response_from_nested(output[name], mask).values()
        data[field] = jagged(values + noise(mask, generator, scale), mask)
    return data


def outputs(engine: LatentEngine, data: TensorDict) -> dict[str, torch.Tensor]:
    inputs, output_args = engine.prepare_model_inputs(data)
    return engine.prepare_model_outputs(engine.module(**inputs), output_args, data, None)


@pytest.mark.parametrize("ratio", ["shared", "decoupled"])
@pytest.mark.parametrize("name", FAMILIES)
def test_autograd_is_the_slope_of_the_loss(name: str, ratio: str, checkpoint: Path) -> None:
    engine = engine_of(checkpoint, FAMILIES[name])
    data = batch(checkpoint, engine)
    settings = LatentSettings.from_checkpoint(checkpoint)
    roles = response_layout(data["responses"].to_padded_tensor(padding=-1), settings.tokens, settings.max_latents).roles
    assert set(roles.unique().tolist()) == {int(role) for role in Role}
    # Coefficients large enough for every term to matter.
    overrides = [f"latent_loss.ratio={ratio}", "latent_loss.kl_coef=0.5", "actor_rollout_ref.actor.kl_loss_coef=0.5"]
    loss = loss_function(config(checkpoint, *overrides), settings)

    def value() -> torch.Tensor:
        return loss(model_output=outputs(engine, data), data=data)[0]

    parameters = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(value(), parameters)
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.add_(step * d)
                values.append(float(value()))
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.sub_(step * d)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_forced_slots_and_stops_pull_on_no_logit(checkpoint: Path) -> None:
    """docs/differences.md, row 4: with only forced entries in the loss, the output head gets no gradient."""
    engine = engine_of(checkpoint, FAMILIES["vmf"])
    data = batch(checkpoint, engine)
    settings = LatentSettings.from_checkpoint(checkpoint)
    roles = response_layout(data["responses"].values(), settings.tokens, settings.max_latents).roles
    # A weight of its own: gradients of the embeddings, which it is tied to, come from elsewhere as well.
    engine.module.lm_head.weight = torch.nn.Parameter(engine.module.lm_head.weight.detach().clone())
    loss = loss_function(config(checkpoint, "actor_rollout_ref.actor.use_kl_loss=false"), settings)

    def gradient(*kept: Role) -> torch.Tensor:
        mask = torch.isin(roles, torch.tensor([int(role) for role in kept])).long()
        data["response_mask"] = jagged(mask, data["responses"])
        return torch.autograd.grad(loss(model_output=outputs(engine, data), data=data)[0], engine.module.lm_head.weight)[0]

    assert float(gradient(Role.LATENT_FORCED, Role.STOP_FORCED).abs().max()) == 0.0
    assert float(gradient(Role.LATENT).abs().max()) > 0.0
