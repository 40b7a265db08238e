"""The card: figures counted by hand, in JSON, in the text and in the drawings."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.curation import card
from data_prep.curation.training import RL, SFT


def row(number: int, category: str, gain: int, reasons: list[str], answer: str) -> dict:
    told = [f"<reason>{reason}</reason>" for reason in reasons]
    said = "".join(f"<image>{reason}" for reason in told) + f"<answer>{answer}</answer>"
    human = {"from": "human", "value": "<image><image>What comes next?"}
    return {
        "id": str(number), "video": f"{number % 2}.mp4", "image": [1, 2], "answer": answer, "options": [],
        "conversations": [human, {"from": "gpt", "value": said}],
        "reasoning_image": list(range(5, 5 + len(reasons))), "cot": said.replace("<image>", ""), "category": category,
        "gain": gain, "base_correct": 0, "hint_correct": gain,
    }  # fmt: skip


# Words of the reasoning: 2, 2 + 1, 1, 1.
ROWS = [
    row(0, "camera", 3, ["it pans"], "left"),
    row(1, "predictive", 3, ["it falls", "down"], "to the floor"),
    row(2, "predictive", 4, ["up"], "up"),
    row(3, "", 10, ["up"], "up"),
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS[:3], SFT), tmp_path / "sft_train.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[3:], SFT), tmp_path / "sft_val.parquet")
    for part in ("train", "val"):
        pq.write_table(RL.empty_table(), tmp_path / f"rl_{part}.parquet")
    card.write(tmp_path, "my set", {"no future frame": 1200})
    return tmp_path


def test_json_has_the_counts(written: Path) -> None:
    found = json.loads((written / "card.json").read_text())
    assert found == {
        "name": "my set",
        "rows": {"sft_train": 3, "sft_val": 1, "rl_train": 0, "rl_val": 0},
        "clips": {"sft_train": 2, "sft_val": 1, "rl_train": 0, "rl_val": 0},
        "left_out": {"no future frame": 1200},
        "category": {"predictive": 2, "camera": 1, "none": 1},
        "gain": {"3": 2, "4": 1, "10": 1},
        "future_frames": {"1": 3, "2": 1},
        "words": {"question": {"3": 4}, "answer": {"1": 3, "3": 1}, "reasoning": {"1": 2, "2": 1, "3": 1}},
        "paper": card.PAPER,
    }


def test_the_text_has_them_beside_the_papers(written: Path) -> None:
    lines = (written / "README.md").read_text().splitlines()
    paper = [14.1, 11.3, 8.2, 6.3, 5.1, 5.1]
    for line in (
        "| `sft_train.parquet` | 3 | 2 |",
        "| predictive | 2 | 50.0% | 33.6% |",
        "| none | 1 | 25.0% |  |",
        "| instructional | 0 | 0.0% | 54.7% |",
        f"| 3 | 2 | 50.0% | {paper[0] / sum(paper):.1%} |",
        f"| 8 | 0 | 0.0% | {paper[5] / sum(paper):.1%} |",
        "| 2 | 1 | 25.0% | 33.5% |",  # 16.6 of 49.6
        "| answer | 1.5 | 1.0 |",
        "| reasoning | 1.8 | 1.0 |",
        "| no future frame | 1,200 |",
    ):
        assert line in lines
    numbers = [line.split()[1] for line in lines[lines.index("| gain | rows | share | paper |") + 2 :][:7]]
    assert numbers == ["3", "4", "5", "6", "7", "8", "10"]
    for name in ("category", "gain", "future_frames", "words"):
        assert f"![]({name}.png)" in lines


def test_bars_are_as_high_as_the_shares(written: Path) -> None:
    drawn = card.figures(json.loads((written / "card.json").read_text()))
    (axes,) = drawn["future_frames"].axes
    ours, paper = ([bar.get_height() for bar in bars] for bars in axes.containers)
    assert ours == pytest.approx([0.75, 0.25, 0])
    assert paper == pytest.approx([31.3 / 49.6, 16.6 / 49.6, 1.7 / 49.6])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    reasoning = drawn["words"].axes[2]
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in reasoning.patches] == [(1, 2), (2, 1), (3, 1)]
    for name, figure in drawn.items():
        with Image.open(written / f"{name}.png") as image:
            assert image.size == tuple(round(120 * side) for side in figure.get_size_inches())


@given(st.dictionaries(st.integers(0, 50), st.integers(1, 5), min_size=1))
def test_mean_and_median_are_those_of_the_numbers_written_out(counts: dict[int, int]) -> None:
    numbers = sorted(number for number, count in counts.items() for _ in range(count))
    mean, median = card.mean_and_median({str(number): count for number, count in counts.items()})
    assert mean == pytest.approx(sum(numbers) / len(numbers))
    assert median == numbers[(len(numbers) - 1) // 2]
