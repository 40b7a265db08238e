"""Training files of candidates: what stage 1 and stage 2 make of them, what is left out, and that no clip is in both parts."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.curation import build, candidates, read
from data_prep.curation.build import validation_videos
from data_prep.curation.candidates import CandidateError
from data_prep.curation.selection import SelectionError
from data_prep.curation.training import GAINS, response
from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl import cli
from future_l1_verl.data.clips import Clips
from future_l1_verl.data.reader import read as read_rows
from future_l1_verl.data.rows import Row as Parsed
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.seeing import see
from future_l1_verl.rewards.shape import SPAN, has_shape
from future_l1_verl.sft.conversations import conversation

Row = dict[str, Any]
PARTS = ("train", "val")


def questions(path: Path) -> list[Row]:
    """The rows of a file of stage 2, all of which can be asked and shown."""
    for row in read_rows([path], require=Parsed.require_answer):
        assert see(row, Clips()).observed, row
    return pq.read_table(path).to_pylist()


def call(module: Any, *words: object) -> None:
    parser = cli.parser(f"curate {module.__name__.split('.')[-1]}")
    module.run(parser.parse_args([str(word) for word in words]))


def write_selected(path: Path, rows: list[Row]) -> Path:
    """With counts that tell the rows apart."""
    schema = candidates.SCHEMA
    for name in GAINS:
        schema = schema.append(pa.field(name, pa.int32()))
    schema = schema.append(pa.field("rollouts", pa.int32()))
    counts = [
        {"base_correct": n % 3, "hint_correct": n % 3 + 3 + n % 5, "gain": 3 + n % 5, "rollouts": 8} for n in range(len(rows))
    ]
    pq.write_table(pa.Table.from_pylist([row | count for row, count in zip(rows, counts, strict=True)], schema), path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic set in ``set``, its candidates as selected.parquet, and what is built of them in ``deep/built``."""
    folder = tmp_path_factory.mktemp("curated")
    write_set(folder / "set", Settings(train_questions=6, val_questions=2, test_questions=2), lambda items, label: items)
    call(read, "--input", folder / "set/twiff.json", "--out", folder / "candidates.parquet", "--decode", "none")
    write_selected(folder / "selected.parquet", list(candidates.read(folder / "candidates.parquet")))
    built(folder, folder / "deep/built")
    return folder


def built(made: Path, out: Path, *words: object, selected: Path | None = None) -> Path:
    given = ("--selected", selected or made / "selected.parquet", "--videos", made / "set", "--out", out)
    call(build, *given, "--val-fraction", 0.25, *words)
    return out


def test_stage_1_gets_the_rows_that_the_set_was_written_with(made: Path) -> None:
    written = {row["id"]: row for row in json.loads((made / "set/twiff.json").read_text())}
    selected = pd.read_parquet(made / "selected.parquet").set_index("id")
    rows = [row for part in PARTS for row in pq.read_table(made / f"deep/built/sft_{part}.parquet").to_pylist()]
    assert sorted(row["id"] for row in rows) == sorted(written)
    for row in rows:
        original = written[row["id"]]
        for field in ("conversations", "image", "reasoning_image", "answer", "options", "cot"):
            assert row[field] == original[field]
        assert os.path.samefile(made / "deep/built" / row["video"], made / "set" / original["video"])
        assert [row[name] for name in GAINS] == selected.loc[row["id"], list(GAINS)].tolist()
        assert row["category"] == original["split"]


def test_rows_keep_the_order_of_selection(made: Path) -> None:
    order = pd.read_parquet(made / "selected.parquet")["id"].tolist()
    for kind, column in (("sft", "id"), ("rl", "uid")):
        for part in PARTS:
            ids = pd.read_parquet(made / f"deep/built/{kind}_{part}.parquet")[column].tolist()
            assert ids == sorted(ids, key=order.index)


def test_stage_1_reads_them_and_imagines_the_same_frames(made: Path) -> None:
    originals = {row.id: row for row in read_rows([made / "set/twiff.json"])}
    for part in PARTS:
        for row in read_rows([made / f"deep/built/sft_{part}.parquet"], require=Parsed.require_response):
            for text_only in (False, True):
                talks = [conversation(one, None, "frames", 4, Clips(), text_only) for one in (row, originals[row.id])]
                assert talks[0].said == talks[1].said
                assert [image.tobytes() for image in talks[0].future] == [image.tobytes() for image in talks[1].future]
                assert bool(talks[0].future) != text_only


