"""What each recipe of stage 1 would run, as its ``--dry-run`` prints it; no GPU, data or model is there."""

from pathlib import Path
from typing import Any

import pytest
from dry_run import NASTY, ROOT, calls, copy_of_recipes, differences, dry_run, overrides, printed, resolved, run
from omegaconf import DictConfig, OmegaConf

from future_l1_verl.sft.start import torchrun_arguments

# Paper, Table 8.
TABLE_8: dict[str, Any] = {
    "optim.optimizer": "AdamW", "optim.lr": 1e-5, "optim.betas": [0.9, 0.95], "optim.weight_decay": 0.1, "optim.clip_grad": 1.0,
    "optim.lr_scheduler_type": "cosine", "optim.lr_warmup_steps_ratio": 0.1, "optim.min_lr_ratio": 0.0,
    "data.train_batch_size": 128, "data.max_length": 16384, "data.video_frames": 16, "data.text_only": False,
    "trainer.total_epochs": 1, "trainer.total_training_steps": None,
    "engine.dtype": "bfloat16", "latent.weight": 0.1, "latent.error": "mean",
    "latent.freeze_tower": True, "latent.freeze_merger": True, "model.lora_rank": 0,
}  # fmt: skip

MODEL = f"/models/{NASTY[0]}/{NASTY[1]}"
SWEEPS = {"lambda": ["0.01", "0.05", "0.1", "0.2", "0.5", "1.0"], "l_max": ["2", "4", "8", "16", "32", "64"]}


def configs(recipe: str, *arguments: str) -> list[dict[str, Any]]:
    return [resolved(*each, stage="sft") for each in overrides(recipe, *arguments)]


def test_a_dry_run_prints_the_config_that_is_composed_here() -> None:
    assert dry_run("sft_qwen3vl8b.sh") == configs("sft_qwen3vl8b.sh")


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "recipes").glob("sft_*.sh")))
def test_each_recipe_says_what_it_would_run(recipe: str) -> None:
    arguments = ["lambda"] if recipe == "sft_sweep.sh" else []
    for config in configs(recipe, *arguments):
        assert (config["trainer.n_gpus_per_node"], config["trainer.nnodes"], config["trainer.device"]) == (8, 1, "cuda")
        assert config["data.train_files"] == "DATA"
        # verl ends a run at a row that is longer than a micro-batch may be.
        assert config["data.use_dynamic_bsz"] and config["data.max_token_len_per_gpu"] >= config["data.max_length"]
        assert not [key for key, value in config.items() if isinstance(value, str) and "${" in value]


def test_the_8b_recipe_is_table_8() -> None:
    (config,) = configs("sft_qwen3vl8b.sh")
    assert {key: config[key] for key in TABLE_8} == TABLE_8


def test_arguments_and_overrides_arrive() -> None:
    files = ["--model", MODEL, "--data", "d.parquet", "--out", "runs/x"]
    nodes = ["--nnodes", "4", "--node-rank", "3", "--master-addr", "10.0.0.1", "--master-port", "1234"]
    (config,) = dry_run("sft_qwen3vl8b.sh", *files, "optim.lr=2e-5", *nodes, "data.val_files=[v1,v2]", "trainer.save_freq=7")
    assert differences(configs("sft_qwen3vl8b.sh")[0], config) == {
        "model.path": MODEL, "data.train_files": "d.parquet", "trainer.default_local_dir": "runs/x",
        "data.manifest": "runs/x/skipped_rows.jsonl", "optim.lr": 2e-5, "data.val_files": ["v1", "v2"],
        "trainer.save_freq": 7, "trainer.nnodes": 4, "trainer.node_rank": 3, "trainer.master_addr": "10.0.0.1",
        "trainer.master_port": 1234,
    }  # fmt: skip


def test_the_control_differs_in_its_own_keys_alone() -> None:
    (control,) = configs("sft_text_only.sh")
    prompt = OmegaConf.load(ROOT / "future_l1_verl/config/system_prompts.yaml").text_only
    assert differences(configs("sft_qwen3vl8b.sh")[0], control) == {
        "data.text_only": True,
        "data.system_prompt": prompt,
        "model.override_config.model_config.trained_system_prompt": prompt,
        "trainer.experiment_name": "sft_text_only",
    }


