"""What each recipe of stage 2 would run, in every shape and ablation."""

from typing import Any

import pytest
from dry_run import NASTY, composed, copy_of_recipes, differences, dry_run, overrides, printed, resolved, run
from verl.utils.config import omega_conf_to_dataclass, validate_config

MODEL = f"/models/{NASTY[0]}/{NASTY[1]}"
QUESTIONS = ("futurebench", "twiff")
ABLATIONS = ["text_only_grpo", "text_only_dapo", "grpo", "depo", "dapo", "dapo+ctr", "dapo+div", "la_dapo"]
LAMBDAS = [0.01, 0.05, 0.1, 0.2, 0.5, 1.0]

# Paper, section 4 and Table 9.
TABLE_9: dict[str, Any] = {
    "rewards.accuracy": 0.9, "rewards.format": 0.1, "rewards.contrastive": 0.2, "rewards.diversity": 0.1,
    "rewards.temperature": 0.5, "rewards.repetition": 0.0, "rewards.overlong": 0.0,
    "actor_rollout_ref.actor.clip_ratio_low": 0.2, "actor_rollout_ref.actor.clip_ratio_high": 0.28,
    "actor_rollout_ref.actor.clip_ratio_c": 3.0, "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.use_kl_loss": True, "actor_rollout_ref.actor.kl_loss_coef": 0.01,
    "algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": "acc",
    "group_filter.low": 0.1, "group_filter.high": 0.9,
    "data.train_batch_size": 64, "actor_rollout_ref.rollout.n": 8,
    "data.max_prompt_length": 8192, "data.max_response_length": 2048,
    "actor_rollout_ref.rollout.temperature": 0.9, "actor_rollout_ref.rollout.top_p": 0.99,
    "latent.kappa": 0.01, "trainer.total_epochs": 1, "trainer.total_training_steps": None,
    "actor_rollout_ref.actor.fsdp_config.dtype": "bfloat16", "actor_rollout_ref.rollout.dtype": "bfloat16",
    "actor_rollout_ref.model.lora_rank": 0,
}  # fmt: skip

# Arguments, and the devices of actor, rollout and reference they ask for; colocated, these share the actor's.
SHAPES = {
    ("--pools", "colocated"): (8, 0, 0),
    ("--pools", "colocated_async"): (8, 0, 0),
    ("--pools", "separate"): (4, 2, 2),
    ("--pools", "colocated", "--nodes", "4"): (32, 0, 0),
    ("--pools", "colocated_async", "--nodes", "4"): (32, 0, 0),
    ("--pools", "separate", "--nodes", "4"): (16, 8, 8),
}


def configs(recipe: str, *arguments: str) -> list[dict[str, Any]]:
    return [resolved(*each) for each in overrides(recipe, *arguments)]


def devices(config: dict[str, Any]) -> tuple[int, int, int]:
    pools = ("trainer", "actor_rollout_ref.rollout", "reference_pool")
    actor, rollout, reference = (config[f"{pool}.nnodes"] * config[f"{pool}.n_gpus_per_node"] for pool in pools)
    return actor, rollout, reference


def test_a_dry_run_prints_the_config_that_is_composed_here() -> None:
    shape = ("--pools", "separate", "--nodes", "4")
    assert dry_run("la_dapo_futurebench.sh", *shape) == configs("la_dapo_futurebench.sh", *shape)


@pytest.mark.parametrize("questions", QUESTIONS)
def test_the_recipes_are_table_9(questions: str) -> None:
    (config,) = configs(f"la_dapo_{questions}.sh")
    assert {key: config[key] for key in TABLE_9} == TABLE_9
    assert config["trainer.experiment_name"] == f"la_dapo_{questions}"
    # One update for each rollout batch.
    assert config["actor_rollout_ref.actor.ppo_mini_batch_size"] == 64


