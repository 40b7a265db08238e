"""The command: what it writes, lists and prints, and that a run that fails changes nothing but its manifest."""

import json
import math
import pickle
import re
import shlex
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import bad_files
import pandas as pd
import pytest
from bad_files import pattern
from hypothesis import given
from hypothesis import strategies as st

from data_prep.curation import build, candidates, read
from data_prep.curation.job import Job
from data_prep.curation.questions import Prompts, Shown
from data_prep.curation.stages import AddFrames
from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl import cli
from future_l1_verl.data.rows import RowError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, Settings(train_questions=6, val_questions=2, test_questions=2), lambda items, label: items)
    return folder


def run(*words: object) -> None:
    parser = cli.parser("curate read")
    read.run(parser.parse_args([str(word) for word in words]))


def broken(made: Path, folder: Path) -> tuple[Path, list[dict]]:
    """The set with a row without an answer, and with one clip missing and one that holds no video."""
    rows = json.loads((made / "twiff.json").read_text())
    for clip in (made / "clips").iterdir():
        (folder / "clips").mkdir(exist_ok=True)
        (folder / "clips" / clip.name).symlink_to(clip)
    videos = list(dict.fromkeys(row["video"] for row in rows))
    (folder / videos[0]).unlink()
    (folder / videos[1]).unlink()
    (folder / videos[1]).write_text("no video")
    last = rows[-1]
    assert last["video"] not in videos[:2]
    last["image"] = [0]
    (folder / "twiff.json").write_text(json.dumps(rows))
    return folder / "twiff.json", rows


@pytest.mark.parametrize("file", ["twiff.json", "train.parquet"])
def test_the_synthetic_set_becomes_candidates(file: str, made: Path, tmp_path: Path) -> None:
    run("--input", made / file, "--out", tmp_path / "candidates.parquet", "--decode", "all")
    found = list(candidates.read(tmp_path / "candidates.parquet"))
    rows = json.loads((made / "twiff.json").read_text())
    assert [one["id"] for one in found] == [row["id"] for row in rows]
    for one, row in zip(found, rows, strict=True):
        human, gpt = (turn["value"] for turn in row["conversations"])
        assert (one["question"], one["response"], one["answer"]) == (human, gpt, row["answer"])
        assert (one["image"], one["reasoning_image"]) == (row["image"], row["reasoning_image"])
        assert (one["video"], one["options"], one["category"]) == (row["video"], row["options"], row["split"])
    assert (tmp_path / "candidates.skipped.jsonl").read_text() == ""


def test_rows_and_clips_that_cannot_be_used_are_listed_counted_and_left_out(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file, rows = broken(made, tmp_path)
    out = tmp_path / "out" / "candidates.parquet"
    run("--input", file, "--out", out, "--max-bad-rate", 0.9, "--max-missing", 0.5, "--manifest", tmp_path / "bad.jsonl")
    missing, undecodable = list(dict.fromkeys(row["video"] for row in rows))[:2]
    expected = {f"{file}: row {len(rows) - 1}": "frames go outside 1..8: [0]"}
    for number, row in enumerate(rows):
        if row["video"] == missing:
            expected[f"{file}: row {number}"] = f"video is missing: {missing}"
        elif row["video"] == undecodable:
            expected[f"{file}: row {number}"] = "video does not decode"
    listed = {line["source"]: line["reason"] for line in map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())}
    assert listed.keys() == expected.keys()
    assert all(reason.startswith(expected[source]) for source, reason in listed.items())
    good = [row["id"] for n, row in enumerate(rows) if f"{file}: row {n}" not in expected]
    assert [one["id"] for one in candidates.read(out, ["id"])] == good
    printed = [[cell.strip() for cell in line.strip("│").split("│")] for line in capsys.readouterr().out.splitlines()]
    counts = pd.Series(list(expected.values())).str.split(":").str[0].value_counts()
    for line in (
        *(
            ["read", str(len(rows))],
            ["candidates", str(len(good))],
            ["left out", str(len(expected))],
            ["without a response", "0"],
        ),
        *([reason, str(count)] for reason, count in counts.items()),
        *(["looked at", str(len({row["video"] for row in rows[:-1]}) - 1)], ["bad", "1"]),
    ):
        assert line in printed