def test_stage_2_gets_the_same_questions(made: Path) -> None:
    sft = [row for part in PARTS for row in pq.read_table(made / f"deep/built/sft_{part}.parquet").to_pylist()]
    rl = [row for part in PARTS for row in questions(made / f"deep/built/rl_{part}.parquet")]
    original = {row["id"]: row for row in pd.read_parquet(made / "set/train.parquet").to_dict("records")}
    assert [row["uid"] for row in rl] == [row["id"] for row in sft]
    for row in rl:
        asked = original[row["uid"]]["conversations"][0]["value"]
        assert (row["problem"], row["answer"]) == (asked, original[row["uid"]]["answer"])
        assert row["options"] == list(original[row["uid"]]["options"])
        assert (row["split"], row["data_source"]) == (original[row["uid"]]["split"], f"future_l1/{row['split']}")


def test_the_same_seed_gives_the_same_bytes_and_another_another_split(made: Path, tmp_path: Path) -> None:
    names = [f"{kind}_{part}.parquet" for kind in ("sft", "rl") for part in PARTS]
    again = built(made, made / "deep" / "again")
    assert all((again / name).read_bytes() == (made / "deep/built" / name).read_bytes() for name in names)
    parts = {tuple(pd.read_parquet(built(made, tmp_path / str(seed), "--seed", seed) / names[1])["id"]) for seed in range(3)}
    assert len(parts) > 1


names = st.lists(st.text("ab/", min_size=1, max_size=4), min_size=2).filter(lambda found: len(set(found)) > 1)


@given(names, st.floats(0.001, 0.999), st.integers(0, 9), st.randoms())
def test_videos_are_split_by_what_they_are_and_by_nothing_else(
    videos: list[str], fraction: float, seed: int, shuffled: Any
) -> None:
    distinct = set(videos)
    held_out = validation_videos(videos, fraction, seed)
    assert held_out < distinct and held_out
    assert abs(len(held_out) - fraction * len(distinct)) <= 1
    again = list(distinct) + videos
    shuffled.shuffle(again)
    assert validation_videos(again, fraction, seed) == held_out


def test_no_clip_is_in_both_parts(made: Path, tmp_path: Path) -> None:
    """Not even under two names."""
    rows = list(candidates.read(made / "candidates.parquet"))
    for number, row in enumerate(rows):
        row["video"] = row["video"] if number % 2 else f"clips/../{row['video']}"
    (tmp_path / "built").mkdir()
    out = built(made, tmp_path / "built", selected=write_selected(tmp_path / "selected.parquet", rows))
    for kind in ("sft", "rl"):
        train, val = (
            {os.path.realpath(row.clip) for row in read_rows([out / f"{kind}_{part}.parquet"], require=lambda row: row)}
            for part in PARTS
        )
        assert train and val and not train & val
        assert len(train | val) == len({os.path.normpath(row["video"]) for row in rows})


def candidate(**changed: Any) -> Row:
    row = {
        "id": "one", "source": "file: row 0", "video": "clip.mp4", "question": "<image>?", "answer": "left", "options": [],
        "image": [1], "reasoning_image": [5, 7], "category": "",
        "response": "<image><reason>It turns.</reason><image><reason>It goes.</reason><answer>left</answer>",
    }  # fmt: skip
    return row | changed


@pytest.mark.parametrize(
    ("said", "shaped"),
    [
        (candidate()["response"], candidate()["response"]),
        (
            "One<image> It turns. <image><reason>It\ngoes.</reason> so <answer>to the left</answer>",
            "<reason>One</reason><image><reason>It turns.</reason><image><reason>It\ngoes. so</reason><answer>left</answer>",
        ),
        ("<image>It turns.<image>left", "<image><reason>It turns.</reason><image><reason>left</reason><answer>left</answer>"),
        (
            "<reason>One.</reason><reason>Two.</reason><image>It turns.<answer>left</answer><image>It goes.",
            "<reason>One. Two.</reason><image><reason>It turns.</reason><image><reason>It goes.</reason><answer>left</answer>",
        ),
    ],
)  # fmt: skip
def test_responses_are_put_into_the_papers_shape(said: str, shaped: str) -> None:
    assert response(candidate(response=said)) == shaped


TAGS = ["<reason>", "</reason>", "<answer>", "</answer>", "<|latent|>", " ", "a", "b"]
words = st.lists(st.sampled_from(TAGS), max_size=6).map("".join)


@given(st.lists(words, min_size=1, max_size=4), words)
def test_a_response_has_the_shape_or_there_is_none(parts: list[str], answer: str) -> None:
    given_ = candidate(response="<image>".join(parts), reasoning_image=list(range(5, 4 + len(parts))), answer=answer)
    try:
        said = response(given_)
    except RowError:
        return
    assert has_shape(said.replace("<image>", SPAN), "interleaved")
    assert said.count("<image>") == len(parts) - 1