@pytest.mark.parametrize("shape", SHAPES, ids=" ".join)
@pytest.mark.parametrize("questions", QUESTIONS)
def test_every_shape_is_one_that_verl_takes(questions: str, shape: tuple[str, ...]) -> None:
    (given,) = overrides(f"la_dapo_{questions}.sh", *shape)
    config = resolved(*given)
    assert not [key for key, value in config.items() if isinstance(value, str) and "${" in value]
    assert devices(config) == SHAPES[shape]
    actor, rollout, reference = devices(config)
    answers = config["data.train_batch_size"] * config["actor_rollout_ref.rollout.n"]
    assert answers % actor == 0 and answers % (reference or actor) == 0
    assert (rollout or actor) % config["actor_rollout_ref.rollout.tensor_model_parallel_size"] == 0

    longest = config["data.max_prompt_length"] + config["data.max_response_length"]
    assert config["actor_rollout_ref.actor.use_dynamic_bsz"]
    for part in ("actor.ppo", "ref.log_prob", "rollout.log_prob"):
        assert config[f"actor_rollout_ref.{part}_max_token_len_per_gpu"] >= longest
    assert config["actor_rollout_ref.rollout.max_model_len"] == longest
    # What takes turns on a device leaves it to the others.
    together = config["trainer.v1.trainer_mode"] != "separate_async"
    assert config["actor_rollout_ref.actor.fsdp_config.param_offload"] == together
    assert config["actor_rollout_ref.rollout.free_cache_engine"] and config["actor_rollout_ref.hybrid_engine"] == together
    batches = 1 if together else config["trainer.v1.separate_async.parameter_sync_step"]
    assert config["data.train_batch_size"] == batches * config["actor_rollout_ref.actor.ppo_mini_batch_size"]

    tree = composed(*given)
    validate_config(tree, use_reference_policy=True, use_critic=False)
    for part in ("actor", "rollout"):
        omega_conf_to_dataclass(tree.actor_rollout_ref[part])


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("questions", QUESTIONS)
def test_an_ablation_changes_what_its_file_says(questions: str, ablation: str) -> None:
    (usual,), (config,) = (configs(f"la_dapo_{questions}.sh", "--ablation", name) for name in ("la_dapo", ablation))
    file = differences(*(resolved(f"ablation={name}", "trainer.default_local_dir=OUT") for name in ("la_dapo", ablation)))
    name = f"{ablation}_{questions}"
    assert differences(usual, config) == {key: name if key.endswith("experiment_name") else file[key] for key in file}
    assert config["trainer.experiment_name"] == name


def test_arguments_and_overrides_arrive() -> None:
    files = ["--model", MODEL, "--data", "d.parquet", "--val", "v.parquet", "--out", "runs/x"]
    more = ["data.seed=7", "--judge-url", "http://judge/v1", "--judge-model", "J", "trainer.save_freq=3"]
    (config,) = configs("la_dapo_twiff.sh", *files, *more)
    assert differences(configs("la_dapo_twiff.sh")[0], config) == {
        "actor_rollout_ref.model.path": MODEL, "data.train_files": "d.parquet", "data.val_files": "v.parquet",
        "actor_rollout_ref.rollout.prometheus.served_model_name": MODEL,
        "trainer.default_local_dir": "runs/x", "trainer.v1.sampler.sampler_kwargs.dropped_file": "runs/x/dropped_groups.jsonl",
        "data.manifest": "runs/x/skipped_rows.jsonl",
        "judge.url": "http://judge/v1", "judge.model": "J", "data.seed": 7, "trainer.save_freq": 3,
    }  # fmt: skip


def test_the_sweep_of_ablations_is_the_papers_table() -> None:
    found = configs("la_dapo_sweep.sh", "ablation", "--model", "M", "--text-model", "T", "--out", "runs")
    assert len(found) == len(ABLATIONS)
    for name, config in zip(ABLATIONS, found, strict=True):
        model = "T" if name.startswith("text_only") else "M"
        files = ["--model", model, "--out", f"runs/ablation_{name}"]
        assert [config] == configs("la_dapo_futurebench.sh", "--ablation", name, *files)


