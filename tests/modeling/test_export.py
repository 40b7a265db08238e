import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from future_l1_verl.cli import main
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.export import export, find, find_best
from future_l1_verl.modeling.prepare import INDEX, SINGLE
from future_l1_verl.toy.tiny import build

PROMPT = "The ball hits the wall. <|latent_start|>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    build(out, max_latents=3)
    return out


@pytest.fixture
def source(tmp_path: Path, tiny: Path) -> Path:
    """What verl leaves of a training on GPUs."""
    out = tmp_path / "run/global_step_8/huggingface"
    shutil.copytree(tiny, out)
    change_config(out, attn_implementation="flash_attention_2")
    return out


@pytest.fixture(scope="module")
def with_lora(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[tuple[Path, Tensor]]:
    """A checkpoint written by verl where adapters were trained, and the logits of the model at that time."""
    pytest.importorskip("verl", reason="this set of versions has no verl")
    from peft import LoraConfig, get_peft_model
    from verl.trainer.config import CheckpointConfig
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    out = tmp_path_factory.mktemp("lora") / "global_step_8"
    torch.distributed.init_process_group("gloo", init_method=f"file://{out.parent}/rendezvous", rank=0, world_size=1)
    adapters = LoraConfig(r=4, lora_alpha=10, target_modules="all-linear", exclude_modules=".*visual.*", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(tiny), adapters)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    settings = CheckpointConfig(save_contents=["model", "hf_model"])
    manager = FSDPCheckpointManager(model, processing_class=AutoProcessor.from_pretrained(tiny), checkpoint_config=settings)
    manager.save_checkpoint(str(out), global_step=8)
    torch.distributed.destroy_process_group()
    yield out / "huggingface", logits_of(model, out / "huggingface")


def logits_of(model: nn.Module, checkpoint: Path) -> Tensor:
    processor = AutoProcessor.from_pretrained(checkpoint)
    with torch.no_grad():
        return model.eval()(**processor(text=[PROMPT], return_tensors="pt")).logits


def logits(checkpoint: Path) -> Tensor:
    return logits_of(AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32), checkpoint)


def change_config(checkpoint: Path, without: str | None = None, **changes: object) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | changes
    config.pop(without, None)
    (checkpoint / "config.json").write_text(json.dumps(config))


def split(checkpoint: Path, shards: int) -> None:
    """Deals the tensors of a checkpoint out to several files."""
    tensors = load_file(checkpoint / SINGLE)
    names = {f"model-{i + 1:05}-of-{shards:05}.safetensors": sorted(tensors)[i::shards] for i in range(shards)}
    for file, part in names.items():
        save_file({name: tensors[name] for name in part}, checkpoint / file, metadata={"format": "pt"})
    (checkpoint / SINGLE).unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, part in names.items() for name in part}}
    (checkpoint / INDEX).write_text(json.dumps(index))


def test_it_loads_anywhere_and_says_what_the_source_says(tmp_path: Path, source: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "future_l1_verl.modeling.export", "--run", source.parents[1], "--step", "8", "--out", out]
    subprocess.run(command, check=True)
    assert torch.equal(logits(out), logits(tiny))
    assert LatentSettings.from_checkpoint(out) == LatentSettings.from_checkpoint(tiny)
    config = json.loads((out / "config.json").read_text())
    assert config == json.loads((tiny / "config.json").read_text())
    assert config["text_config"]["architectures"] == ["Qwen3ForCausalLM"]
    assert {file.name for file in out.iterdir()} == {file.name for file in source.iterdir()}
    assert (out / SINGLE).samefile(source / SINGLE)


