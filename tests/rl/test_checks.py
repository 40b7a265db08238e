"""Bad input of both stages ends with a message before any worker starts."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.cli import main
from future_l1_verl.data.rows import RowError
from future_l1_verl.rl import checks as rl_checks
from future_l1_verl.sft import checks as sft_checks
from future_l1_verl.toy import tiny


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_set(folder / "data", Settings(train_questions=4, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(folder / "model")
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "run")
    return tmp_path / "run"


def config(stage: str, folder: Path, *overrides: str) -> DictConfig:
    model = "model.path" if stage == "sft" else "actor_rollout_ref.model.path"
    files = [f"data.train_files={folder}/data/train.parquet", f"data.val_files={folder}/data/val.parquet"]
    common = ["platform=cpu", f"{model}={folder}/model", *files, f"trainer.default_local_dir={folder}"]
    common.append("data.train_batch_size=8")
    with initialize_config_module(f"future_l1_verl.config.{stage}", version_base=None):
        return compose("main", overrides=[*common, *overrides])


def check_rl(config: DictConfig) -> None:
    rl_checks.take_as_trained(config)
    rl_checks.check(config)


POOL = ["reference_pool.nnodes=1", "reference_pool.n_gpus_per_node=1"]
TENSOR_PARALLEL = "actor_rollout_ref.rollout.tensor_model_parallel_size"
MINI_BATCH = "actor_rollout_ref.actor.ppo_mini_batch_size"
BF16 = "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16"
GAUSSIAN = ["latent.likelihood=gaussian", "latent.sigma=0.5", f"{MINI_BATCH}=8"]
BF16_GAUSSIAN = [*GAUSSIAN, BF16]
CHECK = {"sft": sft_checks.check, "rl": check_rl}


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_good_input_passes(stage: str, folder: Path) -> None:
    CHECK[stage](config(stage, folder))


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_checkpoint_without_the_tokens(stage: str, folder: Path) -> None:
    path = folder / "model/config.json"
    path.write_text(path.read_text().replace("latent_token_id", "something_else"))
    with pytest.raises(ValueError, match=r"config\.json lacks latent_token_id; add them with"):
        CHECK[stage](config(stage, folder))


@pytest.mark.parametrize(
    ("stage", "column", "message"),
    [
        ("sft", "reasoning_image", r"row 0: reasoning_images_index or recon_frames or reasoning_image is missing"),
        ("rl", "conversations", r"train\.parquet: (row 0: )?unknown form: "),
    ],
)
def test_a_parquet_without_a_needed_column(stage: str, column: str, message: str, folder: Path) -> None:
    path = folder / "data/train.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    with pytest.raises(RowError, match=message):
        CHECK[stage](config(stage, folder))


@pytest.mark.parametrize(("stage", "damage"), [("sft", "missing"), ("rl", "missing"), ("rl", "broken")])
def test_a_clip_that_cannot_be_read_is_named_with_its_row(stage: str, damage: str, folder: Path) -> None:
    """Stage 1 does not decode clips at the start: a broken one is skipped when its turn comes (tests/sft)."""
    row = pd.read_parquet(folder / "data/train.parquet").iloc[3]
    clip = folder / "data" / row["video"]
    if damage == "missing":
        clip.unlink()
    else:
        clip.write_bytes(clip.read_bytes()[:200])
    with pytest.raises(RowError, match=rf"train\.parquet: row \d+: .*{clip.name}"):
        CHECK[stage](config(stage, folder))


@pytest.mark.parametrize(
    ("stage", "override", "message"),
    [
        ("sft", "latent.weight=-0.1", "latent.weight"),
        ("sft", "latent.error=huber", "latent.error: should be 'mean', 'sum' or 'cosine', not 'huber'"),
        ("sft", "data.observed=gif", "data.observed: should be 'frames' or 'video', not 'gif'"),
        ("sft", "latent.targets=crop", "latent.targets: should be 'resize' or 'pool', not 'crop'"),
        ("sft", "data.max_bad_rate=1", "data.max_bad_rate: should be less than 1, not 1"),
        ("rl", "rewards.contrastive=-1", "rewards.contrastive"),
        ("rl", "rewards.temperature=0", "rewards.temperature: should be greater than 0"),
        ("rl", "latent.min_latents=5", "latent.min_latents must lie in 1..4"),
        ("rl", "latent.sigma=-1", "latent.sigma"),
        ("rl", "latent.sigma=0.5", "need each other"),
        ("rl", "latent.kappa=0", "vmf needs a positive kappa"),
        ("rl", "actor_rollout_ref.rollout.data_parallel_size=2", "= 1 cannot be divided by .*data_parallel_size=2"),
        ("rl", "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2", "= 1 cannot be divided by .*ulysses"),
        ("rl", "trainer.n_gpus_per_node=3", "512 answers cannot be divided among 3 actors"),
        ("rl", "latent_loss.ratio=both", "latent_loss.ratio: should be 'shared' or 'decoupled', not 'both'"),
        ("rl", "latent_loss.weight=-1", "latent_loss.weight: should be greater than or equal to 0, not -1"),
        ("rl", "rewards.shape=free", "rewards.shape: should be 'interleaved', "),
        ("rl", "rewards.overlong_buffer=0", "rewards.overlong_buffer: should be greater than 0"),
        ("rl", "advantage.normalise=both", "advantage.normalise: should be 'sum' or 'parts'"),
        ("rl", "group_filter.low=0.95", "group_filter: need low <= high"),
        ("rl", "group_filter.max_rounds=0", "group_filter.max_rounds"),
        ("rl", "parity.most_at_first=0", "parity.most_at_first: should be greater than 0"),
        ("rl", "latent.spans=false", "does not go with rewards.shape=interleaved"),
        ("rl", "algorithm.filter_groups.metric=reward", "algorithm.filter_groups.metric must be acc"),
        # docs/differences.md, row 20: a setting that would be ignored is refused.
        ("rl", "algorithm.adv_estimator=gae", "algorithm.adv_estimator must be la_dapo"),
        ("rl", "actor_rollout_ref.actor.policy_loss.loss_mode=gspo", "loss_mode must be la_dapo"),
        ("rl", "actor_rollout_ref.model.model_type=language_model", "model_type must be latent_language_model"),
        ("rl", "reward.custom_reward_function.path=mine.py", "reward.custom_reward_function.path must be None"),
        ("rl", "actor_rollout_ref.rollout.router_config_path=mine.yaml", "router_config_path must be None"),
        ("rl", "actor_rollout_ref.rollout.dtype=auto", "rollout.dtype is one of bfloat16, float16, float32, not auto"),
        ("rl", "actor_rollout_ref.rollout.dtype=int64", "rollout.dtype is one of bfloat16, float16, float32, not int64"),
        ("rl", "reward.reward_model.enable=true", "reward.reward_model.enable must be False"),
        ("rl", "actor_rollout_ref.rollout.n=1", "rollout.n must be at least 2"),
        ("rl", "actor_rollout_ref.actor.shuffle=true", "actor.shuffle must be False"),
        ("rl", "+actor_rollout_ref.model.override_config.rope_theta=1", r"model_config\.rope_theta"),
        ("sft", "+model.override_config.freeze_tower=false", "override_config.freeze_tower has no effect"),
        ("sft", "model.override_config.attn_implementation=eager", "is one of sdpa, flash_attention_2, not 'eager'"),
        ("sft", "model.use_remove_padding=false", "questions are always packed"),
    ],
)
def test_numbers_out_of_range(stage: str, override: str, message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        CHECK[stage](config(stage, folder, override))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["latent.likelihood=none", "latent_loss.ratio=decoupled"], "leaves nothing to decouple"),
        (["latent_loss.kl_coef=1", "actor_rollout_ref.actor.use_kl_loss=false"], "latent_loss.kl_coef > 0 needs a reference"),
        (["judge.url=judge:80", "judge.model=m"], "url must start with http"),
        (["trainer.n_gpus_per_node=3", f"{TENSOR_PARALLEL}=2"], "trainer.nnodes .* = 3 cannot be divided by .*=2"),
        (["pools=separate", f"{MINI_BATCH}=8", f"{TENSOR_PARALLEL}=3"], "rollout.nnodes .* = 8 cannot be divided by .*=3"),
        ([*BF16_GAUSSIAN, f"{MINI_BATCH}=4"], "gaussian in half precision needs a batch that is one update"),
        (
            [*BF16_GAUSSIAN, "actor_rollout_ref.actor.ppo_epochs=2"],
            "gaussian in half precision needs a batch that is one update",
        ),
        (["trainer.v1.trainer_mode=async"], "trainer_mode is one of sync, colocate_async, separate_async, not 'async'"),
        (
            ["actor_rollout_ref.hybrid_engine=false"],
            "hybrid_engine=false needs pools=separate, not trainer.v1.trainer_mode=sync",
        ),
        (["pools=separate", "reference_pool.nnodes=1"], "reference_pool: nnodes=.*: both, or none, are 0"),
        (["pools=separate", "reference_pool.n_gpus_per_node=1"], "reference_pool: nnodes=.*: both, or none, are 0"),
        (POOL, "reference_pool needs pools=separate"),
        (["pools=separate", *POOL, "actor_rollout_ref.hybrid_engine=true"], "and .*hybrid_engine=false"),
        (["pools=separate", *POOL, "actor_rollout_ref.model.lora_rank=8"], "with LoRA it is the actor"),
        (["pools=separate", *POOL, "actor_rollout_ref.model.lora.rank=8"], "with LoRA it is the actor"),
        (["pools=separate", *POOL, "actor_rollout_ref.actor.use_kl_loss=false"], "without a KL there is none"),
        (["pools=separate", "actor_rollout_ref.actor.strategy=fsdp"], "actor.strategy=fsdp2"),
        (["pools=separate", "actor_rollout_ref.model.lora_rank=8"], "sends a rollout no adapters"),
        (["pools=separate", "data.train_batch_size=100"], r"train_batch_size must be .* = 1 \* 64, not 100"),
        (
            ["judge.url=http://judge", "judge.model=m", "judge.prompt={folder}/prompt.txt"],
            r"prompt.txt: the prompt has no {truth}",
        ),
    ],
)
def test_settings_that_do_not_go_together(overrides: list[str], message: str, folder: Path) -> None:
    (folder / "prompt.txt").write_text("{question} {answer}")
    with pytest.raises(ValueError, match=message):
        CHECK["rl"](config("rl", folder, *[override.format(folder=folder) for override in overrides]))


@pytest.mark.parametrize(
    "overrides",
    [
        BF16_GAUSSIAN,
        [*GAUSSIAN, f"{MINI_BATCH}=4"],
        [BF16, f"{MINI_BATCH}=4"],
    ],
    ids=["one update", "fp32", "vmf"],
)
def test_a_density_that_rounding_cannot_move_passes(overrides: list[str], folder: Path) -> None:
    CHECK["rl"](config("rl", folder, *overrides))


@pytest.mark.parametrize("pools", ["colocated", "colocated_async", "separate"])
@pytest.mark.parametrize(("nodes", "gpus"), [(1, 1), (1, 2), (1, 4), (1, 8), (4, 8)])
def test_a_cluster_of_any_size_needs_no_other_setting(nodes: int, gpus: int, pools: str, folder: Path) -> None:
    """The rollout has as many devices as the actor, or as many of its own."""
    size = [f"trainer.nnodes={nodes}", f"trainer.n_gpus_per_node={gpus}"]
    if pools == "separate":
        size += [f"actor_rollout_ref.rollout.nnodes={nodes}", f"actor_rollout_ref.rollout.n_gpus_per_node={gpus}"]
        size.append(f"{MINI_BATCH}=8")
    cluster = config("rl", folder, "platform=cuda", f"pools={pools}", *size)
    CHECK["rl"](cluster)
    assert rl_checks.devices(cluster) == nodes * gpus * (2 if pools == "separate" else 1)


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_key_that_does_not_exist(stage: str, folder: Path) -> None:
    with pytest.raises(ConfigCompositionException, match=r"latent\.wieght"):
        config(stage, folder, "latent.wieght=0.1")


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_key_left_open(stage: str) -> None:
    """verl has defaults for these, of files that nobody has."""
    with (
        initialize_config_module(f"future_l1_verl.config.{stage}", version_base=None),
        pytest.raises(ValueError, match=r"model\.path is needed"),
    ):
        CHECK[stage](compose("main", overrides=["platform=cpu"]))


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_videos_on_a_backbone_whose_engines_disagree_on_them(stage: str, folder: Path) -> None:
    path = folder / "model/config.json"
    path.write_text(path.read_text().replace('"model_type": "qwen3_vl",', '"model_type": "qwen2_5_vl",'))
    with pytest.raises(ValueError, match=r"Qwen2\.5-VL: .* use data\.observed=frames"):
        CHECK[stage](config(stage, folder, "data.observed=video"))


def test_an_answer_that_is_no_option(folder: Path) -> None:
    path = folder / "data/train.parquet"
    rows = pd.read_parquet(path)
    rows.loc[2, "answer"] = "the ceiling"
    said = rows.loc[2, "conversations"][1]
    said["value"] = re.sub("<answer>.*</answer>", "<answer>the ceiling</answer>", said["value"])
    rows.to_parquet(path)
    with pytest.raises(RowError, match=r"train\.parquet: row 2: no option is the answer: .*'the ceiling'"):
        CHECK["rl"](config("rl", folder))


@pytest.mark.parametrize("stage", ["sft", "rl"])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train_batch_size=17"], r"data\.train_files: 16 usable rows, fewer than a batch: data\.train_batch_size=17"),
        (["data.train_max_samples=7"], r"data\.train_files: 7 usable rows, fewer than a batch: data\.train_batch_size=8"),
    ],
)
def test_fewer_rows_than_a_batch(stage: str, overrides: list[str], message: str, folder: Path) -> None:
    assert len(pd.read_parquet(folder / "data/train.parquet")) == 16
    with pytest.raises(ValueError, match=message):
        CHECK[stage](config(stage, folder, *overrides))


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_fewer_rows_than_a_batch_once_the_bad_ones_are_left_out(stage: str, folder: Path) -> None:
    path = folder / "data/train.parquet"
    rows = pd.read_parquet(path)
    (folder / "data" / rows.loc[0, "video"]).unlink()
    left = int((rows["video"] != rows.loc[0, "video"]).sum())
    batches = [f"data.train_batch_size={size}" for size in (left, left + 1)]
    CHECK[stage](config(stage, folder, "data.max_bad_rate=0.5", batches[0]))
    with pytest.raises(ValueError, match=rf"{left} usable rows, fewer than a batch: {batches[1]}"):
        CHECK[stage](config(stage, folder, "data.max_bad_rate=0.5", batches[1]))


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_bad_rows_of_training_do_not_count_for_validation(stage: str, folder: Path) -> None:
    path = folder / "data/train.parquet"
    rows = pd.read_parquet(path)
    (folder / "data" / rows.loc[0, "video"]).unlink()
    bad = (rows["video"] == rows.loc[0, "video"]).mean()
    val = folder / "data/val.parquet"
    pd.read_parquet(val).head(1).to_parquet(val)
    CHECK[stage](config(stage, folder, f"data.max_bad_rate={bad}"))


@pytest.mark.parametrize("stage", ["sft", "rl"])
@pytest.mark.parametrize("what", ["data", "videos", "model", "tokenizer", "processor", "configuration"])
def test_what_is_missing_or_damaged_ends_the_command_with_a_line(
    stage: str, what: str, folder: Path, capfd: pytest.CaptureFixture
) -> None:
    model = "model.path" if stage == "sft" else "actor_rollout_ref.model.path"
    data = folder / "data/train.parquet"
    words = [
        "platform=cpu", f"{model}={folder}/model", f"data.train_files={data}", f"data.val_files={data}",
        f"trainer.default_local_dir={folder}/out",
    ]  # fmt: skip
    match what:
        case "data":
            data.unlink()
            named = f"{data}: no such file"
        case "videos":
            words.append(f"data.videos={folder}/clips.csv")
            named = f"{folder}/clips.csv: is neither a folder nor a file"
        case "model":
            shutil.rmtree(folder / "model")
            named = f"{folder}/model"
        case "tokenizer":
            for file in (folder / "model").glob("tokenizer*"):
                file.unlink()
            named = "the tokenizer lacks <|latent_start|>"
        case "processor":  # which transformers reports as a plain OSError
            for file in (folder / "model").glob("*processor*"):
                file.unlink()
            named = f"{folder}/model"
        case "configuration":
            (folder / "model/config.json").write_text("{")
            named = "config.json"
    status = main([stage, *words])
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("future-l1 ")]
    assert status == 2
    assert len(said) == 1 and said[0].startswith(f"future-l1 {stage}: ") and named in said[0]
    assert not (folder / "out").exists()
