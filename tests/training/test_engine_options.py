"""What may be set of the engine, on both backbones: sharding, checkpointing, batch shapes, LoRA; the loss stays the same."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

sys.path.insert(0, str(Path(__file__).parents[1] / "rl"))
from actor_harness import run_ranks

from future_l1_verl.toy import tiny
from future_l1_verl.training.engine import LatentEngine

pytestmark = pytest.mark.engine

RANKS = Path(__file__).with_name("engine_ranks.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("engine")
    for backbone in tiny.BACKBONES:
        tiny.build(out / backbone, seed=1, backbone=backbone)
    return out


@pytest.fixture(scope="module")
def options(folder: Path) -> dict[str, dict[str, Any]]:
    return run_ranks("options", 1, folder, *(str(folder / backbone) for backbone in tiny.BACKBONES), script=RANKS)[0]


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["metrics"]["loss"] == pytest.approx(theirs["metrics"]["loss"], abs=1e-6)
    assert_same_gradients(ours, theirs)


def assert_same_gradients(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["gradients"].keys() == theirs["gradients"].keys()
    assert max(float(gradient.abs().max()) for gradient in theirs["gradients"].values()) > 1e-2
    gaps = {name: float((gradient - theirs["gradients"][name]).abs().max()) for name, gradient in ours["gradients"].items()}
    assert max(gaps.values()) <= 1e-6


@pytest.mark.parametrize("backbone", tiny.BACKBONES)
def test_gradient_checkpointing_changes_nothing(backbone: str, options: dict[str, dict[str, Any]]) -> None:
    plain, checkpointed = options[backbone]["plain"], options[backbone]["checkpointed"]
    assert_same(checkpointed, plain)
    assert (len(plain["layer_calls"]), len(checkpointed["layer_calls"])) == (1, 2)  # the second is the recomputation


@pytest.mark.parametrize("backbone", tiny.BACKBONES)
def test_dynamic_batch_sizes_change_nothing(backbone: str, options: dict[str, dict[str, Any]]) -> None:
    plain, dynamic = options[backbone]["plain"], options[backbone]["dynamic"]
    assert_same(dynamic, plain)
    assert plain["micro_batches"] == 1 and dynamic["micro_batches"] > 2


def test_two_ranks_of_qwen2_5_vl_are_one(folder: Path, options: dict[str, dict[str, Any]]) -> None:
    """Cut by rows, one rank without an image, and by sequence (Ulysses, with verl's own attention for this backbone)."""
    plain = options["qwen2_5_vl"]["plain"]
    for rank in run_ranks("two_ranks", 2, folder, str(folder / "qwen2_5_vl"), script=RANKS):
        assert_same_gradients(rank["data_parallel"], plain)
        assert_same_gradients(rank["sequence_parallel"], plain)


@pytest.mark.parametrize("backbone", tiny.BACKBONES)
def test_lora_trains_adapters_of_the_language_model_alone(backbone: str, options: dict[str, dict[str, Any]]) -> None:
    lora = options[backbone]["lora"]
    adapters = {name for name in lora["moved"] if ".lora_" in name}
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in adapters} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert not any("visual" in name for name in adapters)
    assert lora["gradients"] == [adapters, adapters]
    assert min(lora["moved"][name] for name in adapters) > 1e-4
    assert max(distance for name, distance in lora["moved"].items() if name not in adapters) == 0.0


@pytest.mark.parametrize("backbone", tiny.BACKBONES)
def test_without_its_adapters_the_model_is_its_own_reference(backbone: str, options: dict[str, dict[str, Any]]) -> None:
    lora = options[backbone]["lora"]
    for name, base in lora["base"].items():
        torch.testing.assert_close(lora["disabled"][name], base, atol=1e-6, rtol=0)
        assert float((lora["adapted"][name] - base).abs().max()) > 1e-4


def lora_engine(**changed: Any) -> LatentEngine:
    """An engine without processes, for `_build_lora_module`."""
    values = dict(lora_rank=4, lora_alpha=8, target_modules="all-linear", target_parameters=None, use_shm=False)
    engine = object.__new__(LatentEngine)
    engine.model_config = SimpleNamespace(**values | {"exclude_modules": None, "lora_adapter_path": None} | changed)
    return engine


def test_what_the_user_excludes_stays_out_beside_the_tower(folder: Path) -> None:
    module = AutoModelForImageTextToText.from_pretrained(folder / "qwen2_5_vl")
    engine = lora_engine(exclude_modules=r".*\.(down|up|gate)_proj")
    adapted = engine._build_lora_module(module)
    trained = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert engine.model_config.exclude_modules == r".*\.(down|up|gate)_proj"


def test_a_loaded_adapter_of_the_vision_tower_is_refused(folder: Path, tmp_path: Path) -> None:
    one, other = (AutoModelForImageTextToText.from_pretrained(folder / "qwen3_vl") for _ in range(2))
    get_peft_model(one, LoraConfig(target_modules=["qkv"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"adapts the vision tower \(.*visual\.blocks\.0\.attn\.qkv"):
        lora_engine(lora_adapter_path=str(tmp_path))._build_lora_module(other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="FSDP1 needs a CUDA device")
def test_fsdp1_scores_as_fsdp2_does(folder: Path) -> None:
    found = [run_ranks("sharded", 1, folder, str(folder / "qwen3_vl"), name, script=RANKS)[0] for name in ("fsdp", "fsdp2")]
    for name, scores in found[1].items():
        torch.testing.assert_close(found[0][name], scores, atol=1e-4, rtol=0)


def settings(**changed: Any) -> dict[str, SimpleNamespace]:
    values = dict(lora_rank=0, freeze_tower=True, freeze_merger=True, strategy="fsdp2", use_orig_params=False)
    values["ulysses_sequence_parallel_size"] = 1
    values |= changed
    latent = {"likelihood": "none", "freeze_tower": values["freeze_tower"], "freeze_merger": values["freeze_merger"]}
    text = SimpleNamespace(num_attention_heads=4)
    model = SimpleNamespace(get_text_config=lambda: text)
    sharding = {name: values[name] for name in ("strategy", "use_orig_params", "ulysses_sequence_parallel_size")}
    return {
        "model_config": SimpleNamespace(override_config={"latent": latent}, hf_config=model, lora_rank=values["lora_rank"]),
        "engine_config": SimpleNamespace(**sharding),
        "optimizer_config": SimpleNamespace(),
        "checkpoint_config": SimpleNamespace(),
    }


@pytest.mark.parametrize(
    ("device", "changed", "message"),
    [
        ("cpu", {"strategy": "fsdp"}, "engine.strategy=fsdp2"),
        ("cuda", {"strategy": "fsdp", "freeze_tower": False}, "engine.use_orig_params=true"),
        ("cuda", {"lora_rank": 4, "freeze_merger": False}, r"leave latent\.freeze_tower, latent\.freeze_merger true"),
        ("cuda", {"ulysses_sequence_parallel_size": 3}, "must divide the model's 4 attention heads"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(
    device: str, changed: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("future_l1_verl.training.engine.get_device_name", lambda: device)
    with pytest.raises(ValueError, match=message):
        LatentEngine(**settings(**changed))
