"""The study's intervals, what is kept of an arm, and that the pages say what stands in the files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from future_l1_verl.evaluation import runs

ROOT = Path(__file__).parents[2]
NAMES = ("results", "collect", "page", "learning")


@pytest.fixture(scope="module")
def study() -> Iterator[dict[str, ModuleType]]:
    """Its modules, which are forgotten again: other folders of benchmarks have modules of the same names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks/study"), *sys.path])
        yield {name: import_module(name) for name in NAMES}
    for name in NAMES:
        del sys.modules[name]


def test_an_interval_covers_the_mean_of_all_seeds_as_often_as_it_says(study: dict[str, ModuleType]) -> None:
    """Seeds scatter by 0.1, questions by 0.5; an interval of the questions alone is the control."""
    rng, covered, alone = np.random.default_rng(0), [], []
    for _ in range(200):
        values = [(rng.random(100) < np.clip(rng.normal(0.5, 0.1), 0, 1)).astype(float) for _ in range(10)]
        low, high = study["results"].interval(values)
        covered.append(low < 0.5 < high)
        low, high = study["results"].interval([np.concatenate(values)])
        alone.append(low < 0.5 < high)
    # Of ten seeds it sees 9 / 10 of the variance: 0.93 of means lie within, less what t takes; 0.03 is twice the error of 200.
    assert 0.87 <= np.mean(covered) <= 0.98
    assert np.mean(alone) < 0.75


def test_the_seeds_that_a_difference_needs(study: dict[str, ModuleType]) -> None:
    """Means of 0.1 and 0.3: their mean is 0.2, their variance 0.02; 1.96² · 0.02 / 0.2² = 1.92, and two are the fewest."""
    needed = study["results"].seeds_needed
    assert needed([np.array([0.1]), np.array([0.3])]) == 2
    assert needed([np.array([-0.1]), np.array([0.3])]) == 31, "their mean is 0.1, their variance 0.08: 30.7"
    assert needed([np.array([0.1])]) is None and needed([np.array([-0.1]), np.array([0.1])]) is None


def test_the_share_that_questions_have_in_the_scatter_of_seeds(study: dict[str, ModuleType]) -> None:
    """The variance of the mean of (0, 0, 1, 1) is (1 / 3) / 4, of four ones 0; that of the seeds' means 0.5 and 1 is 1 / 8."""
    share = study["results"].share_of_questions
    assert share([np.array([0.0, 0, 1, 1]), np.array([1.0, 1, 1, 1])]) == pytest.approx((1 / 12) / 2 / (1 / 8))
    assert share([np.array([0.0, 1]), np.array([0.0, 1])]) == 1, "no more scatter than questions make"


@pytest.mark.parametrize(
    ("values", "paper", "verdict"),
    [
        ([[1, 1, 0], [1, 1, 1], [1, 1, 1]], 1.0, "as in the paper"),
        ([[1, 1, 0], [1, 1, 1]], 1.0, "as in the paper, of two seeds"),
        ([[-1, -1, 0], [-1, -1, -1]], 1.0, "the other way round, of two seeds"),
        ([[1, 1, 1]], 1.0, "as in the paper, of one seed"),
        ([[1, -1, 0]], 1.0, "cannot be told"),
        (
            [[1, -1, 1], [-1, 1, 0]],
            1.0,
            "cannot be told; a difference as large as this would take about 8 seeds of 3 questions",
        ),
    ],
)
def test_verdicts(study: dict[str, ModuleType], values: list[list[float]], paper: float, verdict: str) -> None:
    """The last: means of 1/3 and 0, a mean of 1/6 and a variance of 1/18; 1.96² · (1/18) · 36 = 7.7."""
    assert study["page"].verdict([np.array(of_seed, dtype=float) for of_seed in values], paper) == verdict


def answers(run: Path, arm: str, right: list[bool]) -> None:
    records = [
        runs.Record(
            row=row, id=str(row), split="2-hop" if row % 2 else "1-hop", prompt_sha256="", problem="", options=[], truth="left",
            video="", frames=[], future=[], text="", token_ids=[0] * (2 * row), roles="", spans=[1] * row, finish_reason="stop",
            answer="left", parsed=True, scores={"accuracy": float(is_right)}, reasoning_true=not is_right,
        )
        for row, is_right in enumerate(right)
    ]  # fmt: skip
    (run / "evaluation" / arm).mkdir(parents=True)
    runs.begin(folder := run / "evaluation" / arm, {"questions": len(records)})
    runs.append(folder, records)