LEFT_OUT: dict[str, tuple[Row, str]] = {
    "no future": (candidate(reasoning_image=[], response="<answer>left</answer>"), "no future frame"),
    "no reasoning": (candidate(response=""), "no reasoning"),
    "silent frame": (
        candidate(response="<image>It turns.<image> <answer>left</answer>"), "future frame without reasoning: [2] of 2"),
    "thoughts before frames": (
        candidate(response="It turns.<image>It goes.<image><reason></reason>"), "future frame without reasoning: [2] of 2"),
    "latent in a text": (
        candidate(response="<image>a <|latent|><image>b"), "other tags or control tokens in the response: '<image><reason>a"),
    "half an answer": (
        candidate(response="<image>a<image>b</answer>"), "other tags or control tokens in the response: '<image><reason>a"),
    "tag in the answer": (candidate(answer="<reason>"), "other tags or control tokens in the response: '<image>"),
}  # fmt: skip


def test_what_cannot_be_shaped_is_left_out_of_both_stages_and_listed(made: Path, tmp_path: Path) -> None:
    good = list(candidates.read(made / "candidates.parquet"))
    bad = [row | {"id": name, "source": f"bad: {name}"} for name, (row, _) in LEFT_OUT.items()]
    out = built(made, tmp_path / "built", selected=write_selected(tmp_path / "selected.parquet", [*bad, *good]))
    lines = map(json.loads, (out / "left_out.jsonl").read_text().splitlines())
    listed = {line["source"]: line["reason"] for line in lines}
    assert listed.keys() == {row["source"] for row in bad}
    for name, (_, reason) in LEFT_OUT.items():
        assert listed[f"bad: {name}"].startswith(reason)
    for kind, column in (("sft", "id"), ("rl", "uid")):
        ids = pd.concat([pd.read_parquet(out / f"{kind}_{part}.parquet")[column] for part in PARTS])
        assert sorted(ids) == sorted(row["id"] for row in good)
    assert json.loads((out / "card.json").read_text())["left_out"]["future frame without reasoning"] == 2


def test_questions_are_asked_as_the_candidates_have_them(made: Path, tmp_path: Path) -> None:
    asked = "<image>? A. left B. right"
    rows = [candidate(id=str(n), video=f"{n}.mp4", question=asked, options=["left", "right"]) for n in range(2)]
    out = built(made, tmp_path / "built", selected=write_selected(tmp_path / "selected.parquet", rows))
    for part in PARTS:
        (sft,), (rl,) = (pq.read_table(out / f"{kind}_{part}.parquet").to_pylist() for kind in ("sft", "rl"))
        assert sft["conversations"][0]["value"] == rl["problem"] == asked
        assert rl["data_source"] == "future_l1"


