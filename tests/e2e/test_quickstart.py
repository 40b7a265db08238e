"""The README's first command, as a newcomer runs it: everything real, default settings, about a quarter of an hour."""

import json
import subprocess
from pathlib import Path

import pytest

from future_l1_verl.evaluation.report import read_curves

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2700)]


def quickstart(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "recipes/quickstart.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=2400)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    result = quickstart("--run", str(folder))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-6000:]
    return folder


def scores(run: Path, stage: str) -> dict:
    return json.loads((run / f"evaluation/{stage}/summary.json").read_text())["splits"]


def test_both_stages_leave_the_model_above_the_majority_answer_and_the_untrained_model(run: Path) -> None:
    for stage in ("sft", "rl"):
        trained = scores(run, stage)["1-hop"]
        assert trained["interval"][0] > trained["majority"]
        assert trained["interval"][0] > scores(run, "untrained")["1-hop"]["accuracy"]


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


def test_both_losses_of_stage_1_fall(run: Path) -> None:
    curves = read_curves(run / "tensorboard/sft")
    for name in ("train/cross_entropy", "train/latent_error"):
        values = [value for _, value in curves[name]]
        assert sum(values[-10:]) < sum(values[:10])


def test_the_report_is_complete(run: Path) -> None:
    report = (run / "report/report.md").read_text()
    pictures = [part.split(")")[0] for part in report.split("](")[1:]]
    assert len(pictures) == 9
    for picture in pictures:
        assert (run / "report" / picture).read_bytes().startswith(b"\x89PNG")


def test_running_it_again_does_nothing_twice(run: Path) -> None:
    before = (run / "rl").stat().st_mtime_ns
    result = quickstart("--run", str(run))
    assert result.returncode == 0
    assert result.stdout.count("done before") == 8
    assert (run / "rl").stat().st_mtime_ns == before