def test_a_run_that_fails_writes_nothing_but_its_manifest_and_names_the_first_twenty(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "candidates.parquet"
    out.write_text("of an earlier run")
    rows = [row | {"image": [9]} for row in json.loads((made / "twiff.json").read_text())]
    (tmp_path / "twiff.json").write_text(json.dumps(rows))
    with pytest.raises(
        RowError, match=rf"{len(rows)} of {len(rows)} rows cannot be used, more than --max-bad-rate=0\.01"
    ) as error:
        run("--input", tmp_path / "twiff.json", "--out", out, "--decode", "none")
    named = str(error.value).splitlines()[1:]
    assert [line.split(":")[1] for line in named[:20]] == [f" row {n}" for n in range(20)]
    assert named[20:] == [f"... and {len(rows) - 20} more, all in {tmp_path / 'candidates.skipped.jsonl'}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "candidates.parquet", "candidates.skipped.jsonl", "twiff.json",
    ]  # fmt: skip
    assert out.read_text() == "of an earlier run"


def test_missing_clips_end_the_first_run_with_a_table_and_the_next_command(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of TwiFF's videos is gone: no stack of refusals, and nothing is decoded before it is known."""
    rows = json.loads((made / "twiff.json").read_text())
    videos = list(dict.fromkeys(row["video"] for row in rows))
    gone = set(videos[::3])
    (tmp_path / "clips").mkdir()
    for video in videos:
        if video not in gone:
            (tmp_path / video).symlink_to(made / video)
    (tmp_path / "twiff.json").write_text(json.dumps(rows))
    words = ["--input", tmp_path / "twiff.json", "--out", tmp_path / "out.parquet"]
    missing = sum(row["video"] in gone for row in rows)
    monkeypatch.setattr("sys.argv", ["future-l1", "curate", "read", *map(str, words)])
    monkeypatch.setattr("data_prep.curation.checking.check", lambda *_: pytest.fail("decoded"))
    with pytest.raises(SystemExit) as end:
        run(*words)
    shown = capsys.readouterr().out
    assert end.value.code == 1 and not (tmp_path / "out.parquet").exists()
    assert f"{len(rows) - missing:,} of {len(rows):,} rows have their clip" in shown
    for line in (["rows", str(len(rows))], ["with a clip", str(len(rows) - missing)], ["without", str(missing)]):
        assert line in [[cell.strip() for cell in row.strip("│").split("│")] for row in shown.splitlines()]
    share = math.ceil(100 * missing / len(rows)) / 100
    command = shown.splitlines()[-1]
    assert command == f"future-l1 curate read {shlex.join(map(str, words))} --max-missing {share}"
    monkeypatch.undo()
    run(*shlex.split(command)[3:])
    assert [one["video"] for one in candidates.read(tmp_path / "out.parquet")] == [
        row["video"] for row in rows if row["video"] not in gone
    ]
    listed = [json.loads(line)["reason"] for line in (tmp_path / "out.skipped.jsonl").read_text().splitlines()]
    assert len(listed) == missing and all(reason.startswith("video is missing: ") for reason in listed)


def test_validation_rows_beside_those_of_training_are_told_apart(made: Path, tmp_path: Path) -> None:
    """`twiff/*.parquet` has both; those of validation have their pictures embedded."""
    row = json.loads((made / "twiff.json").read_text())[0]
    pd.DataFrame([row]).to_parquet(tmp_path / "train-00000.parquet")
    pd.DataFrame([row | {"question_images": [{"bytes": b"png", "path": None}]}]).to_parquet(tmp_path / "val-00000.parquet")
    words = ["--videos", made, "--out", tmp_path / "out.parquet"]
    with pytest.raises(RowError, match=r"val-00000\.parquet: has pictures embedded, unlike the other inputs"):
        run("--input", *sorted(tmp_path.glob("*.parquet")), *words)
    run("--input", tmp_path / "val-00000.parquet", *words)
    (found,) = candidates.read(tmp_path / "out.parquet")
    assert (found["image"], found["reasoning_image"]) == (row["image"], row["reasoning_image"])


def test_ids_that_are_those_of_videos_are_made_different(made: Path, tmp_path: Path) -> None:
    """FutureBench asks several questions of one clip; the same question twice is left out."""
    clip = json.loads((made / "twiff.json").read_text())[0]["video"]
    asked = [
        {"id": "v0", "video": clip, "question": f"{word} next?", "answer": "It falls.", "question_type": "hop1"}
        for word in ("What", "Who", "What")
    ]
    (tmp_path / "rows.json").write_text(json.dumps(asked))
    run("--input", tmp_path / "rows.json", "--videos", made, "--out", tmp_path / "out.parquet", "--max-bad-rate", 0.5)
    found = list(candidates.read(tmp_path / "out.parquet"))
    assert found[0]["id"] == "v0" and found[1]["id"].startswith("v0-") and len(found) == 2
    (line,) = (tmp_path / "out.skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].startswith("id is taken: 'v0' is that of")
    assert found[0]["question"] == "<image>" * 8 + "What next?" and found[0]["image"] == list(range(1, 9))


def test_the_published_50k_keeps_its_gains_on_the_way_to_build(made: Path, tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "One.<image>Two."}]}
        | {"video": video, "image": [1], "reasoning_image": [3], "answer": "It falls.", "class": "Camera"}
        | {"gain": 4, "correct_in_8_base": 2, "correct_in_8_hint": 6}
        for video in sorted({row["video"] for row in json.loads((made / "twiff.json").read_text())})[:4]
    ]
    (tmp_path / "published.json").write_text(json.dumps(rows))
    run("--input", tmp_path / "published.json", "--videos", made, "--out", tmp_path / "published.parquet")
    parser = cli.parser("curate build")
    words = ["--selected", tmp_path / "published.parquet", "--videos", made, "--out", tmp_path / "built"]
    build.run(parser.parse_args([*map(str, words), "--val-fraction", "0.25"]))
    table = pd.concat(pd.read_parquet(tmp_path / f"built/sft_{part}.parquet") for part in ("train", "val"))
    assert set(zip(table["gain"], table["base_correct"], table["hint_correct"], strict=True)) == {(4, 2, 6)}
    said = "<reason>One.</reason><image><reason>Two.</reason><answer>It falls.</answer>"
    assert {conversation[1]["value"] for conversation in table["conversations"]} == {said}


