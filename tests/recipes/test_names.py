"""Paths and names with any characters arrive as they are: at hydra, at Python, at Ray and at Slurm."""

import shlex
import subprocess
from pathlib import Path

import pytest
from dry_run import NASTY, ROOT, calls, copy_of_recipes, overrides, printed, run, values
from hypothesis import example, given
from hypothesis import strategies as st

SPECIAL = st.text(st.sampled_from("\\'\"${}[]() ,=#;&~*:a图\n\t"))
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(SPECIAL | ANY)
@example("${")
def test_a_quoted_value_is_that_value_to_hydra(value: str) -> None:
    script = 'source "$1" && printf %s "key=$(quoted "$2")"'
    done = subprocess.run(["bash", "-c", script, "-", ROOT / "recipes/functions.sh", value], capture_output=True, check=True)
    assert values([done.stdout.decode()]).key == value  # a DictConfig would take the expected dict for one of its own


def under(folder: str) -> list[str]:
    """Four paths."""
    return [f"{folder}/{name}" for name in ("model", "data", "val", "out")]


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    "recipe", [("sft_qwen3vl8b.sh",), ("sft_text_only.sh",), ("sft_sweep.sh", "lambda"), ("sft_sweep.sh", "l_max")]
)
def test_stage_1(recipe: tuple[str, ...], name: str) -> None:
    model, data, _, out = under(name)
    found = overrides(*recipe, "--model", model, "--data", data, "--out", out, "--master-addr", name)
    if recipe[0] != "sft_sweep.sh":
        expected = [(model, out)]
    elif recipe[1] == "lambda":
        expected = [(model, f"{out}/lambda_{value}") for value in ("0.01", "0.05", "0.1", "0.2", "0.5", "1.0")]
    else:
        expected = [(f"{out}/l_max_{value}/model", f"{out}/l_max_{value}") for value in (2, 4, 8, 16, 32, 64)]
    for config, (model, out) in zip(map(values, found), expected, strict=True):
        assert (config["model.path"], config["trainer.default_local_dir"]) == (model, out)
        assert (config["data.train_files"], config["trainer.master_addr"]) == (data, name)


def test_the_checkpoint_that_a_sweep_of_l_max_prepares() -> None:
    model, _, _, out = under(NASTY[0])
    lines = printed("sft_sweep.sh", "l_max", "--model", model, "--out", out, root=copy_of_recipes()).splitlines()
    commands = [shlex.split(line[2:]) for line in lines if "modeling.prepare" in line]
    prepared = [(f"{out}/l_max_{value}/model", str(value)) for value in (2, 4, 8, 16, 32, 64)]
    assert [command[3:] for command in commands] == [
        ["--model", model, "--out", to, "--max-latents", value] for to, value in prepared
    ]


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    "recipe",
    [
        ("la_dapo_futurebench.sh",),
        ("la_dapo_twiff.sh",),
        ("la_dapo_lora.sh", "twiff"),
        ("la_dapo_sweep.sh", "ablation"),
        ("la_dapo_sweep.sh", "lambda_d"),
    ],
)
def test_stage_2(recipe: tuple[str, ...], name: str) -> None:
    model, data, val, out = under(name)
    text_model = ["--text-model", model] if recipe[0] == "la_dapo_sweep.sh" else []
    files = ["--model", model, "--data", data, "--val", val, "--out", out, *text_model]
    for config in map(values, overrides(*recipe, *files, "--judge-url", f"http://{name}", "--judge-model", name)):
        assert config["actor_rollout_ref.model.path"] == model
        assert (config["data.train_files"], config["data.val_files"]) == (data, val)
        assert (config["judge.url"], config["judge.model"]) == (f"http://{name}", name)
        run_folder = config["trainer.default_local_dir"]
        assert run_folder == out or run_folder.startswith(f"{out}/{recipe[1]}_")


@pytest.mark.parametrize("name", NASTY)
def test_curation(name: str) -> None:
    model, data, val, out = under(name)
    files = ["--input", data, val, "--videos", name, "--model", model, "--out", out, "--benchmark", val, data]
    lines = printed("curate_future_l1_50k.sh", *files, "--benchmark-videos", name, model, root=copy_of_recipes()).splitlines()
    read, score, _, select, build = map(shlex.split, lines)
    assert read[3:] == ["read", "--input", data, val, "--videos", name, "--out", f"{out}/candidates.parquet"]
    assert score[score.index("--model") + 1] == model and build[-1] == f"{out}/data"
    place = select.index("--benchmark")
    assert select[place:] == ["--benchmark", val, data, "--benchmark-videos", name, model]


@pytest.mark.parametrize("name", NASTY)
def test_clusters(name: str) -> None:
    arguments = ["la_dapo_twiff.sh", "--model", name]
    *_, recipe = printed("slurm.sh", "--dry-run", *arguments, root=copy_of_recipes(name)).splitlines()
    assert shlex.split(recipe) == ["bash", f"recipes/{arguments[0]}", *arguments[1:], "--dry-run", "--nodes", "N"]
    root = copy_of_recipes(name)
    done = run("submit.sh", "--address", "http://head:8265", "--dry-run", *arguments, root=root)
    assert shlex.split(done.stdout)[7:] == [f"{root}/recipes/{arguments[0]}", *arguments[1:]]


