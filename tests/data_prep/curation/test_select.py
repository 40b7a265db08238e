import json
import random

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_prep.curation import candidates, scores
from data_prep.curation.pool import SELECTED
from data_prep.curation.select import run
from data_prep.curation.selection import SelectionError
from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl import cli

CATEGORIES = ("camera", "instructional", "predictive")


def candidate(number, **other):
    return {
        "id": f"c{number:04d}",
        "source": f"made: row {number}",
        "video": f"clips/v{number:04d}.mp4",
        "question": f"<image>Question {number}?",
        "answer": f"answer {number}",
        "options": [],
        "image": [1, 2],
        "reasoning_image": list(range(3, 4 + number % 3)),
        "response": f"<image>Reason {number}.",
        "category": CATEGORIES[number % 3],
    } | other


def score(name, base, hint, rollouts=8):
    """A row of scores; None for a condition without its last verdict."""
    row = {"id": name}
    for condition, correct in (("base", base), ("hint", hint)):
        verdicts = [i < (correct or 0) for i in range(rollouts)]
        if correct is None:
            verdicts[-1] = None
        row[condition] = [
            {"seed": seed, "text": "t", "correct": verdict, "parsed": None if verdict is None else True, "error": None}
            for seed, verdict in enumerate(verdicts)
        ]
        row[f"{condition}_correct"] = correct
    return row


def write_scores(folder, rows, per_shard=5):
    for number in range(0, len(rows), per_shard):
        candidates.write(folder / "scores" / f"shard-{number:05d}.parquet", rows[number : number + per_shard], scores.SCHEMA)


def select(folder, *flags, out="out"):
    parser = cli.parser("curate select")
    given = ["--candidates", folder / "pool.parquet", "--scores", folder, "--out", folder / out, *flags]
    run(parser.parse_args([str(value) for value in given]))
    return folder / out


def rows(path):
    return pq.read_table(path).to_pylist()


def names(path):
    return pq.read_table(path, columns=["id"])["id"].to_pylist()


def removed(out):
    return {row["id"]: (row["reason"], row["by"]) for row in rows(out / "removed.parquet")}


# id, base, hint, and its rank under the paper's rule.
GOLDEN = [
    (0, 2, 5, 4),  # gain 3
    (1, 0, 8, 0),  # gain 8
    (2, 7, 8, None),  # base above 6
    (3, 6, 8, 6),  # gain 2 at the limit
    (4, 0, 3, 2),  # gain 3, fewer base than 0
    (5, 0, 3, 3),  # equal to 4, later id
    (6, 3, 4, None),  # gain 1
    (7, None, 8, None),  # incomplete
    (8, 0, None, None),  # incomplete
    (9, 5, 7, 5),  # gain 2
    (10, 2, 7, 1),  # gain 5
    (11, 8, 0, None),
]
RANKED = [
    f"c{number:04d}" for number, *_, rank in sorted((row for row in GOLDEN if row[3] is not None), key=lambda row: row[3])
]


@pytest.fixture
def golden(tmp_path):
    """The twelve above and two that were not scored."""
    candidates.write(tmp_path / "pool.parquet", [candidate(number) for number in range(14)])
    write_scores(tmp_path, [score(f"c{number:04d}", base, hint) for number, base, hint, _ in GOLDEN])
    return tmp_path


def test_a_selection_by_hand(golden):
    out = select(golden, "--top", 6)
    table = pq.read_table(out / "selected.parquet")
    assert table.schema == SELECTED
    assert table["id"].to_pylist() == RANKED[:6]
    given = {f"c{number:04d}": (number, base, hint) for number, base, hint, _ in GOLDEN}
    for row in table.to_pylist():
        number, base, hint = given[row["id"]]
        counts = {"base_correct": base, "hint_correct": hint, "gain": hint - base, "rollouts": 8}
        assert row == candidate(number) | counts
    assert removed(out) == {"c0007": ("incomplete", "base"), "c0008": ("incomplete", "hint")}
    assert not (out / "control.parquet").exists()


