"""The benchmarks in their smallest form: that both sides do the same work, and latents are part of it. No times."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
SMALL = {
    "decode_vs_hf": "--batch 4 --rounds 1 --alone 1 --max-tokens 24",
    "transport": "--answers 4 --latents 2 --rounds 1",
    "actor_step": "--rows 2 --length 64 --rounds 1",
}
# One after the other in one process, whose imports take longest.
IN_ONE_PROCESS = """
import importlib, json, sys
if __name__ == "__main__":
    for name, arguments in json.loads(sys.argv[1]).items():
        sys.argv = [name, *arguments]
        print(f"benchmark {name}")
        importlib.import_module(name).main()
"""


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the phases for a GPU measure in their form for a CPU."""
    out = tmp_path_factory.mktemp("benchmarks")
    subprocess.run([sys.executable, str(ROOT / "benchmarks/gpu/run.py"), "--cpu", "--out", str(out)], check=True, timeout=1600)
    found = json.loads((out / "results.json").read_text())
    assert found["machine"]["torch"].startswith("2.11.")
    return {name: phase["result"] for name, phase in found["phases"].items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmarks of a CPU measure in their smallest form."""
    from future_l1_verl.toy import tiny

    folder = tmp_path_factory.mktemp("small")
    script = folder / "small.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n{IN_ONE_PROCESS}")
    tiny.build(folder / "model")
    given = {name: arguments.split() for name, arguments in SMALL.items()}
    for name in ("decode_vs_hf", "actor_step"):
        given[name] += ["--model", str(folder / "model")]
    printed = subprocess.run([sys.executable, str(script), json.dumps(given)], check=True, timeout=600, stdout=subprocess.PIPE)
    parts = printed.stdout.decode().split("benchmark ")[1:]
    results = {part.split()[0]: [line for line in part.splitlines() if line.startswith("{")][-1] for part in parts}
    return {name: json.loads(line) for name, line in results.items()}


def test_packed_and_padded_rows_agree(phases: dict[str, Any]) -> None:
    cells = phases["packed_rows"]["cells"]
    for cell in (cells["bf16"], cells["fp32"]):
        assert cell["rows"] == 8 and cell["scored"] == 2 * (17 + 20 + 23 + 28) and cell["latents"] > 0
    assert all(gap["max"] < 1e-5 for gap in cells["fp32"]["log_prob_gap"].values())
    assert cells["fp32"]["gradient_error"] < 1e-5
    # The control: what bf16 rounds is seen.
    assert all(gap["mean"] > 1e-4 for gap in cells["rounding"].values())
    assert all(gap["mean"] < cells["rounding"]["alone"]["mean"] for gap in cells["bf16"]["log_prob_gap"].values())


def test_memory_is_that_of_longer_and_longer_updates(phases: dict[str, Any]) -> None:
    cells = phases["update_memory"]["cells"].values()
    assert [cell["tokens"] for cell in cells] == [256, 512]
    assert all(cell["scored"] == cell["tokens"] // 2 and cell["above_bytes"] >= 0 for cell in cells)


def test_ways_to_compute_a_question_agree(phases: dict[str, Any]) -> None:
    (cell,) = phases["shared_question"]["cells"].values()
    assert len(cell["seconds"]) == len(cell["peak_bytes"]) == 3
    assert all(error < 1e-4 for errors in cell["agreement"].values() for error in errors.values())


def test_an_untied_model_is_the_same_wherever_its_weights_are(phases: dict[str, Any]) -> None:
    cells = phases["reference_offload"]["cells"]
    assert cells["reference"]["scored"] == 160 and cells["reference"]["gap_to_actor"]["max"] < 1e-6
    first, second = cells["updates"]["kept"]["losses"]
    assert first != second  # the first update changed something
    assert cells["updates"]["gap"] < 1e-6


def test_kernels_of_attention_are_measured_where_they_are(phases: dict[str, Any]) -> None:
    found = phases["attention_kernels"]
    (cell,) = found["cells"].values()
    assert cell["tokens"] == 40 + 41 and max(cell["relative_error"].values()) < 1e-6
    assert found["skipped"] == {"flash_attention_2, 40/10 n=4": "flash-attn needs a GPU"}


def test_the_gaussian_magnifies_rounding_and_vmf_does_not(phases: dict[str, Any]) -> None:
    cells = phases["density_rounding"]["cells"]
    worst = {
        (precision, family): max(gap["max"] for gap in cells[precision][family].values())
        for precision in ("bf16", "fp32")
        for family in ("gaussian", "vmf")
    }
    assert worst["bf16", "gaussian"] > 100 * worst["fp32", "gaussian"]
    assert worst["bf16", "vmf"] < 1e-5


def test_rollout_and_actor_agree_though_latents_are_injected_again(phases: dict[str, Any]) -> None:
    found = phases["engine_parity"]
    cell = found["cells"]["eager"]
    assert cell["answers"] == 8 and cell["text_tokens"] > 0 and cell["latents"] > 0 and cell["reinjected"] > 0
    assert cell["text_gap"]["max"] < 1e-4 and cell["latent_gap"] < 1e-4
    assert found["skipped"].keys() == {"graphs", "graphs, async"}  # a CPU has neither


def test_both_engines_write_as_much(phases: dict[str, Any]) -> None:
    cell = phases["engine_speed"]["cells"]["batch 2"]
    assert cell["tokens"] == {"latent": 2 * 2 * 32, "text": 2 * 2 * 32}
    assert cell["latent_share"] > 0.1


def test_steps_of_both_engines_are_counted(phases: dict[str, Any]) -> None:
    cells = phases["engine_speed"]["cells"]
    latent, text = cells["step of latent"], cells["step of text"]
    for step in (latent, text):
        assert step["steps"] == 20 and step["kinds"] == ["cpu_op"]
        named = sum(each["number"] for each in step["top"])
        assert 0 < named <= step["operations"]
        assert 0 < sum(each["microseconds"] for each in step["top"]) <= step["microseconds"]
    assert text["operations"] < latent["operations"]


def test_steps_of_stage_2_are_taken_and_timed_by_phase(phases: dict[str, Any]) -> None:
    found = phases["stage_2"]["cells"]["steps"]
    step = found["phases"]
    assert step["steps"] == 3  # of four: the first waits for compilers
    assert all(step[phase] > 0 for phase in ("rollout", "reference", "update of the actor"))
    assert step["other"] >= 0
    assert len(found["parity"]["parity/text_gap_mean"]) == 4
    assert all(0 <= gap < 1e-4 and not math.isnan(gap) for gap in found["parity"]["parity/text_gap_max"])


def test_all_decoders_write_the_same(small: dict[str, Any]) -> None:
    found = small["decode_vs_hf"]
    assert found["latent_share"] > 0.1
    assert found["answers"] == {"vLLM": 4, "cached, one batch": 4, "cached, one at a time": 1, "oracle": 1}
    assert set(found["different_answers"].values()) == {0}


def test_steps_are_of_equally_many_tokens(small: dict[str, Any]) -> None:
    found = small["actor_step"]
    assert found["tokens"].keys() == {"vmf", "gaussian", "none", "text"} and len(set(found["tokens"].values())) == 1
    assert found["latent_share"] > 0.1


def test_every_hop_carries_whole_latents(small: dict[str, Any]) -> None:
    found = small["transport"]
    assert found["copies_to_host"] == found["engine_steps"] == 2
    assert all(hop["bytes_per_latent"] >= 4 * 128 for hop in found["hops"].values())