def test_a_manifest_is_of_one_run(made: Path, tmp_path: Path) -> None:
    file, rows = broken(made, tmp_path)
    out = tmp_path / "candidates.parquet"
    for _ in range(2):
        run("--input", file, "--out", out, "--decode", "none", "--max-bad-rate", 0.9, "--max-missing", 0.5)
    gone = sum(row["video"] == rows[0]["video"] for row in rows)
    assert len((tmp_path / "candidates.skipped.jsonl").read_text().splitlines()) == gone + 1


def test_several_inputs_follow_each_other(made: Path, tmp_path: Path) -> None:
    tables = [made / f"{part}.parquet" for part in ("train", "test")]
    out = tmp_path / "candidates.parquet"
    run("--input", tables[0], "--input", tables[1], "--out", out, "--decode", "none")
    ids = [one["id"] for one in candidates.read(out)]
    assert ids == [id for table in tables for id in pd.read_parquet(table)["id"]]
    run("--input", *tables, "--out", out, "--decode", "none", "--limit", len(ids) - 3)
    assert [one["id"] for one in candidates.read(out)] == ids[:-3]


def test_what_cannot_be_meant_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"rows": []}')
    (tmp_path / "candidates.parquet").write_text("of an earlier run")
    out = ("--out", tmp_path / "candidates.parquet")
    with pytest.raises(RowError, match=r"the inputs lie in 2 folders; --videos has to say"):
        run("--input", tmp_path / "rows.json", made / "twiff.json", *out)
    with pytest.raises(RowError, match=r"gone\.json: no such file"):
        run("--input", tmp_path / "gone.json", *out)
    with pytest.raises(RowError, match=r"rows\.json: is one of the inputs; --out would replace it"):
        run("--input", tmp_path / "rows.json", "--out", tmp_path / "rows.json")
    assert (tmp_path / "candidates.parquet").read_text() == "of an earlier run"
    assert (tmp_path / "rows.json").read_text() == '{"rows": []}'
    with pytest.raises(RowError, match=r"rows\.json: (no rows; a \.json file has to be an|is no) array"):
        run("--input", tmp_path / "rows.json", *out)