def test_the_report_by_hand(golden, capsys):
    report = json.loads((select(golden, "--top", 6) / "report.json").read_text())
    counts = ("candidates", "unscored", "incomplete", "pool", "passing", "selected", "passing_below_top")
    assert [report[name] for name in counts] == [14, 2, 2, 10, 7, 6, 1]
    assert report["settings"]["scores"] == str(golden.resolve())
    by_gain = {(row["category"], row["gain"]): row for row in report["strata"]["gain"]}
    # Gain 3 among instructional (number % 3 = 1): number 4 alone, of a pool of 10.
    assert by_gain["instructional", 3]["pool"] == {"count": 1, "share": 0.1}
    assert by_gain["instructional", 3]["selected"] == {"count": 1, "share": pytest.approx(1 / 6)}
    # Gain 2 among camera (number % 3 = 0): numbers 3 and 9, of which 3 ranks seventh.
    shares = {group: by_gain["camera", 2][group] for group in ("pool", "passing", "selected")}
    assert shares == {
        "pool": {"count": 2, "share": 0.2},
        "passing": {"count": 2, "share": pytest.approx(2 / 7)},
        "selected": {"count": 1, "share": pytest.approx(1 / 6)},
    }
    for dimension in ("gain", "base_correct", "future_frames"):
        table = report["strata"][dimension]
        assert [sum(row[group]["count"] for row in table) for group in ("pool", "passing", "selected")] == [10, 7, 6]
        assert sum(row["selected"]["share"] for row in table) == pytest.approx(1)
    frames = {(row["category"], row["future_frames"]) for row in report["strata"]["future_frames"]}
    assert frames == {("camera", 1), ("instructional", 2), ("predictive", 3)}
    assert "no --benchmark was given" in " ".join(capsys.readouterr().out.split())


def test_the_order_of_rows_and_shards_does_not_matter(golden, tmp_path_factory):
    other = tmp_path_factory.mktemp("shuffled")
    shuffle = random.Random(5)
    pool = rows(golden / "pool.parquet")
    scored = [row for shard in scores.shards(golden) for row in rows(shard)]
    shuffle.shuffle(pool)
    shuffle.shuffle(scored)
    candidates.write(other / "pool.parquet", pool)
    write_scores(other, scored, per_shard=3)
    flags = ("--top", 4, "--control", "--seed", 3)
    first, second = select(golden, *flags), select(other, *flags)
    for name in ("selected", "control", "removed"):
        assert (first / f"{name}.parquet").read_bytes() == (second / f"{name}.parquet").read_bytes()
    reports = [json.loads((out / "report.json").read_text()) | {"settings": None} for out in (first, second)]
    assert reports[0] == reports[1]


def test_the_control_is_drawn_without_regard_to_gain(tmp_path):
    """Of 400 candidates a tenth gains 8, the rest nothing: a draw of 40 holds 4 +- 1.8 of these, not 40."""
    numbers = range(400)
    candidates.write(tmp_path / "pool.parquet", [candidate(number) for number in numbers])
    pairs = {number: (0, 8) if number % 10 == 0 else (4, 4) for number in numbers}
    write_scores(tmp_path, [score(f"c{number:04d}", *pairs[number]) for number in numbers], per_shard=100)
    draws = []
    for seed in range(8):
        out = select(tmp_path, "--control", "--seed", seed, out=f"out{seed}")
        assert names(out / "selected.parquet") == [f"c{number:04d}" for number in numbers if number % 10 == 0]
        control = rows(out / "control.parquet")
        assert pq.read_schema(out / "control.parquet") == SELECTED
        assert len({row["id"] for row in control}) == 40
        assert all((row["base_correct"], row["hint_correct"]) == pairs[int(row["id"][1:])] for row in control)
        draws.append([int(row["id"][1:]) for row in control])
    gainers = sum(number % 10 == 0 for draw in draws for number in draw)
    # 8 draws of 40: 32 expected, with a standard deviation of sqrt(8 * 40 * 0.1 * 0.9 * 360 / 399) = 5.1.
    assert abs(gainers - 32) < 4 * 5.1
    assert abs(np.mean(draws) - 199.5) < 4 * 115.5 / np.sqrt(320)  # nor of the place in the file
    assert len({tuple(draw) for draw in draws}) == 8


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_set(folder / "set", Settings(train_questions=6, val_questions=2, test_questions=2), lambda items, label: items)
    return folder / "set"


@pytest.fixture
def overlapping(clips, tmp_path, monkeypatch):
    """Training clips with questions of their own, and three that a benchmark of the test clips has as well.

    The file is not in order of id, and read in several parts.
    """
    monkeypatch.setattr(candidates, "ROWS_AT_ONCE", 5)
    videos = [f"clips/train-{number:05d}.mp4" for number in range(12)]
    (tmp_path / "clips").mkdir()
    for video in videos:
        (tmp_path / video).write_bytes((clips / video).read_bytes())
    # 2: another clip under the name of a benchmark's; 5: its question in other words; 7: its clip under another name.
    (tmp_path / videos[2]).rename(tmp_path / "clips" / "test-00001.webm")
    videos[2] = "clips/test-00001.webm"
    (tmp_path / videos[7]).write_bytes((clips / "clips" / "test-00003.mp4").read_bytes())
    pool = [candidate(number, video=video) for number, video in enumerate(videos)]
    pool[5]["question"] = "<image> What does\nthe 2nd ball HIT ?\nA. a wall\nB. nothing"
    candidates.write(tmp_path / "pool.parquet", pool[::-1])
    asked = {0: "<image><image>What does the 2nd ball hit?"}
    test = [
        candidate(number, video=f"clips/test-{number:05d}.mp4", id=f"t{number}", question=asked.get(number, f"Test {number}?"))
        for number in range(4)
    ]
    candidates.write(tmp_path / "bench.parquet", test)
    write_scores(tmp_path, [score(f"c{number:04d}", 0, 8) for number in range(12)])
    return tmp_path