@pytest.mark.parametrize(("sweep", "key"), [("lambda_c", "rewards.contrastive"), ("lambda_d", "rewards.diversity")])
def test_the_sweeps_change_one_lambda(sweep: str, key: str) -> None:
    (usual,) = configs("la_dapo_futurebench.sh")
    for value, config in zip(LAMBDAS, configs("la_dapo_sweep.sh", sweep), strict=True):
        assert differences(usual, config) | {key: value} == {
            key: value,
            "trainer.experiment_name": f"la_dapo_futurebench_{sweep}_{value}",
            "actor_rollout_ref.rollout.trace.experiment_name": f"la_dapo_futurebench_{sweep}_{value}",
            "trainer.default_local_dir": f"OUT/{sweep}_{value}",
            "trainer.v1.sampler.sampler_kwargs.dropped_file": f"OUT/{sweep}_{value}/dropped_groups.jsonl",
            "data.manifest": f"OUT/{sweep}_{value}/skipped_rows.jsonl",
        }


@pytest.mark.parametrize("questions", QUESTIONS)
def test_adapters_need_one_gpu_and_change_nothing_else(questions: str) -> None:
    (usual,), (config,) = configs(f"la_dapo_{questions}.sh"), configs("la_dapo_lora.sh", questions)
    assert devices(config) == (1, 0, 0)
    changed = differences(usual, config)
    assert {key for key in changed if "n_gpus_per_node" not in key and "experiment_name" not in key} == {
        "actor_rollout_ref.model.lora_rank",
        "actor_rollout_ref.model.lora_alpha",
        "actor_rollout_ref.rollout.load_format",
        "actor_rollout_ref.actor.optim.lr",
    }


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("la_dapo_futurebench.sh", [], "--model, --data, --val and --out are needed"),
        ("la_dapo_futurebench.sh", ["--modle", "m"], "unknown argument --modle"),
        ("la_dapo_futurebench.sh", ["--model"], "--model needs a value"),
        ("la_dapo_futurebench.sh", ["--ablation", "ppo"], "no ablation ppo"),
        ("la_dapo_futurebench.sh", ["--ablation", "_text_only"], "no ablation _text_only"),
        ("la_dapo_futurebench.sh", ["--pools", "apart"], "--pools is"),
        ("la_dapo_futurebench.sh", ["--pools", "separate", "--nodes", "3"], "a multiple of four, not 3"),
        ("la_dapo_futurebench.sh", ["--pools", "separate", "--gpus", "6"], "divides its GPUs by four, not 6"),
        ("la_dapo_twiff.sh", ["--model", "m", "--data", "d", "--val", "v", "--out", "o"], "--judge-url and --judge-model"),
        ("la_dapo_qwen3vl8b.sh", ["--model", "m"], "start la_dapo_futurebench.sh or la_dapo_twiff.sh"),
        ("la_dapo_lora.sh", [], "usage"),
        ("la_dapo_lora.sh", ["twiff", "--pools", "separate"], "adapters do not reach"),
        ("la_dapo_sweep.sh", [], "usage"),
        ("la_dapo_sweep.sh", ["tau"], "usage"),
        ("la_dapo_sweep.sh", ["lambda_c", "--data", "d"], "--model and --out are needed"),
        ("la_dapo_sweep.sh", ["ablation", "--model", "m", "--out", "o"], "--text-model is needed"),
        ("la_dapo_sweep.sh", ["lambda_d", "--ablation", "dapo"], "the sweep chooses"),
    ],
)
def test_a_wrong_call_ends_before_anything_is_installed(recipe: str, arguments: list[str], message: str) -> None:
    done = run(recipe, *arguments)
    assert done.returncode == 1 and message in done.stderr and "environment" not in done.stdout


def test_a_dry_run_says_which_run_of_a_sweep_it_is() -> None:
    said = [line for line in printed("la_dapo_sweep.sh", "lambda_c", root=copy_of_recipes()).splitlines() if line[0] == "#"]
    assert said == [f"# lambda_c {value}: OUT/lambda_c_{value}" for value in LAMBDAS]