@pytest.mark.parametrize("option", ["--out", "--manifest"])
def test_an_input_is_not_replaced_under_another_name(
    option: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (made / "twiff.json").read_bytes()
    (tmp_path / "rows.json").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    others = {"--out": "candidates.parquet", "--manifest": "skipped.jsonl"} | {option: "rows.json"}
    with pytest.raises(RowError, match=rf"rows\.json: is one of the inputs; {option} would replace it"):
        run("--input", tmp_path / "rows.json", "--videos", made, *(word for pair in others.items() for word in pair))
    assert (tmp_path / "rows.json").read_bytes() == content


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bad_files.write(tmp_path_factory.mktemp("files"))


def twiff(question: str = "Row?", **changed: Any) -> dict[str, Any]:
    row = {"video": "clip.mp4", "question": f"<image>{question}", "answer": "It rises.<rimage>It falls.<ans>It lands.</ans>"}
    return row | {"question_images_index": [1], "reasoning_images_index": [5]} | changed


# What is wrong, and the reason that is given.
BAD: list[tuple[Any, str]] = [
    (twiff(question_images_index=[0]), "frames go outside 1..8"),
    (twiff(question_images_index=[1.0]), "question_images_index is not a list of frame numbers"),
    (twiff(answer=3), "answer is not a string"),
    (twiff(options="It lands, it rises"), "options cannot be used"),
    (twiff("Row<|image_pad|>?"), "text holds a special token"),
    (twiff("Row\ud800?"), "text is not Unicode"),
    (twiff(video="gone.mp4"), "video is missing"),
    (twiff(video="text.mp4"), "video does not decode"),
    (twiff(answer="It rises.<rimage>It falls.<ans>It lands."), "answer is not clear"),
    (twiff("<image>Row?"), "placeholders do not fit"),
    # Of the same kinds, but not what was reported.
    (twiff(response=5), "response is not a string"),
    (twiff(**{"class": "\udfff"}), "text is not Unicode"),
    (twiff(id=["q0"]), "id is neither a string nor a number"),
    (twiff(video="no\0folder/clip.mp4"), "row cannot be prepared"),
    (twiff(video="x" * 300), "video is missing"),
    (twiff(options=["It lands.", "it lands"]), "options cannot be used"),
    (twiff(video="sound.mp4"), "video does not decode"),
    ({"problem": "<video><video>Row?", "answer": "left", "videos": ["clip.mp4", "clip.mp4"]}, "no candidate"),
    ({"messages": [{"role": "user", "content": "Row?"}, {"role": "assistant", "content": "x"}]}, "no candidate"),
    ("row", "row is not an object with fields"),
]


@pytest.mark.parametrize("bad", [BAD[:10], BAD[10:]], ids=["reported", "of the same kinds"])
def test_ten_bad_rows_of_forty_are_listed_and_counted_and_the_others_are_candidates(
    bad: list[tuple[Any, str]], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    wrong = {4 * place: item for place, item in enumerate(bad)}
    rows = [wrong[number][0] if number in wrong else twiff(f"Row {number}?") for number in range(40)]
    file, out = tmp_path / "rows.jsonl", tmp_path / "candidates.parquet"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--input", file, "--videos", files, "--out", out, "--max-missing", 0.1, "--workers", 1]
    run(*words, "--max-bad-rate", 0.25)
    good = [number for number in range(40) if number not in wrong]
    assert [one["question"] for one in candidates.read(out)] == [f"<image>Row {number}?" for number in good]
    listed = [json.loads(line) for line in (tmp_path / "candidates.skipped.jsonl").read_text().splitlines()]
    assert sorted(row["source"] for row in listed) == sorted(f"{file}: row {number}" for number in wrong)
    for row in listed:
        assert re.match(pattern(wrong[int(row["source"].rpartition(" ")[2])][1]), row["reason"]), row
    printed = [[cell.strip() for cell in line.strip("│").split("│")] for line in capsys.readouterr().out.splitlines()]
    for reason, count in Counter(reason for _, reason in bad).items():
        assert [reason, str(count)] in printed
    assert ["read", "40"] in printed and ["candidates", "30"] in printed and ["left out", "10"] in printed
    # Missing clips have a limit of their own.
    gone = sum(reason == "video is missing" for _, reason in bad)
    with pytest.raises(RowError, match=rf"{10 - gone} of 40 rows cannot be used, more than --max-bad-rate="):
        run(*words, "--max-bad-rate", (9.5 - gone) / 40)


def test_a_clip_that_breaks_after_it_was_read_is_a_reason_of_its_candidate_alone(files: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes((files / "clip.mp4").read_bytes())
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(twiff(video=name)) + "\n" for name in ("a.mp4", "b.mp4", "c.mp4")))
    run("--input", file, "--out", tmp_path / "candidates.parquet")
    bad_files.break_in_the_middle(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").unlink()
    job = Job(tmp_path / "candidates.parquet", tmp_path, tmp_path / "out", Prompts.read())
    (first, broken, gone), _ = pickle.loads(AddFrames(job)({"shard": 0})["work"])
    assert isinstance(first, Shown)
    assert re.match(r"video or image cannot be shown: .*b\.mp4: cannot be decoded", broken)
    assert re.match(r"video or image cannot be shown: .*c\.mp4: no such file", gone)


# Rows of each format that curation takes; a field, or one inside it, is replaced by anything that JSON can hold.
FORMATS: list[dict[str, Any]] = [
    twiff(meta_data={"classification": "x"}, options=None, response="", id="q", split="s", data_source="d")
    | {"gain": 1, "base_correct": 2, "hint_correct": 3},
    {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "One.<image>Two."}],
     "video": "clip.mp4", "image": [1], "reasoning_image": [3], "answer": "It falls.", "class": "c"},
    {"video_path": "clip.mp4", "question_type": "hop1",
     "qa": {"Question": "Q?", "Options": {"A": "x", "B": "y"}, "Answer": "A"}},
    {"video": "clip.mp4", "mc_qa": [{"question": "Q?", "options": ["x", "y"], "answer": "A"}]},
    {"problem": "<image>?", "answer": "left", "video": "clip.mp4", "image": [1], "options": ["left", "right"]},
    {"prompt": [{"role": "user", "content": "Q?<video>"}], "videos": ["clip.mp4"], "reward_model": {"ground_truth": "x"},
     "extra_info": {"options": ["x", "y"]}},
]  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters() | st.sampled_from(["\ud800", "\0"]), max_size=10)
    | st.sampled_from(["x" * 300, "..", "<image>", "<|im_end|>", "{", "1" * 5000, 10**12, [1], "clip.mp4", {"bytes": None}]),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some, max_size=3),
    max_leaves=5,
)


def replaced(draw: st.DrawFn, value: Any) -> Any:
    """A value with something in it, or itself, replaced."""
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inside or draw(st.booleans()):
        return draw(ANYTHING)
    place = draw(st.sampled_from(inside))
    changed = value.copy()
    changed[place] = replaced(draw, value[place])
    return changed


@given(data=st.data())
def test_no_row_whatever_it_holds_costs_another(data: st.DataObject, files: Path) -> None:
    row = data.draw(st.sampled_from(FORMATS))
    name = data.draw(st.sampled_from(list(row)))
    damaged = row | {name: replaced(data.draw, row[name])}
    with tempfile.TemporaryDirectory() as folder:
        file, out, manifest = (Path(folder) / name for name in ("rows.jsonl", "candidates.parquet", "skipped.jsonl"))
        file.write_text("".join(json.dumps(each) + "\n" for each in (damaged, twiff("Another?"))))
        read.read([file], out, files, manifest, 0.5, check_clips=False)
        found = list(candidates.read(out))
        assert found[-1]["question"] == "<image>Another?"
        assert len(found) + len(manifest.read_text().splitlines()) == 2
