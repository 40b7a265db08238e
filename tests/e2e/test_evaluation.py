"""Evaluation of the quickstart's model: by the oracle, over HTTP, killed on the way, in training, and the commands on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from e2e_environment import ENVIRONMENT, finished
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from vllm_server import SMALL, serving

from future_l1_verl.data.prompts import processor_inputs
from future_l1_verl.data.rows import Row
from future_l1_verl.decoding import hf
from future_l1_verl.evaluation import runs, tasks
from future_l1_verl.evaluation.curves import read_curves
from future_l1_verl.evaluation.prompting import Style, prompt
from future_l1_verl.evaluation.runs import Record
from future_l1_verl.latents.tokens import LatentSettings

pytestmark = pytest.mark.e2e

QUESTIONS = 200
PARITY = 1e-5


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    return next((run / "sft").glob("global_step_*/huggingface"))


@pytest.fixture(scope="module")
def served(run: Path, model: Path) -> Iterator[Callable[..., list[str]]]:
    """Returns a function that makes the command that asks a server of ``model`` the questions of a part of the set."""
    with patch.dict(os.environ, ENVIRONMENT), serving(str(model), *SMALL, "--max-num-seqs", "64") as url:

        def command(part: str, out: Path, *arguments: str) -> list[str]:
            files = ["--model", str(model), "--data", str(run / f"data/{part}.parquet"), "--out", str(out), "--url", url]
            evaluation = [sys.executable, "-m", "future_l1_verl.evaluation", "run", "--task", "synthetic"]
            return [*evaluation, *files, "--system-prompt", "", *arguments]

        yield command


def ask(*words: str) -> str:
    result = finished(list(words), env=os.environ | ENVIRONMENT | {"COLUMNS": "150"})
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def answers(folder: Path) -> list[list[int]]:
    return [record.token_ids for record in runs.records(folder)[:QUESTIONS]]


def by_oracle(model: Path, oracle: PreTrainedModel, questions: list[Row]) -> list[list[int]]:
    processor, latent = AutoProcessor.from_pretrained(model), LatentSettings.from_checkpoint(model)
    found = []
    for question in questions:
        style = Style("latent", None, "frames", spans=True)
        inputs = dict(processor_inputs(processor, prompt(question, style, 32).chat))
        end = processor.tokenizer.eos_token_id
        found.append(hf.generate(oracle, inputs, latent, max_new_tokens=96, eos_token_id=end).token_ids.tolist())
    return found


def test_the_oracle_gives_the_same_200_answers(run: Path, model: Path) -> None:
    questions, _ = tasks.read(tasks.TASKS["synthetic"], [run / "data/test.parquet"], None, QUESTIONS)
    # A thread and a model for each half: the oracle hooks its embedding.
    oracles = [AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval() for _ in range(2)]
    halves = [questions[: QUESTIONS // 2], questions[QUESTIONS // 2 :]]
    with ThreadPoolExecutor(2) as pool:
        expected = [ids for half in pool.map(by_oracle, [model] * 2, oracles, halves) for ids in half]
    assert answers(run / "evaluation/sft") == expected


def test_a_server_gives_the_same_answers_and_latents_though_its_client_was_killed(
    run: Path, served: Callable[..., list[str]], tmp_path: Path
) -> None:
    total = 2 * QUESTIONS
    words = served("test", tmp_path / "killed", "--save-latents", "--concurrency", "8", "--limit", str(total))
    file = tmp_path / "killed" / runs.ANSWERS
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | ENVIRONMENT, start_new_session=True)
    while not file.is_file() or len(file.read_bytes().splitlines()) < 0.4 * total:
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(runs.records(tmp_path / "killed")) < total
    ask(*words)
    lines = file.read_text().splitlines()
    assert len(lines) == len({json.loads(line)["row"] for line in lines}) == total, "no question was answered twice"
    killed, undisturbed = (runs.records(folder)[:total] for folder in (tmp_path / "killed", run / "evaluation/sft"))
    assert [(each.row, each.token_ids, each.scores) for each in killed] == [
        (each.row, each.token_ids, each.scores) for each in undisturbed
    ]
    for row in range(total):
        served_latents, local = (runs.latents(folder, row) for folder in (tmp_path / "killed", run / "evaluation/sft"))
        assert served_latents.shape == local.shape
        assert not len(local) or (served_latents - local).abs().max() <= PARITY


def test_validation_in_training_says_what_an_evaluation_says(
    run: Path, served: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Both answer greedily; rounding in batches of other sizes may tip an answer or two."""
    ask(*served("val", tmp_path / "sft"))
    curves = read_curves(run / "tensorboard/rl")
    validated = {tag: curve[0][1] for tag, curve in curves.items() if curve[0][0] == 0}
    for split, row in json.loads((tmp_path / "sft/summary.json").read_text())["splits"].items():
        assert (validated[f"val/{split}/n"], validated[f"val/{split}/missing"]) == (row["n"], row["missing"])
        assert validated[f"val/{split}/accuracy"] == pytest.approx(row["scores"]["accuracy"]["mean"], abs=2.5 / row["n"])
        assert validated[f"val/{split}/parsed"] == pytest.approx(row["parsed"], abs=2.5 / row["n"])


def test_swapped_latents_cost_the_trained_model_its_answers(run: Path) -> None:
    """docs/differences.md: in published systems masking latents changes nothing."""
    for kind in ("swap", "zero"):
        found = json.loads((run / f"evaluation/rl-{kind}" / runs.COMPARISON).read_text())
        assert found["1-hop"]["scores"]["accuracy"]["interval"][1] < 0
        assert found["1-hop"]["changed"] > 0.3


def test_runs_are_compared_and_aggregated(run: Path, tmp_path: Path) -> None:
    stages = [str(run / "evaluation" / stage) for stage in ("sft", "rl")]
    evaluation = [sys.executable, "-m", "future_l1_verl.evaluation"]
    ask(*evaluation, "compare", *stages, "--json", str(tmp_path / "compared"))
    ask(*evaluation, "aggregate", *stages, "--json", str(tmp_path / "aggregated"))
    compared, aggregated = (json.loads((tmp_path / name).read_text())["all"] for name in ("compared", "aggregated"))

    def accuracy(stage: str) -> float:
        records: list[Record] = runs.records(run / "evaluation" / stage)
        return sum(record.scores["accuracy"] for record in records) / len(records)

    score = compared["scores"]["accuracy"]
    assert (score["a"], score["b"]) == (pytest.approx(accuracy("sft")), pytest.approx(accuracy("rl")))
    assert aggregated["scores"]["accuracy"]["mean"] == pytest.approx((accuracy("sft") + accuracy("rl")) / 2)


def test_the_page_of_the_trained_model_is_there(run: Path) -> None:
    page = (run / "evaluation/rl/inspect/index.html").read_text()
    pictures = ("spans_per_split", "accuracy_by_spans", "latent_map_pca", "latent_map_tsne", "adjacent_cosine", "rl_rewards")
    for name in pictures:
        assert f"{name}.png" in page and (run / f"evaluation/rl/inspect/{name}.png").is_file()
