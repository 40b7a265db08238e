"""The benchmarks in their smallest form: that both sides do the same work, and latents are part of it. No times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu import run

pytestmark = pytest.mark.engine

SMALL = {
    "decode_vs_hf": "--batch 4 --rounds 1 --alone 1 --max-tokens 24",
    "transport": "--answers 4 --latents 2 --rounds 1",
    "actor_step": "--rows 2 --length 64 --rounds 1",
}
# Those with verl's engine come last: it changes classes of transformers.
ORDER = (
    *("decode_vs_hf", "transport", "shared_question", "attention_kernels", "engine_speed"),
    *("actor_step", "density_rounding", "engine_parity", "packed_rows", "update_memory", "reference_offload"),
)
# One after the other in one process, whose imports take longest.
IN_ONE_PROCESS = """
import json, runpy, sys
if __name__ == "__main__":
    for script, arguments in json.loads(sys.argv[1]):
        sys.argv = [script, *arguments]
        print(f"benchmark {script}")
        runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns, by name, the results of a CPU's benchmarks in their smallest form, and of the phases for a GPU in their form
    for a CPU. The phase that trains is left out."""
    from future_l1_verl.toy import tiny

    out, phases, given = tmp_path_factory.mktemp("benchmarks"), Path(run.__file__).parent / "phases", []
    tiny.build(out / "model")
    for name in ORDER:
        if small := SMALL.get(name):
            model = [] if name == "transport" else ["--model", str(out / "model")]
            given.append((str(phases.parents[1] / f"{name}.py"), [*small.split(), *model]))
        else:
            given.append((str(phases / f"{name}.py"), ["--cpu", "--out", str(out / f"{name}.json")]))
    (out / "all.py").write_text(IN_ONE_PROCESS)
    printed = subprocess.run(
        [sys.executable, str(out / "all.py"), json.dumps(given)],
        check=True,
        timeout=1600,
        stdout=subprocess.PIPE,
        text=True,
        env=run.environment(cpu=True, out=out),
    ).stdout
    parts = printed.split("benchmark ")[1:]
    lines = {Path(part.split()[0]).stem: [line for line in part.splitlines() if line.startswith("{")] for part in parts}
    return {name: json.loads(lines[name][-1] if name in SMALL else (out / f"{name}.json").read_text()) for name in ORDER}


def test_packed_and_padded_rows_agree(measured: dict[str, Any]) -> None:
    cells = measured["packed_rows"]["cells"]
    for cell in (cells["bf16"], cells["fp32"]):
        assert cell["rows"] == 8 and cell["scored"] == 2 * (17 + 20 + 23 + 28) and cell["latents"] > 0
    assert all(gap["max"] < 1e-5 for gap in cells["fp32"]["log_prob_gap"].values())
    assert cells["fp32"]["gradient_error"] < 1e-5
    # The control: what bf16 rounds is seen.
    assert all(gap["mean"] > 1e-4 for gap in cells["rounding"].values())
    assert all(gap["mean"] < cells["rounding"]["alone"]["mean"] for gap in cells["bf16"]["log_prob_gap"].values())


def test_memory_is_that_of_longer_and_longer_updates(measured: dict[str, Any]) -> None:
    cells = measured["update_memory"]["cells"].values()
    assert [cell["tokens"] for cell in cells] == [256, 512]
    assert all(cell["scored"] == cell["tokens"] // 2 and cell["above_bytes"] >= 0 for cell in cells)


def test_ways_to_compute_a_question_agree(measured: dict[str, Any]) -> None:
    (cell,) = measured["shared_question"]["cells"].values()
    assert len(cell["seconds"]) == len(cell["peak_bytes"]) == 3
    assert all(error < 1e-4 for errors in cell["agreement"].values() for error in errors.values())


def test_an_untied_model_is_the_same_wherever_its_weights_are(measured: dict[str, Any]) -> None:
    cells = measured["reference_offload"]["cells"]
    assert cells["reference"]["scored"] == 160 and cells["reference"]["gap_to_actor"]["max"] < 1e-6
    first, second = cells["updates"]["kept"]["losses"]
    assert first != second  # the first update changed something
    assert cells["updates"]["gap"] < 1e-6


def test_kernels_of_attention_are_measured_where_they_are(measured: dict[str, Any]) -> None:
    found = measured["attention_kernels"]
    (cell,) = found["cells"].values()
    assert cell["tokens"] == 40 + 41 and max(cell["relative_error"].values()) < 1e-6
    assert found["skipped"] == {"flash_attention_2, 40/10 n=4": "flash-attn needs a GPU"}


def test_the_gaussian_magnifies_rounding_and_vmf_does_not(measured: dict[str, Any]) -> None:
    cells = measured["density_rounding"]["cells"]
    worst = {
        (precision, family): max(gap["max"] for gap in cells[precision][family].values())
        for precision in ("bf16", "fp32")
        for family in ("gaussian", "vmf")
    }
    assert worst["bf16", "gaussian"] > 100 * worst["fp32", "gaussian"]
    assert worst["bf16", "vmf"] < 1e-5


def test_rollout_and_actor_agree_though_latents_are_injected_again(measured: dict[str, Any]) -> None:
    found = measured["engine_parity"]
    cell = found["cells"]["eager"]
    assert cell["answers"] == 8 and cell["text_tokens"] > 0 and cell["latents"] > 0 and cell["reinjected"] > 0
    assert cell["text_gap"]["max"] < 1e-4 and cell["latent_gap"] < 1e-4
    assert found["skipped"].keys() == {"graphs", "graphs, async"}  # a CPU has neither


def test_both_engines_write_as_much(measured: dict[str, Any]) -> None:
    cell = measured["engine_speed"]["cells"]["batch 2"]
    assert cell["tokens"] == {"latent": 2 * 2 * 32, "text": 2 * 2 * 32}
    assert cell["latent_share"] > 0.1


def test_steps_of_both_engines_are_counted(measured: dict[str, Any]) -> None:
    cells = measured["engine_speed"]["cells"]
    latent, text = cells["step of latent"], cells["step of text"]
    for step in (latent, text):
        assert step["steps"] == 20 and step["kinds"] == ["cpu_op"]
        named = sum(each["number"] for each in step["top"])
        assert 0 < named <= step["operations"]
        assert 0 < sum(each["microseconds"] for each in step["top"]) <= step["microseconds"]
    assert text["operations"] < latent["operations"]


@pytest.mark.parametrize("cpu", [True, False])
def test_a_run_of_stage_2_takes_the_settings_of_its_phase(cpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(run.__file__).parent)  # as run.py starts it
    from hydra import compose, initialize_config_module
    from phases.stage_2 import settings

    from data_prep.toy.synthetic.writing import Settings, write_set
    from future_l1_verl.rl.checks import check, take_as_trained
    from future_l1_verl.toy import tiny

    tiny.build(tmp_path / "model")
    write_set(tmp_path / "data", Settings(train_questions=16, val_questions=2, test_questions=2), lambda items, label: items)
    with initialize_config_module("future_l1_verl.config.rl", version_base=None):
        config = compose("main", overrides=settings(tmp_path / "model", tmp_path / "data", tmp_path / "out", cpu))
    take_as_trained(config)
    check(config)
    assert config.trainer.device == ("cpu" if cpu else "cuda")


def test_all_decoders_write_the_same(measured: dict[str, Any]) -> None:
    found = measured["decode_vs_hf"]
    assert found["latent_share"] > 0.1
    assert found["answers"] == {"vLLM": 4, "cached, one batch": 4, "cached, one at a time": 1, "oracle": 1}
    assert set(found["different_answers"].values()) == {0}


def test_steps_are_of_equally_many_tokens(measured: dict[str, Any]) -> None:
    found = measured["actor_step"]
    assert found["tokens"].keys() == {"vmf", "gaussian", "none", "text"} and len(set(found["tokens"].values())) == 1
    assert found["latent_share"] > 0.1


def test_every_hop_carries_whole_latents(measured: dict[str, Any]) -> None:
    found = measured["transport"]
    assert found["copies_to_host"] == found["engine_steps"] == 2
    assert all(hop["bytes_per_latent"] >= 4 * 128 for hop in found["hops"].values())
