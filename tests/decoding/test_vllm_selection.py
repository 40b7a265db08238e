"""What an engine is made of a checkpoint, and what is refused before it starts, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
from decoding_harness import without_keys
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.v1.engine.input_processor import InputProcessor
from vllm_server import SMALL, refused

from future_l1_verl import versions
from future_l1_verl.decoding import plugin
from future_l1_verl.decoding.vllm import SCHEDULERS, WORKER, engine_arguments
from future_l1_verl.latents.tokens import CONFIG_KEYS

pytestmark = pytest.mark.engine

VERL_EXTENSION = "verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension"


def created(checkpoint: str, **arguments: Any) -> VllmConfig:
    return AsyncEngineArgs(model=checkpoint, dtype="float32", enforce_eager=True, **arguments).create_engine_config()


def parts(config: VllmConfig) -> tuple[str, Any]:
    return config.parallel_config.worker_cls, config.scheduler_config.scheduler_cls


def test_a_checkpoint_with_latent_tokens_needs_no_flag(tiny_checkpoint: str) -> None:
    assert parts(created(tiny_checkpoint)) == (WORKER, SCHEDULERS[0])


def test_a_cpu_is_not_asked_for_all_of_its_memory(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = created(tiny_checkpoint).cache_config.kv_cache_memory_bytes
    assert 0 < cache <= min(psutil.virtual_memory().total / 4, 4 * 2**30)
    # A tiny model is given what its answers need: keys and values of 4 layers with 2 heads of 32 floats.
    few = created(tiny_checkpoint, max_num_seqs=3, max_model_len=1000).cache_config.kv_cache_memory_bytes
    assert few == 3 * (1000 + 2 * 128) * 2 * 4 * 2 * 32 * 4
    # What was said about it stays.
    assert created(tiny_checkpoint, kv_cache_memory_bytes=2**28).cache_config.kv_cache_memory_bytes == 2**28
    assert created(tiny_checkpoint, gpu_memory_utilization=0.3).cache_config.kv_cache_memory_bytes is None
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert created(tiny_checkpoint).cache_config.kv_cache_memory_bytes == 3 * 2**30


def test_named_parts_and_options_stay(tiny_checkpoint: str) -> None:
    arguments = engine_arguments(tiny_checkpoint, max_latents=3) | {"scheduler_cls": SCHEDULERS[1]}
    config = created(tiny_checkpoint, **arguments, worker_extension_cls=VERL_EXTENSION)
    assert parts(config) == (WORKER, SCHEDULERS[1])
    assert config.additional_config["latent"]["max_latents"] == 3
    assert config.parallel_config.worker_extension_cls == VERL_EXTENSION


def test_selecting_twice_is_selecting_once(tiny_checkpoint: str) -> None:
    plugin.register()
    arguments = EngineArgs(model=tiny_checkpoint, dtype="float32", enforce_eager=True)  # registers as well
    for _ in range(2):
        assert parts(arguments.create_engine_config()) == (WORKER, SCHEDULERS[0])
    for wrapped in (EngineArgs.create_model_config, EngineArgs.create_engine_config, InputProcessor.process_inputs):
        assert wrapped.__wrapped__.__module__.startswith("vllm.") and not hasattr(wrapped.__wrapped__, "__wrapped__")


@pytest.mark.parametrize("others", [(), ("latent_token_id",), CONFIG_KEYS[1:]])
def test_a_checkpoint_of_others_is_left_alone(
    tiny_checkpoint: str, tmp_path: Path, others: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else it has, as Mirage-like ones do, and whatever the version of vLLM."""
    monkeypatch.setattr(versions, "installed", lambda package: "0.1")
    missing = [key for key in CONFIG_KEYS if key not in others]
    plain = without_keys(tiny_checkpoint, tmp_path / "plain", *missing)
    worker, scheduler = parts(created(plain, pipeline_parallel_size=2))
    assert worker.startswith("vllm.") and scheduler is None


@pytest.mark.parametrize("missing", [*((key,) for key in CONFIG_KEYS[1:]), CONFIG_KEYS[1:]])
def test_a_checkpoint_that_lost_latent_keys_is_refused(tiny_checkpoint: str, tmp_path: Path, missing: tuple[str, ...]) -> None:
    half = without_keys(tiny_checkpoint, tmp_path / "half", *missing)
    with pytest.raises(ValueError, match=rf"half: .*config.json lacks {', '.join(missing)}; add them with"):
        created(half)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallel"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative decoding"),
        # vLLM 0.32 refuses it by itself.
        ({"enable_return_routed_experts": True}, "enable_return_routed_experts: latents leave|AuxOutput Connector"),
        ({"logprobs_mode": "raw_logits"}, "logprobs_mode=raw_logits"),
        ({"worker_cls": "vllm.v1.worker.cpu_worker.CPUWorker"}, r"worker_cls=\S+CPUWorker does not"),
        ({"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, r"scheduler_cls=\S+Scheduler does not"),
        ({"additional_config": {"latent": {"max_latents": 0}}}, "min_latents <= max_latents"),
        ({"additional_config": {"latent": {"budget": 4}}}, "unknown latent option budget"),
    ],
)
def test_what_latents_do_not_work_with_is_refused(tiny_checkpoint: str, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        created(tiny_checkpoint, **arguments)


def test_another_vllm_is_refused(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda package: "0.23.0")
    with pytest.raises(versions.UnsupportedVersion, match=r"installed: vllm 0\.23\.0; needed: vllm 0\.24\.0"):
        created(tiny_checkpoint)


def test_the_reason_reaches_the_terminal(tiny_checkpoint: str) -> None:
    """And no engine is started for it."""
    status, output = refused(tiny_checkpoint, *SMALL, "--pipeline-parallel-size", "2")
    assert status != 0
    assert "ValueError: latent spans do not work with pipeline parallel" in output[-2000:]
    assert "EngineCore" not in output