def test_segments_of_one_video_are_in_the_same_part(made: Path, tmp_path: Path) -> None:
    rows = [candidate(id=str(n), video=f"part-{n % 2}/v{n // 3}_{n}.mp4") for n in range(12)]
    selected = write_selected(tmp_path / "selected.parquet", rows)
    out = built(made, tmp_path / "built", "--video-id", r"v(\d+)_", selected=selected)
    train, val = ({row["id"] for row in pq.read_table(out / f"sft_{part}.parquet").to_pylist()} for part in PARTS)
    assert {int(name) // 3 for name in train}.isdisjoint(int(name) // 3 for name in val)
    assert (len(train), len(val)) == (9, 3)  # a quarter of four videos
    with pytest.raises(SelectionError, match="finds no id in 'v0_0'"):
        built(made, tmp_path / "other", "--video-id", r"w(\d+)", selected=selected)
    with pytest.raises(CandidateError, match=r"12 of 12 candidates can be trained on, .* need a video each"):
        built(made, tmp_path / "other", "--video-id", "(v)", selected=selected)
    assert not (tmp_path / "other").exists()


def drop(table: pa.Table) -> pa.Table:
    return table.drop_columns(["gain", "hint_correct"])


REFUSED: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "not selected": (drop, r"selected\.parquet: lacks gain, hint_correct; `select` of data_prep\.curation writes"),
    "no candidates": (lambda table: table.drop_columns(["video"]), r"selected\.parquet: lacks video; `read` of"),
    "one clip": (lambda table: table.slice(0, 1), r"selected\.parquet: 1 of 1 candidates can be trained on, .* nothing is"),
    "none": (lambda table: table.slice(0, 0), r"selected\.parquet: 0 of 0 candidates can be trained on"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_gives_no_set_is_refused_and_leaves_none(name: str, made: Path, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    pq.write_table(change(pq.read_table(made / "selected.parquet")), tmp_path / "selected.parquet")
    with pytest.raises(CandidateError, match=message):
        built(made, tmp_path / "built", selected=tmp_path / "selected.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["selected.parquet"]


def test_a_folder_that_holds_something_and_a_share_out_of_range_are_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        built(made, tmp_path)
    for share in (0, 1):
        with pytest.raises(ValueError, match=f"--val-fraction lies between 0 and 1, not at {share}"):
            built(made, tmp_path / "out", "--val-fraction", share)


def test_questions_without_frames_or_reasoning_are_for_stage_2_alone(made: Path, tmp_path: Path) -> None:
    clips = sorted(path.name for path in (made / "set/clips").glob("train-*.mp4"))[:8]
    texts = ["up", "down", "left", "right"]
    asked = [
        {
            "id": number,
            "question_type": f"hop{1 + number % 3}",
            "video_path": f"clips/{clip}",
            "qa": {"Question": "Where to?", "Options": texts, "Answer": "ABCD"[number % 4]},
        }
        for number, clip in enumerate(clips)
    ]
    (tmp_path / "questions.json").write_text(json.dumps(asked))
    file = tmp_path / "questions.parquet"
    call(read, "--input", tmp_path / "questions.json", "--videos", made / "set", "--out", file)
    out = built(made, tmp_path / "built", "--rl-only", selected=file)
    assert (out / "left_out.jsonl").read_text() == ""
    assert sorted(path.name for path in out.iterdir()) == ["left_out.jsonl", "rl_train.parquet", "rl_val.parquet"]
    rows = [row for part in PARTS for row in questions(out / f"rl_{part}.parquet")]
    assert {row["uid"]: (row["image"], row["answer"], row["split"]) for row in rows} == {
        str(number): (list(range(1, 9)), "ABCD"[number % 4], f"hop{1 + number % 3}") for number in range(len(clips))
    }
    assert all(row["problem"].endswith("Where to?\nA. up\nB. down\nC. left\nD. right") for row in rows)


def test_questions_keep_clear_of_a_benchmark_by_video_question_and_frames(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clips = [f"clips/train-{number:05d}.mp4" for number in range(6)]
    (tmp_path / "clips").mkdir()
    for clip in clips:
        (tmp_path / clip).write_bytes((made / "set" / clip).read_bytes())
    # 1: another clip under the name of a benchmark's; 2: its question in other words; 4: its clip under another name.
    (tmp_path / clips[1]).rename(tmp_path / "clips/test-00000.mp4")
    clips[1] = "clips/test-00000.mp4"
    (tmp_path / clips[4]).write_bytes((made / "set/clips/test-00002.mp4").read_bytes())
    empty = {"reasoning_image": [], "response": ""}
    rows = [
        candidate(id=str(n), source=f"row {n}", video=clip, question=f"<image>{n}?") | empty for n, clip in enumerate(clips)
    ]
    rows[2]["question"] = "<image>Where  TO? A. up B. down"
    candidates.write(tmp_path / "questions.parquet", rows)
    bench = [
        candidate(id=f"t{n}", video=f"clips/test-{n:05d}.mp4", question=question) | empty
        for n, question in enumerate(("What?", "<image>Where to?", "Why?"))
    ]
    candidates.write(tmp_path / "bench.parquet", bench)
    words = ("--selected", tmp_path / "questions.parquet", "--rl-only", "--videos", tmp_path, "--val-fraction", 0.25)
    against = ("--benchmark", tmp_path / "bench.parquet", "--benchmark-videos", made / "set", "--workers", 1)
    call(build, *words, *against, "--out", tmp_path / "built")
    assert "no --benchmark was given" not in capsys.readouterr().out
    lines = map(json.loads, (tmp_path / "built/left_out.jsonl").read_text().splitlines())
    file = tmp_path / "bench.parquet"
    assert {line["source"]: line["reason"] for line in lines} == {
        "row 1": f"not clear of the benchmarks (video): {file}: t0",
        "row 2": f"not clear of the benchmarks (question): {file}: t1",
        "row 4": f"not clear of the benchmarks (frames): {file}: t2",
    }
    kept = [row["uid"] for part in PARTS for row in questions(tmp_path / f"built/rl_{part}.parquet")]
    assert sorted(kept) == ["0", "3", "5"]
    call(build, *words, "--out", tmp_path / "all")
    assert "no --benchmark was given" in capsys.readouterr().out


def test_questions_of_one_clip_are_no_set(made: Path, tmp_path: Path) -> None:
    candidates.write(tmp_path / "questions.parquet", [candidate(id=str(n), source=str(n)) for n in range(3)])
    with pytest.raises(
        CandidateError, match="3 of 3 candidates can be trained on, and training and validation need a video each"
    ):
        built(made, tmp_path / "built", "--rl-only", selected=tmp_path / "questions.parquet")
    assert not (tmp_path / "built").exists()