def test_what_vllm_needs_is_added_where_a_run_began_without_it(tmp_path: Path, source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    del config["text_config"]["architectures"]
    change_config(source, text_config=config["text_config"])
    export(source, tmp_path / "out")
    exported = json.loads((tmp_path / "out/config.json").read_text())
    assert exported["text_config"]["architectures"] == ["Qwen3ForCausalLM"]


@pytest.mark.parametrize("shards", [1, 3])
def test_adapters_are_merged(tmp_path: Path, with_lora: tuple[Path, Tensor], shards: int) -> None:
    source, expected = tmp_path / "step/huggingface", with_lora[1]
    shutil.copytree(with_lora[0].parent, source.parent)
    if shards > 1:
        split(source, shards)
    export(source, tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out"), expected, atol=1e-4, rtol=0)


def test_adapters_of_unknown_scale_are_refused(tmp_path: Path, with_lora: tuple[Path, Tensor]) -> None:
    shutil.copytree(with_lora[0].parent, tmp_path / "step")
    meta = tmp_path / "step/lora_train_meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"lora_alpha": 0}))
    with pytest.raises(ValueError, match=r"lora_train_meta\.json has no lora_alpha"):
        export(tmp_path / "step/huggingface", tmp_path / "out")
    meta.unlink()
    with pytest.raises(FileNotFoundError, match=r"lora_train_meta\.json"):
        export(tmp_path / "step/huggingface", tmp_path / "out")


def drop_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / SINGLE)
    del tensors["model.language_model.norm.weight"]
    save_file(tensors, checkpoint / SINGLE, metadata={"format": "pt"})


def lose_a_shard(checkpoint: Path) -> None:
    split(checkpoint, 3)
    (checkpoint / "model-00002-of-00003.safetensors").unlink()


def cut_off(checkpoint: Path) -> None:
    (checkpoint / SINGLE).write_bytes((checkpoint / SINGLE).read_bytes()[:-1])


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        file: (lambda checkpoint, file=file: (checkpoint / file).unlink(), rf"huggingface lacks .*{file}")
        for file in (
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "processor_config.json",
        )
    },
    "chat template": (lambda checkpoint: (checkpoint / "chat_template.jinja").unlink(), r"chat_template\.jinja"),
    "weights": (lambda checkpoint: (checkpoint / SINGLE).unlink(), r"neither model\.safetensors nor"),
    "shard": (lose_a_shard, r"lacks model-00002-of-00003\.safetensors"),
    "bytes": (cut_off, r"model\.safetensors is not a whole safetensors file"),
    "tensor": (drop_tensor, r"missing: model\.language_model\.norm\.weight"),
    "budget": (lambda checkpoint: change_config(checkpoint, without="max_latents"), r"config\.json lacks max_latents"),
    "token": (lambda checkpoint: change_config(checkpoint, latent_token_id=3), r"config\.json has .*the tokenizer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_with_something_missing_is_refused_by_name(tmp_path: Path, source: Path, case: str) -> None:
    damage, message = REFUSED[case]
    damage(source)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def step_folder(run: Path, step: int, folder: str) -> Path:
    path = run / f"global_step_{step}" / folder
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("folder", ["huggingface", "actor/huggingface"])
def test_the_last_or_a_given_step_of_either_stage(tmp_path: Path, folder: str) -> None:
    ten, twenty, unfinished = (step_folder(tmp_path, step, folder) for step in (10, 20, 30))
    with pytest.raises(FileNotFoundError, match=r"latest_checkpointed_iteration\.txt"):
        find(tmp_path)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
    assert find(tmp_path) == twenty and unfinished.is_dir()
    assert find(tmp_path, 10) == ten
    with pytest.raises(FileNotFoundError, match=r"global_step_15 .*\[10, 20, 30\]"):
        find(tmp_path, 15)


def test_the_best_is_what_stage_1_kept_as_such(tmp_path: Path) -> None:
    step_folder(tmp_path, 10, "huggingface")
    with pytest.raises(FileNotFoundError, match=r"no best/huggingface: .* its steps are \[10\]"):
        find_best(tmp_path)
    (tmp_path / "best/huggingface").mkdir(parents=True)
    assert find_best(tmp_path) == tmp_path / "best/huggingface"


@pytest.mark.parametrize("text", ["", "\n", "latest", "-1", "8.0"])
def test_a_tracker_without_a_step_is_refused_with_the_steps_that_are_there(tmp_path: Path, text: str) -> None:
    for step in (10, 8):
        step_folder(tmp_path, step, "huggingface")
    for other in ("global_step_tmp", "global_step_", "global_step_12.partial"):
        (tmp_path / other).mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(text)
    with pytest.raises(ValueError, match=r"latest_checkpointed_iteration\.txt holds .* of \[8, 10\]"):
        find(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"its steps are \[8, 10\]"):
        find(tmp_path, 9)


@pytest.mark.parametrize(
    ("files", "more"),
    [
        ({}, []),
        ({}, ["--best"]),
        ({}, ["--step", "3"]),
        ({"latest_checkpointed_iteration.txt": ""}, []),
        ({"latest_checkpointed_iteration.txt": "7"}, []),
        ({"global_step_7/huggingface/config.json": "{}"}, ["--step", "7"]),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], more: list[str]
) -> None:
    for name, text in ({"global_step_tmp/x": ""} | files).items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(text)
    assert main(["export", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "run") in line