def test_what_is_kept_of_an_arm(study: dict[str, ModuleType], tmp_path: Path) -> None:
    """Its folder has another name than the arm, and the swap was done on the first two questions alone."""
    for name, right in (("rl", [True, False, False, True]), ("rl-swap", [False] * 2), ("rl-zero", [True] * 4)):
        answers(tmp_path, name, right)
    with SummaryWriter(str(tmp_path / "tensorboard/rl")) as writer:
        for step in (0, 10):
            writer.add_scalar("val/1-hop/accuracy", 0.123456, step)
            writer.add_scalar("timing_s/step", 3.0, step)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/rl.done").write_text("250\n")
    result = study["collect"].collect(tmp_path, "rl", "dapo", 7)
    assert result.verdicts == {
        "1-hop": {"right": "10", "parsed": "11", "reasoning": "01", "swap": "0-", "zero": "11"},
        "2-hop": {"right": "01", "parsed": "11", "reasoning": "10", "swap": "0-", "zero": "11"},
    }
    assert result.means["2-hop"] == {"spans": 2.0, "latents": 2.0, "tokens": 4.0}
    assert result.curves == {"val/1-hop/accuracy": [(0, 0.1235), (10, 0.1235)]}
    assert result.seconds == {"training": 250} and (result.arm, result.seed) == ("dapo", 7)
    assert result.values("right").tolist() == [1, 0, 0, 1] and result.values("right", "2-hop").tolist() == [0, 1]
    assert np.isnan(result.values("swap")).tolist() == [False, True, False, True]


def test_what_was_not_finished_is_not_kept(study: dict[str, ModuleType], tmp_path: Path) -> None:
    answers(tmp_path, "dapo", [True])
    (tmp_path / "evaluation/dapo" / runs.SETTINGS).write_text('{"questions": 2}')
    with pytest.raises(runs.RunError, match="1 of 2 questions are answered"):
        study["collect"].collect(tmp_path, "dapo", "dapo", 7)


def kept(results: ModuleType, folder: Path, arm: str, seed: int, right: str, **verdicts: str) -> None:
    """A file of an arm that was asked two questions of each of two splits."""
    halves = {
        split: {"right": right[part], "parsed": "11", "reasoning": "10"} | {kind: bits[part] for kind, bits in verdicts.items()}
        for split, part in (("1-hop", slice(2)), ("2-hop", slice(2, 4)), ("3-hop", slice(2, 4)))
    }
    means = {split: {"spans": 1.5, "latents": 3.0, "tokens": 20.0} for split in halves}
    fields = ("commit", "machine", "versions", "seconds", "verdicts", "means", "curves")
    values = ("abc", "2 CPUs", {"verl": "1"}, {"training": 1800}, halves, means, {})
    text = results.to_json({"arm": arm, "seed": seed} | dict(zip(fields, values, strict=True)))
    (folder / f"{arm}-seed{seed}.json").write_text(text)


def test_the_page_of_a_small_study(study: dict[str, ModuleType], tmp_path: Path) -> None:
    results, page = study["results"], study["page"]
    for seed in (1, 2):
        kept(results, tmp_path, "dapo", seed, "0000", swap="0000", zero="0000")
        kept(results, tmp_path, "la_dapo", seed, "1111", swap="0-11", zero="1111")
    kept(results, tmp_path, "lambda_c=0.05", 2, "1100")
    lines = page.page(results.read(tmp_path))
    assert f"| dapo | 2 |{' 0.000 (0.000 to 0.000) |' * 4} 83.8 % |" in lines
    assert "| both rewards: la_dapo less dapo | 2 | +1.6 | +100.0 (+100.0 to +100.0) | as in the paper, of two seeds |" in lines
    assert (
        lines[lines.index("## In short") + 2] == "- **As in the paper**: both rewards, +100.0 (+100.0 to +100.0), of two seeds."
    )
    assert "- **The other way round**: nothing." in lines
    # Of five questions that were asked one is lost with other latents.
    (answered,) = (
        line for line in lines if line.startswith("| la_dapo | 1.50 / 1.50 / 1.50 | 3.0 | 20.0 | 1.000 | 0.500 | -20.0 (")
    )
    assert answered.endswith("| +0.0 (+0.0 to +0.0) |")
    # The sweep is of the seed that both have.
    assert lines[lines.index("| value | seeds | accuracy (95 %) | latents an answer |") + 2].startswith("| 0.05 | 1 | 0.333 (")
    assert "Commits: abc; machines: 2 CPUs; versions: verl 1; 2.5 hours in all." in lines


@pytest.mark.parametrize("name", ["page", "learning"])
def test_the_pages_of_the_repository(
    study: dict[str, ModuleType], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = study[name]
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "docs/images").mkdir(parents=True)
    there = module.PAGE
    for constant in ("PAGE", "FIGURE"):
        if hasattr(module, constant):
            monkeypatch.setattr(module, constant, tmp_path / Path(getattr(module, constant)).name)
    module.main()
    assert module.PAGE.read_text() == there.read_text()


def test_a_file_is_small_and_read_back(study: dict[str, ModuleType], tmp_path: Path) -> None:
    kept(study["results"], tmp_path, "dapo", 3, "0110")
    assert json.loads((tmp_path / "dapo-seed3.json").read_text())["seed"] == 3
    (result,) = study["results"].read(tmp_path)["dapo"].values()
    assert result.values("right", "2-hop").tolist() == [1, 0]