@pytest.fixture(params=NASTY)
def root(request: pytest.FixtureRequest) -> Path:
    """A checkout whose own path has all of these characters."""
    return copy_of_recipes(request.param)


def test_the_quickstart_and_what_goes_on_from_it(root: Path) -> None:
    done = run("quickstart.sh", root=root)
    assert done.returncode == 0, done.stderr
    folder = f"{root}/runs/quickstart-synthetic-seed1"
    called = calls(root)
    sft, rl = (values(dict(called)[f"future_l1_verl.{stage}"]) for stage in ("sft", "rl"))
    assert (sft["model.path"], sft["trainer.default_local_dir"]) == (f"{folder}/tiny", f"{folder}/sft")
    for config, name in ((sft, "sft_train"), (rl, "train")):
        assert config["data.train_files"] == f"{folder}/data/{name}.parquet"
        assert config["data.val_files"] == f"{folder}/data/val.parquet"
    assert rl["actor_rollout_ref.model.path"] == f"{folder}/sft/global_step_220/huggingface"
    assert rl["trainer.default_local_dir"] == f"{folder}/rl"
    read = {arguments[arguments.index("--data") + 1] for _, arguments in called if arguments[:1] == ["run"]}
    assert read == {f"{folder}/data/test.parquet"}
    # Started again it has nothing to do; its folder is that of a quickstart, which curation goes on from.
    assert run("quickstart.sh", root=root).returncode == 0 and not calls(root)

    (Path(folder) / "sft/global_step_220/huggingface").mkdir(parents=True)
    done = run("curate_synthetic.sh", root=root)
    assert done.returncode == 0, done.stderr
    found = dict(calls(root))
    sft = values(found["future_l1_verl.sft"])
    assert (sft["model.path"], sft["data.train_files"]) == (
        f"{folder}/sft/global_step_220/huggingface",
        f"{folder}/data/sft_hints.parquet",
    )
    assert (sft["data.cache_dir"], sft["trainer.default_local_dir"]) == (f"{folder}/hints/frames", f"{folder}/hints")
    assert found["data_prep.curation"][:3] == ["recheck", "--selected", f"{folder}/curated/selected"]


@pytest.mark.parametrize("name", NASTY)
def test_the_study(name: str, root: Path, tmp_path: Path) -> None:
    """An arm brings what it starts from; what has a result is not done again."""
    arguments = ["--runs", str(tmp_path / name), "--results", str(tmp_path / "results"), "--seeds", "3"]
    done = run("study.sh", *arguments, "--arms", "dapo+ctr", root=root)
    assert done.returncode == 0, done.stderr
    folder = f"{tmp_path / name}/quickstart-synthetic-seed3"
    called = calls(root)
    sft, rl = (values(dict(called)[f"future_l1_verl.{stage}"]) for stage in ("sft", "rl"))
    assert (sft["model.path"], rl["ablation"]) == (f"{folder}/tiny", "dapo+ctr")
    assert rl["actor_rollout_ref.model.path"] == f"{folder}/sft/global_step_220/huggingface"
    found = tmp_path / "results/dapo+ctr-seed3.json"
    assert called[-1][1][-2:] == ["--out", str(found)]
    found.parent.mkdir()
    found.touch()
    assert run("study.sh", *arguments, "--arms", "dapo+ctr", root=root).returncode == 0 and not calls(root)
    assert run("study.sh", *arguments, "--arms", "dapo+crt", root=root).stderr.startswith("study.sh: there is no arm dapo+crt")


@pytest.mark.parametrize("name", NASTY)
def test_a_quickstart_s_folder(name: str, root: Path, tmp_path: Path) -> None:
    done = run("quickstart.sh", "--run", str(tmp_path / name), "--fresh", root=root)
    assert done.returncode == 0, done.stderr
    (sft,) = (values(arguments) for module, arguments in calls(root) if module == "future_l1_verl.sft")
    assert sft["trainer.default_local_dir"] == f"{tmp_path / name}/sft"


def test_the_stock_job(root: Path) -> None:
    done = run("stock_verl_rewards.sh", "--judge", "http://a b", NASTY[1], root=root)
    assert done.returncode == 0, done.stderr
    (config,) = (values(arguments) for module, arguments in calls(root) if module == "verl.trainer.main_ppo")
    folder, kwargs = f"{root}/runs/stock-verl-rewards", "reward.custom_reward_function.reward_kwargs"
    assert config["actor_rollout_ref.model.path"] == config[f"{kwargs}.tokenizer"] == f"{folder}/model"
    for part in ("train", "val"):
        assert config[f"data.{part}_files"] == f"{folder}/data/{part}.parquet"
    assert config["trainer.default_local_dir"] == f"{folder}/checkpoints"
    assert (config[f"{kwargs}.judge.url"], config[f"{kwargs}.judge.model"]) == ("http://a b", NASTY[1])