def test_what_overlaps_a_benchmark_goes_and_nothing_else(overlapping, clips):
    bench = overlapping / "bench.parquet"
    flags = ("--benchmark", bench, "--benchmark-videos", clips, "--videos", overlapping, "--workers", 1, "--control")
    out = select(overlapping, *flags)
    gone = {"c0002": ("video", f"{bench}: t1"), "c0005": ("question", f"{bench}: t0"), "c0007": ("frames", f"{bench}: t3")}
    assert removed(out) == gone
    stay = [f"c{number:04d}" for number in range(12) if f"c{number:04d}" not in gone]
    assert names(out / "selected.parquet") == stay
    assert sorted(names(out / "control.parquet")) == stay
    report = json.loads((out / "report.json").read_text())
    assert report["benchmark_items"] == 4
    assert report["removed"]["question"] == {"count": 1, "most_by": {f"{bench}: t0": 1}}
    assert (report["passing"], report["selected"], report["passing_below_top"]) == (12, 9, 0)


@pytest.mark.parametrize(("way", "gone"), [("video", "c0002"), ("question", "c0005")])
def test_one_way_alone_removes_only_its_own(overlapping, way, gone):
    out = select(overlapping, "--benchmark", overlapping / "bench.parquet", "--overlap", way)
    assert list(removed(out)) == [gone]


def test_frames_are_compared_only_as_far_as_the_rank_demands(overlapping, clips):
    """The clip of c0009 is broken, which nobody sees while seven candidates before it are enough."""
    (overlapping / "clips" / "train-00009.mp4").write_bytes(b"no video")
    flags = ("--benchmark", overlapping / "bench.parquet", "--benchmark-videos", clips, "--videos", overlapping, "--workers", 1)
    few = select(overlapping, *flags, "--top", 6, out="few")
    assert names(few / "selected.parquet") == ["c0000", "c0001", "c0003", "c0004", "c0006", "c0008"]
    assert sorted(removed(few)) == ["c0002", "c0005", "c0007"]
    more = select(overlapping, *flags, "--top", 7, out="more")
    assert names(more / "selected.parquet")[6:] == ["c0010"]
    assert removed(more)["c0009"][0] == "unreadable"


def test_the_place_of_a_removed_candidate_goes_to_the_next(golden):
    candidates.write(golden / "bench.parquet", [candidate(99, question="question 1")])  # that of the first in rank
    out = select(golden, "--top", 3, "--benchmark", golden / "bench.parquet", "--overlap", "question")
    assert names(out / "selected.parquet") == RANKED[1:4]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--top", 0), "top must be at least 1"),
        (("--min-gain", 9), "min_gain 9 cannot be reached with 8 rollouts"),
        (
            ("--max-base", 0, "--min-gain", 8, "--benchmark", "BENCH", "--overlap", "question"),
            "no candidate is left: 1 of 10 pass",
        ),
        (("--benchmark", "BENCH"), "--videos and a folder of --benchmark-videos"),
        (("--benchmark", "BENCH", "--videos", ".", "--benchmark-videos", "a", "b"), "there are 1 and 2"),
        (("--video-id", "("), "--video-id"),
        (("--video-id", "abc"), "has no group"),
    ],
)
def test_settings_that_cannot_work_are_refused(golden, flags, message):
    candidates.write(golden / "bench.parquet", [candidate(99, question="question 1")])
    with pytest.raises(SelectionError, match=message):
        select(golden, *[golden / "bench.parquet" if flag == "BENCH" else flag for flag in flags])
    assert not (golden / "out").exists()


def test_scores_of_other_candidates_are_refused(golden):
    candidates.write(golden / "pool.parquet", [candidate(number) for number in range(1, 14)])
    with pytest.raises(SelectionError, match=r"id: 1 are not among the candidates of .*pool.parquet, the first is 'c0000'"):
        select(golden)


def test_a_broken_shard_is_named(golden):
    broken = scores.shards(golden)[1]
    broken.write_bytes(b"PAR1")
    with pytest.raises(scores.ScoresError, match=broken.name):
        select(golden)


def test_a_folder_that_holds_something_is_refused(golden):
    out = select(golden)
    before = pd.read_parquet(out / "selected.parquet")
    with pytest.raises(FileExistsError, match="is not empty"):
        select(golden, "--top", 1)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "selected.parquet"), before)
