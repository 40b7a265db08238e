"""The README's first command, with another seed (e2e_environment.py): everything real, about a quarter of an hour."""

import json
from pathlib import Path

import pytest
from e2e_environment import SEED, recipe
from rl_step import phases

from future_l1_verl.evaluation.curves import read_curves
from future_l1_verl.modeling.trained_as import TrainedAs

pytestmark = pytest.mark.e2e


def scores(run: Path, stage: str) -> dict:
    return json.loads((run / f"evaluation/{stage}/summary.json").read_text())["splits"]


def test_both_stages_leave_the_model_above_the_majority_answer(run: Path) -> None:
    for stage in ("sft", "rl"):
        found = scores(run, stage)["1-hop"]
        low, _ = found["scores"]["accuracy"]["interval"]
        assert low > found["majority"]


def test_stage_2_learns(run: Path) -> None:
    """By half of what this seed gained in the study (0.18, benchmarks/study/results/la_dapo-seed3.json), on validation."""
    validated = read_curves(run / "tensorboard/rl")["val/all/accuracy"]
    assert validated[-1][1] - validated[0][1] > 0.09


def test_the_trained_model_thinks_in_spans_and_answers_in_form(run: Path) -> None:
    trained = scores(run, "rl")["all"]
    assert trained["parsed"] > 0.9
    assert trained["with_span"] > 0.9


def test_rollout_and_actor_agree_at_every_step(run: Path) -> None:
    curves = read_curves(run / "tensorboard/rl")
    worst, mean = curves["parity/text_gap_max"], curves["parity/text_gap_mean"]
    assert [step for step, _ in worst] == list(range(1, len(worst) + 1))
    assert max(value for _, value in worst) <= 1e-4
    assert max(value for _, value in mean) <= 1e-5


def test_its_steps_are_timed_by_phase(run: Path) -> None:
    """As the benchmark of stage 2 on a GPU takes them (benchmarks/gpu/phases/stage_2.py)."""
    found = phases(run / "tensorboard/rl")
    assert found["steps"] == len(read_curves(run / "tensorboard/rl")["timing_s/step"]) - 1  # the first waits for compilers
    assert all(found[phase] > 0 for phase in ("rollout", "reference", "update of the actor"))
    assert found["other"] >= 0


def test_checkpoints_say_how_they_were_trained(run: Path) -> None:
    """Stage 2 took it from stage 1's, which was told."""
    for checkpoint in (*(run / "sft").glob("global_step_*/huggingface"), *(run / "rl").glob("global_step_*/actor/huggingface")):
        assert TrainedAs.from_checkpoint(checkpoint) == TrainedAs(None, "frames", "interleaved", said=True)


def test_both_losses_of_stage_1_fall(run: Path) -> None:
    curves = read_curves(run / "tensorboard/sft")
    for name in ("train/cross_entropy", "train/latent_error"):
        values = [value for _, value in curves[name]]
        assert sum(values[-10:]) < sum(values[:10])


def test_latents_of_held_out_clips_are_predicted(run: Path) -> None:
    """Better than by the mean embedding, and nearer to their own frame than chance, outside its interval for 128 rows."""
    curves = read_curves(run / "tensorboard/sft")
    ratio, retrieval, chance = (
        curves[f"val/latent_{name}"][-1][1] for name in ("error_ratio", "retrieval", "retrieval_chance")
    )
    assert ratio < 1.0
    assert retrieval - 1.96 * (retrieval * (1 - retrieval) / 128) ** 0.5 > chance


def test_the_report_is_complete(run: Path) -> None:
    report = (run / "report/report.md").read_text()
    pictures = [part.split(")")[0] for part in report.split("](")[1:]]
    assert len(pictures) == 11
    for picture in pictures:
        assert (run / "report" / picture).read_bytes().startswith(b"\x89PNG")


def test_running_it_again_does_nothing_twice(run: Path) -> None:
    before = (run / "rl").stat().st_mtime_ns
    result = recipe("quickstart.sh", "--run", str(run), "--seed", SEED)
    assert result.returncode == 0
    assert result.stdout.count("done before") == 10
    assert (run / "rl").stat().st_mtime_ns == before
