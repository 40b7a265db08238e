"""Clips where people have them: in a folder, by a template, as a map says."""

import json
from pathlib import Path
from typing import Any

import pytest

from future_l1_verl.data.locate import place
from future_l1_verl.data.reader import read
from future_l1_verl.data.rows import BadRow, RowError
from future_l1_verl.data.video import count_frames

FIELDS: dict[str, Any] = {
    "id": 7, "video": "ID_7.mp4", "question": "<image>?", "answer": "It falls.", "question_images_index": [1],
    "reasoning_images_index": [3], "meta_data": {"classification": "camera", "start": "0:04:09.165", "end": "0:04:57.213"},
    "shard": 3,
}  # fmt: skip


def found(videos: str | Path | None, folder: Path, fields: dict[str, Any] = FIELDS) -> str:
    return place(videos, folder / "rows.json").locate(fields, fields["video"])


def test_a_folder_by_default_that_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    assert found(None, tmp_path) == str(tmp_path / "ID_7.mp4")
    assert found(tmp_path / "clips", tmp_path) == str(tmp_path / "clips/ID_7.mp4")
    assert found(tmp_path / "clips", tmp_path, FIELDS | {"video": "/elsewhere/x.mp4"}) == "/elsewhere/x.mp4"


def test_a_name_may_begin_with_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").touch()
    assert found(tmp_path / "clips", tmp_path, FIELDS | {"video": "clips/a.mp4"}) == str(tmp_path / "clips/a.mp4")
    assert found(tmp_path / "clips", tmp_path, FIELDS | {"video": "."}) == str(tmp_path / "clips")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{id:05d}/{stem}.mkv", "00007/ID_7.mkv"),
        ("{shard:05d}/{shard:05d}_{id:05d}.mp4", "00003/00003_00007.mp4"),  # as Panda-70M's tool writes them
        ("clips/{stem}-{meta_data.start}-{meta_data.end}.mp4", "clips/ID_7-0:04:09.165-0:04:57.213.mp4"),
        ("clips/{meta_data.classification}/{name}", "clips/camera/ID_7.mp4"),
    ],
)
def test_a_template_has_the_fields_of_the_row(
    template: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert found(f"videos/{template}", tmp_path) == str(tmp_path / "videos" / expected)
    as_json = FIELDS | {"meta_data": json.dumps(FIELDS["meta_data"])}
    assert found(f"videos/{template}", tmp_path, as_json) == str(tmp_path / "videos" / expected)
    fields = place(template, tmp_path).fields
    assert fields == {"id", "shard", "meta_data"} & set(template.replace("{", " ").replace(":", " ").replace(".", " ").split())


def test_a_template_that_does_not_fit_costs_the_row(tmp_path: Path) -> None:
    fields = FIELDS | {"category": None, "meta_data": FIELDS["meta_data"] | {"shot": None}}
    (tmp_path / "rows.json").write_text(json.dumps([fields]))
    for template in (
        "{key}.mp4",
        "{meta_data.begin}.mp4",
        "{video:05d}.mp4",
        "{category}.mp4",
        "{meta_data.shot}.mp4",
        "{}.mp4",
    ):
        (row,) = read([tmp_path / "rows.json"], template)
        assert isinstance(row, BadRow) and row.reason.startswith("the template of clips does not fit the row: " + template)


@pytest.mark.parametrize("kind", ["json", "csv", "tsv"])
@pytest.mark.parametrize("key", ["ID_7.mp4", "ID_7", "7"])
def test_a_map_by_name_stem_or_id(kind: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    path = tmp_path / f"maps/clips.{kind}"
    comma = "\t" if kind == "tsv" else ","
    path.write_text(
        json.dumps({key: "00000/0000000_00000.mp4"}) if kind == "json" else f"{key}{comma}00000/0000000_00000.mp4\n"
    )
    assert found(path, tmp_path) == str(tmp_path / "maps/00000/0000000_00000.mp4")
    (tmp_path / "rows.json").write_text(json.dumps([FIELDS | {"video": "other.mp4", "id": 8}]))
    (row,) = read([tmp_path / "rows.json"], path)
    assert isinstance(row, BadRow) and row.reason.startswith("video is not in the map of clips: other.mp4")


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="gone: is neither a folder nor a file that maps names to clips, nor a template"):
        place(tmp_path / "gone", tmp_path)
    for content in ("[1, 2]", '{"a": 3}', '{"a": {"path": "b"}}', "3", "no JSON"):
        (tmp_path / "map.json").write_text(content)
        with pytest.raises(RowError, match=r"map\.json: is no map of clips"):
            place(tmp_path / "map.json", tmp_path)


@pytest.mark.parametrize("content", ["a.mp4,b.mp4,c.mp4", "a.mp4", "a.mp4;b.mp4", "a.mp4," + "x" * 200_000])
def test_a_line_that_is_no_pair_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text(f"ID_7.mp4,c.mp4\n\n{content}\n")
    with pytest.raises(RowError, match=r"map\.csv: is no map of clips"):
        place(tmp_path / "map.csv", tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("map.csv", "ID_7.mp4,a.mp4\nx,y\nID_7.mp4,b.mp4\n"), ("map.json", '{"ID_7": "a.mp4", "ID_7": "b.mp4"}')],
)
def test_a_name_with_two_clips_is_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RowError, match=r"has two clips for one name: ID_7"):
        place(tmp_path / name, tmp_path)
    (tmp_path / name).write_text(content.replace("b.mp4", "a.mp4"))
    assert found(tmp_path / name, tmp_path) == str(tmp_path / "a.mp4")


def test_a_row_without_an_id_is_no_entry_none(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"None": "a.mp4"}')
    with pytest.raises(RowError, match=r"video is not in the map of clips: ID_7\.mp4"):
        found(tmp_path / "map.json", tmp_path, FIELDS | {"id": None})


def test_a_file_name_is_no_protocol(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes what stands before the first colon of a relative path for one."""
    (tmp_path / "ID-0:04:09.165-0:04:57.213.mp4").write_bytes((media / "ID_7.mp4").read_bytes())
    (tmp_path / "rows.json").write_text(json.dumps([FIELDS | {"video": "ID-0:04:09.165-0:04:57.213.mp4"}]))
    monkeypatch.chdir(tmp_path)
    for videos in (None, ".", "{video}"):
        (row,) = read(["rows.json"], videos)
        assert count_frames(row.video) == 12