def test_the_sweep_of_lambda_is_table_3s() -> None:
    (usual,) = configs("sft_qwen3vl8b.sh")
    found = configs("sft_sweep.sh", "lambda")
    assert [config["latent.weight"] for config in found] == [float(value) for value in SWEEPS["lambda"]]
    for value, config in zip(SWEEPS["lambda"], found, strict=True):
        # The section latent goes to the engine as well.
        weight = {key: float(value) for key in ("latent.weight", "model.override_config.latent.weight")}
        assert differences(usual, config) | weight == weight | {
            "trainer.experiment_name": f"sft_lambda_{value}",
            "trainer.default_local_dir": f"OUT/lambda_{value}",
            "data.manifest": f"OUT/lambda_{value}/skipped_rows.jsonl",
        }


def test_the_sweep_of_l_max_is_table_3s_and_prepares_a_checkpoint_for_each() -> None:
    (usual,) = configs("sft_qwen3vl8b.sh")
    for value, config in zip(SWEEPS["l_max"], configs("sft_sweep.sh", "l_max"), strict=True):
        assert differences(usual, config) == {
            "model.path": f"OUT/l_max_{value}/model",
            "trainer.experiment_name": f"sft_l_max_{value}",
            "trainer.default_local_dir": f"OUT/l_max_{value}",
            "data.manifest": f"OUT/l_max_{value}/skipped_rows.jsonl",
        }
        said = printed("sft_sweep.sh", "l_max", root=copy_of_recipes())
        assert f"modeling.prepare --model MODEL --out OUT/l_max_{value}/model --max-latents {value}\n" in said


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("sft_qwen3vl8b.sh", [], "--model, --data and --out are needed"),
        ("sft_qwen3vl8b.sh", ["--modle", "m"], "unknown argument --modle"),
        ("sft_qwen3vl8b.sh", ["--model"], "--model needs a value"),
        ("sft_text_only.sh", ["--data", "d"], "--model, --data and --out are needed"),
        ("sft_sweep.sh", [], "usage"),
        ("sft_sweep.sh", ["tau"], "usage"),
        ("sft_sweep.sh", ["l_max", "--data", "d"], "--model and --out are needed"),
    ],
)
def test_a_wrong_call_ends_before_anything_is_installed(recipe: str, arguments: list[str], message: str) -> None:
    done = run(recipe, *arguments)
    assert done.returncode == 1 and message in done.stderr and not done.stdout


def test_a_sweep_goes_on_with_the_values_that_are_not_done(tmp_path: Path) -> None:
    root = copy_of_recipes()
    arguments = ("lambda", "--model", "M", "--data", "D", "--out", str(tmp_path), "platform=cpu")
    for value in SWEEPS["lambda"]:
        (tmp_path / f"lambda_{value}").mkdir()  # as a run does; the stand-in for Python makes nothing
    for value in ("0.01", "0.2"):
        (tmp_path / f"lambda_{value}/finished").touch()
    calls(root)

    def launched(*more: str) -> tuple[int, list[str]]:
        """Exit status, and the values that were begun."""
        done = run("sft_sweep.sh", *arguments, *more, root=root)
        given = [override for _, arguments in calls(root) for override in arguments]
        return done.returncode, [each.removeprefix("latent.weight=") for each in given if each.startswith("latent.weight")]

    assert launched("fail=yes") == (1, ["0.05"])
    assert launched() == (0, ["0.05", "0.1", "0.5", "1.0"])
    assert launched() == (0, [])
    assert launched("--dry-run") == (0, [])


def cluster(**changes: object) -> DictConfig:
    alone = {"n_gpus_per_node": 8, "nnodes": 1, "node_rank": 0, "master_addr": None, "master_port": 29500}
    return OmegaConf.create(alone | changes)


def test_how_torchrun_is_started() -> None:
    assert torchrun_arguments(cluster()) == ["--standalone", "--nproc-per-node=8"]
    arguments = torchrun_arguments(cluster(nnodes=2, node_rank=1, master_addr="head"))
    expected = ["--nnodes=2", "--node-rank=1", "--master-addr=head", "--master-port=29500", "--nproc-per-node=8"]
    assert arguments == expected
    for changes in ({"node_rank": 1}, {"nnodes": 0}, {"nnodes": 2, "node_rank": 2, "master_addr": "head"}):
        with pytest.raises(ValueError, match="node_rank must lie in 0 to"):
            torchrun_arguments(cluster(**changes))
    with pytest.raises(ValueError, match=r"needs trainer\.master_addr"):
        torchrun_arguments(cluster(nnodes=2))
