"""Rows of every format, in the form in which people have them, and what is wrong with bad ones.

Of the real data sets none is here: the files of ``golden/`` were made in their forms.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from future_l1_verl.data.clips import Clips, even_numbers
from future_l1_verl.data.formats import FORMATS, parse
from future_l1_verl.data.locate import place
from future_l1_verl.data.reader import read
from future_l1_verl.data.rows import BadRow, Clip, Picture, Row, RowError, Turn
from future_l1_verl.data.seeing import see
from future_l1_verl.data.twiff import frame_numbers

GOLDEN = Path(__file__).with_name("golden")
OPTIONS = ("It falls.", "It rolls.", "It stops.", "It burns.")
LISTED = "\nA. It falls.\nB. It rolls.\nC. It stops.\nD. It burns."


def golden(name: str, media: Path) -> list[Row | BadRow]:
    return list(read([GOLDEN / name], media))


def asked(row: Row | BadRow) -> str:
    assert isinstance(row, Row), row
    (turn,) = row.turns
    assert turn.role == "user"
    return turn.text


def test_the_rows_of_the_page_are_those_of_the_golden_files() -> None:
    """docs/data.md, "Rows to copy"; what becomes of each golden row is asserted below."""
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    rows = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    known = []
    for path in GOLDEN.iterdir():
        text = path.read_text()
        found = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        known += found["data"] if isinstance(found, dict) else found
    assert len(rows) == 9 and all(row in known for row in rows)


def test_every_format_has_a_golden_file(media: Path) -> None:
    """A row knows its format by its fields; `data_source` says it where the row names no other."""
    found = {
        parse(fields, "", 0, place(media, GOLDEN).locate).data_source
        for path in GOLDEN.iterdir()
        for fields in rows_of(path)
        if "data_source" not in fields
    }
    assert found == set(FORMATS) - {"verl_chat"}  # whose rows always name one


def rows_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    found = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    return found["data"] if isinstance(found, dict) else found


def test_twiff_in_parquet(media: Path, tmp_path: Path) -> None:
    """Its own types: lists of int64, and the metadata as a struct."""
    pq.write_table(pa.Table.from_pylist(rows_of(GOLDEN / "twiff_train.json")), tmp_path / "train-00000-of-00001.parquet")
    one, other = read([tmp_path], media)
    assert asked(one) == "frame_1\n<image>\nframe_2\n<image>\nWhat next?"
    assert (one.observed, one.future, one.truth, one.category) == ((1, 2), (5, 7), "It lands on the floor.", "predictive")
    assert one.response == "It rolls.\n<image>\nIt falls.\n<image>\nIt lies still.\n<answer>It lands on the floor.</answer>"
    assert one.said == (
        "<reason>It rolls.</reason><image><reason>It falls.</reason><image><reason>It lies still.</reason>"
        "<answer>It lands on the floor.</answer>"
    )
    assert (other.future, other.truth, other.response) == (
        (3,),
        "It falls.",
        "It rolls.\n<image>\nIt fell.\n<answer>It falls.</answer>",
    )


@pytest.mark.parametrize(
    "answer",
    [
        "One.<RIMAGE>Two.<Ans>It falls.</ANS>",
        "One.< rimage />Two.< ans >It falls.< /ans >",
        "<Reason>One.</Reason><Image><reason>Two.</ reason><Answer>It falls.</Answer>",
    ],
)
def test_tags_in_other_spellings_are_those_tags(answer: str, media: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([twiff(answer=answer, reasoning_images_index=[5])]))
    (row,) = read([tmp_path / "rows.json"], media)
    assert row.said == "<reason>One.</reason><image><reason>Two.</reason><answer>It falls.</answer>"
    (tmp_path / "rows.json").write_text(json.dumps([stage_2(answer="< Answer >right</ans >")]))
    (row,) = read([tmp_path / "rows.json"], media)
    assert row.truth == "right"


@pytest.mark.parametrize("answer", ["A<rimage>B<ans>It falls.</ans> Then C.", "A<rimage>B</reason><ans>It falls.</ans>(end)"])
def test_what_follows_the_answer_is_no_reasoning(answer: str, media: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([twiff(answer=answer, reasoning_images_index=[5])]))
    (row,) = read([tmp_path / "rows.json"], media)
    assert row.truth == "It falls."
    with pytest.raises(RowError, match="response goes on after its answer: "):
        row.require_response()


def test_options_that_are_pictures_are_asked_by_letter(media: Path, tmp_path: Path) -> None:
    """What stands behind their letters cannot be told apart as text."""
    fields = {"problem": "Which?\nA. <image>\nB. <image>", "answer": "B", "images": ["picture.png"] * 2}
    (tmp_path / "rows.json").write_text(json.dumps([fields]))
    (row,) = read([tmp_path / "rows.json"], media)
    assert (row.options, row.truth) == ((), "B")


def test_options_are_not_asked_twice_where_the_question_goes_on(media: Path, tmp_path: Path) -> None:
    problem = "<image><image>Where to?\nA. left\nB. right\nAnswer with the letter."
    (tmp_path / "rows.json").write_text(json.dumps([stage_2(problem=problem, options=["left", "right"])]))
    (row,) = read([tmp_path / "rows.json"], media)
    assert asked(row) == problem and row.options == ("left", "right")


def test_twiff_as_json_lines(media: Path) -> None:
    for row, observed in zip(golden("twiff.jsonl", media), ((1, 2), (1,)), strict=True):
        assert (row.observed, row.future, row.truth, row.video) == (observed, (5,), "It falls.", str(media / "ID_7.mp4"))
        assert row.said == "<reason>It rolls.</reason><image><reason>It fell.</reason><answer>It falls.</answer>"


def test_the_published_50k_gets_the_tags_that_stage_1_teaches(media: Path) -> None:
    (row,) = golden("future_l1_50k.json", media)
    assert row.said == "<reason>One.</reason><image><reason>Two.</reason><answer>It falls.</answer>"
    assert (row.observed, row.future, row.category, row.gains) == ((1,), (3,), "instructional", (4, 2, 6))


def test_twiff_bench_as_json_lines_shows_the_frames_that_it_names(media: Path) -> None:
    placed, unplaced = golden("twiff_bench.jsonl", media)
    assert asked(placed) == "frame_1\n<image>\nWhat next?" and placed.truth == "It falls."
    assert asked(unplaced) == "<image>What next?" and unplaced.truth == "It falls." and unplaced.response == ""
    assert see(placed, Clips()).numbers == see(unplaced, Clips()).numbers == frame_numbers([1], 12)
    assert see(placed, Clips()).future_numbers == frame_numbers([3], 12)


def test_twiff_bench_in_shards_needs_no_clip(media: Path, tmp_path: Path) -> None:
    picture = {"bytes": (media / "picture.png").read_bytes(), "path": None}
    fields = rows_of(GOLDEN / "twiff_train.json")[0] | {"question_images": [picture] * 2, "reasoning_images": [picture] * 2}
    for shard in range(2):
        table = pa.Table.from_pylist([fields | {"video": "gone.mp4"}])
        pq.write_table(table, tmp_path / f"test-0000{shard}-of-00002.parquet")
    rows = list(read([tmp_path]))
    assert [row.number for row in rows] == [0, 1]
    for row in rows:
        seen = see(row, Clips())
        assert [frame.image.getpixel((0, 0)) for frame in (*seen.observed, *seen.future)] == [(255, 0, 0)] * 4
        assert row.truth == "It lands on the floor." and row.files == [] and seen.numbers == []


def test_futurebench_shows_the_first_part_of_its_clip(media: Path) -> None:
    listed, inlined = golden("futurebench.json", media)
    assert asked(listed) == "<video>What happens next?" + LISTED
    assert asked(inlined) == "<video>What lies between? A) It falls. B) It rolls. C) It stops. D) It burns."
    for row, kind in ((listed, "hop2"), (inlined, "hop5")):
        assert (row.options, row.category, row.id) == (OPTIONS, kind, "v0")
        assert row.observed == (Clip(str(media / "first_part_video/youtube/v0.mp4")),)
        assert see(row, Clips(), 4).numbers == even_numbers(6, 4)


def test_v1_33k_asks_with_options_where_it_has_them(media: Path) -> None:
    choice, open_answer = golden("v1_33k.json", media)
    assert (asked(choice), choice.truth, choice.options) == ("<video>What happens next?" + LISTED, "B", OPTIONS)
    assert (asked(open_answer), open_answer.truth, open_answer.options) == ("<video>What happens next?", "It rolls.", ())
    assert choice.clip == open_answer.clip == str(media / "first_part_video/youtube/v0.mp4")


def test_easyr1_in_an_object(media: Path) -> None:
    picture, clip = golden("easyr1.json", media)
    assert (asked(picture), picture.observed) == ("<image>How many cups are there?", (Picture(str(media / "picture.png")),))
    assert (clip.options, clip.truth) == (("It falls.", "It rolls."), "B")
    assert clip.observed == (Clip(str(media / "first_part_video/youtube/v0.mp4")),)


def test_video_r1(media: Path) -> None:
    clip, picture = golden("video_r1.json", media)
    assert (asked(clip), clip.truth) == ("<video>What happens next?\nA. It falls.\nB. It rolls.", "B")
    assert clip.observed == (Clip(str(media / "ID_7.mp4")),) and clip.data_source == "LLaVA-Video-178K"
    assert (asked(picture), picture.truth, picture.options) == ("<image>How many cups are there?", "3", ())


def test_verls_own_rows(media: Path) -> None:
    (row,) = golden("geo3k.json", media)
    assert (asked(row), row.truth, row.data_source) == ("<image>Find x. You FIRST think.", "3", "hiyouga/geometry3k")
    assert row.question == "Find x. You FIRST think." and row.observed == (Picture(str(media / "picture.png")),)


def test_our_rows_of_stage_2(media: Path) -> None:
    (row,) = golden("stage_2.json", media)
    assert (asked(row), row.truth, row.observed, row.future) == (
        "<image><image>Where to?\nA. left\nB. right",
        "right",
        (1, 2),
        (5,),
    )
    assert (row.category, row.data_source, row.question) == ("2-hop", "set/2-hop", "Where to?\nA. left\nB. right")


def test_our_rows_are_asked_to_the_letter(media: Path, tmp_path: Path) -> None:
    """Their options are for the verdict, unless the problem lists them; others' are for the prompt too."""
    ours = rows_of(GOLDEN / "stage_2.json")[0] | {"problem": "<image><image>Where to?"}
    theirs = rows_of(GOLDEN / "easyr1.json")[0] | {"problem": "<image>Where to?", "answer": "A", "options": ["left", "right"]}
    (tmp_path / "rows.json").write_text(json.dumps([ours, theirs]))
    one, other = read([tmp_path / "rows.json"], media)
    assert (asked(one), one.options) == ("<image><image>Where to?", ("left", "right"))
    assert (asked(other), other.options) == ("<image>Where to?\nA. left\nB. right", ("left", "right"))


def test_chat_rows(media: Path) -> None:
    mixed, columns, parts = golden("chat.json", media)
    assert mixed.observed == (Clip(str(media / "ID_7.mp4")), Picture(str(media / "picture.png")))
    assert [turn.role for turn in columns.turns] == ["system", "user"]
    assert asked(parts) == "<image>What?" and parts.said == columns.said == "A cup."


# The future is never shown.


@pytest.mark.parametrize("name", ["futurebench.json", "v1_33k.json", "easyr1.json"])
@pytest.mark.parametrize("trick", ["folder", "link", "hard link", "copy", "template", "map"])
def test_a_clip_with_the_future_in_it_is_refused(name: str, trick: str, media: Path, tmp_path: Path) -> None:
    whole, first = media / "video_dataset/youtube/v0.mp4", tmp_path / "first_part_video/youtube/v0.mp4"
    (tmp_path / "video_dataset/youtube").mkdir(parents=True)
    (tmp_path / "video_dataset/youtube/v0.mp4").write_bytes(whole.read_bytes())
    first.parent.mkdir(parents=True)
    videos: Path | str = tmp_path
    match trick:
        case "folder":
            videos = tmp_path / "video_dataset"
        case "link":
            first.symlink_to(whole)
        case "hard link":
            first.hardlink_to(tmp_path / "video_dataset/youtube/v0.mp4")
        case "copy":
            first.write_bytes(whole.read_bytes())
        case "template":
            videos = f"{tmp_path}/video_dataset/youtube/{{name}}"
        case "map":
            videos = tmp_path / "map.json"
            videos.write_text(json.dumps({"video_dataset/youtube/v0.mp4": str(whole)}))
    rows = [row for row in read([GOLDEN / name], videos) if "picture.png" not in str(row)]
    assert rows and all(isinstance(row, BadRow) and row.reason.startswith("the future would be shown: ") for row in rows)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("frame_idx", [1, 2], pa.list_(pa.int64())),
        ("question_frames", [1, 2], pa.large_list(pa.int32())),
        ("image_ids", [1, 2], pa.list_(pa.uint8(), 2)),
        ("shown", [[1, 2], [3]], pa.list_(pa.list_(pa.int16()))),
        ("shown", ["1", "2"], pa.list_(pa.string())),
        ("shown", {"at": [0.5, 1.5]}, pa.struct({"at": pa.list_(pa.float32())})),
        ("shown", {"last_frame": 3}, pa.struct({"last_frame": pa.int64()})),
        ("Frames_used", ["1.png"], pa.list_(pa.string())),
        ("start_frame", 3, pa.int32()),
        ("frames_of", "1-4", pa.large_string()),
    ],
)
def test_a_row_that_names_its_frames_never_falls_back_to_the_whole_clip(
    field: str, value: Any, kind: pa.DataType, media: Path, tmp_path: Path
) -> None:
    fields = {"video": "ID_7.mp4", "question": "What next?", "answer": "It falls.", field: value}
    table = pa.Table.from_pylist([{name: fields[name] for name in ("video", "question", "answer")}])
    pq.write_table(table.append_column(field, pa.array([value], kind)), tmp_path / "rows.parquet")
    problem = {"problem" if name == "question" else name: value for name, value in fields.items()}
    choice = changed("v1_33k.json") | {field: value}
    (tmp_path / "rows.json").write_text(json.dumps([fields, problem, choice]))
    for row in read([tmp_path / "rows.parquet", tmp_path / "rows.json"], media):
        assert isinstance(row, BadRow) and row.reason.startswith(f"frames are named in an unknown way: {field}")


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "<video>?"}, {"role": "assistant", "content": "It falls."}]},
        {"prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "It falls."}},
        {"problem": "What next?", "answer": "It falls."},
    ],
)
@pytest.mark.parametrize("named", ["video_dataset/youtube/v0.mp4", "./Video_Dataset/youtube/v0.mp4"])
def test_whoever_shows_a_whole_clip_shows_its_first_part(
    fields: dict[str, Any], named: str, media: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([fields | {"videos": [{"video": named}]}]))
    (row,) = read([tmp_path / "rows.json"], media)
    assert row.clip == str(media / "first_part_video/youtube/v0.mp4")
    (row,) = read([tmp_path / "rows.json"], f"{media}/video_dataset/youtube/{{name}}")
    assert isinstance(row, BadRow) and row.reason.startswith("the future would be shown: ")


def test_a_folder_of_whole_clips_is_known_in_any_case(media: Path, tmp_path: Path) -> None:
    (tmp_path / "VIDEO_DATASET").mkdir()
    (tmp_path / "VIDEO_DATASET/v0.mp4").write_bytes((media / "video_dataset/youtube/v0.mp4").read_bytes())
    (tmp_path / "rows.json").write_text(json.dumps([changed("futurebench.json", video_path="v0.mp4")]))
    (row,) = read([tmp_path / "rows.json"], tmp_path / "VIDEO_DATASET")
    assert isinstance(row, BadRow) and row.reason.startswith("the future would be shown: ")


# What is wrong, and how the reason begins.


def changed(name: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    return rows_of(GOLDEN / name)[index] | fields


def twiff(**fields: Any) -> dict[str, Any]:
    return changed("twiff_train.json", **fields)


def talk(human: str, gpt: str, **fields: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]
    return changed("future_l1_50k.json", conversations=said, **fields)


def question(**qa: Any) -> dict[str, Any]:
    row = changed("futurebench.json")
    return row | {"qa": row["qa"] | qa}


def stage_2(**fields: Any) -> dict[str, Any]:
    return changed("stage_2.json", **fields)


BAD: dict[str, tuple[Any, str]] = {
    "no object": (["video"], "row is not an object with fields: ['video']"),
    "no form": ({"video": "ID_7.mp4", "text": "?"}, "unknown form: no format of "),
    "two forms": (twiff(conversations=[]) | {"frames": None}, "ambiguous form: conversations and twiff both know"),
    "no video": (twiff(video=None), "video or video_path is missing"),
    "video of another type": (twiff(video=["x.mp4"]), "video is not a string: ['x.mp4']"),
    "empty video": (twiff(video=" "), "video is empty"),
    "video gone": (twiff(video="gone.mp4"), "video or image is missing: "),
    "no answer": (twiff(answer=None), "answer is missing"),
    "answer as a number": (twiff(answer=3), "answer is not a string: 3"),
    "nothing after the frames": (twiff(answer="Up.<rimage>Down.<rimage>"), "answer is empty: nothing follows the last <image>"),
    "an answer that is not closed": (twiff(answer="Up.<rimage>A<rimage>B<ans>Down."), "answer is not clear: <answer> is left"),
    "a frame as the answer": (twiff(answer="A<rimage>B<rimage>C<ans><rimage></ans>"), "placeholders do not fit: 3 <image>"),
    "another tag in the answer": (twiff(answer="A<rimage>B<rimage>C<ans><b>D</b></ans>"), "response has other tags: <b>, </b>"),
    "a tag around a short answer": (stage_2(answer="<final>right</final>"), "answer is not clear: <final> is left in it"),
    "two answers": (talk("<image>?", "A<image>B<answer>It rises.</answer>"), "two answers: 'It rises.' in the response, 'It"),
    "two answers of TwiFF": (twiff(response="A<rimage>B<rimage>C<ans>D</ans>"), "two answers: 'D' in the response, "),
    "another tag in the reasoning": (twiff(answer="<think>A<rimage>B<rimage>C<ans>D</ans>"), "response has other"),
    "indices missing": (twiff(question_images_index=None), "question_images_index or frames or image is missing"),
    "future indices missing": (twiff(reasoning_images_index=None), "reasoning_images_index or recon_frames or"),
    "index 0": (twiff(question_images_index=[0, 1]), "frames go outside 1..8: [0]"),
    "index 9": (twiff(reasoning_images_index=[5, 9]), "frames go outside 1..8: [9]"),
    "indices as text": (twiff(question_images_index="1,2"), "question_images_index is not a list of frame numbers: '1,2'"),
    "an index as a fraction": (twiff(question_images_index=[1.0, 2.0]), "question_images_index is not a list of frame numbers"),
    "truth as an index": (twiff(question_images_index=[True, 2]), "question_images_index is not a list of frame numbers"),
    "no observed frame": (twiff(question_images_index=[]), "no observed frame"),
    "pictures without the future ones": (
        {"question": "?", "answer": "It falls.", "question_images": ["picture.png"], "reasoning_images": None},
        "reasoning_images is missing"),
    "nothing asked": (twiff(question="<image> <image>"), "question is empty"),
    "nothing asked in a talk": (talk("<image>", "A<image>B"), "question is empty"),
    "a place in capitals": (twiff(question="<Image><Image>What?"), "question has a place written in another way: <Image>"),
    "a place with a number": (changed("geo3k.json", prompt=[{"role": "user", "content": "<image><image 2>?"}]), "question has"),
    "too few places": (twiff(question="<image>?"), "placeholders do not fit: 1 <image> and 0 <video> in the question"),
    "too many frames": (twiff(answer="A<rimage>B<ans>C</ans>"), "placeholders do not fit: 1 <image>"),
    "frames without a place": (twiff(answer="A<ans>C</ans>"), "placeholders do not fit: 0 <image>"),
    "metadata of another type": (twiff(meta_data=[1]), "meta_data is not an object: [1]"),
    "metadata no JSON": (twiff(meta_data="{"), "meta_data is not JSON: Expecting property name"),
    "id of another type": (twiff(id=[1]), "id is neither a string nor a number: [1]"),
    "no gpt turn": (changed("twiff.jsonl", conversations=[{"from": "human", "value": "?"}]), "conversations are not one turn"),
    "three turns": (
        changed("twiff.jsonl", conversations=[*rows_of(GOLDEN / "twiff.jsonl")[0]["conversations"]] * 2), "conversations"),
    "turns of another form": (changed("twiff.jsonl", conversations=["what?", "left"]), "conversations are not turns of"),
    "a turn of another type": (talk("<image>?", 3), "conversations are not turns of role and content"),  # type: ignore[arg-type]
    "columns of other lengths": (
        changed("twiff.jsonl", conversations={"from": ["human", "gpt", "gpt"], "value": ["<image>?", "A"]}), "conversations"),
    "a part that is heard": (
        changed("geo3k.json", prompt=[{"role": "user", "content": [{"type": "audio"}, {"type": "image"}]}]), "prompt are not"),
    "a speaker that nobody knows": (changed("chat.json", messages=[{"role": "judge", "content": "?"}] * 2), "messages are"),
    "conversation without an answer": (talk("<image>?", "A<image>B", answer=None), "answer is missing"),
    "a letter beyond the options": (question(Answer="E"), "no option is the answer: "),
    "the text of no option": (question(Answer="It flies."), "no option is the answer: "),
    "a letter without options": (question(Options=None), "no options: the answer is 'B'"),
    "one option": (question(Options=["It rolls."]), "options cannot be used: "),
    "the same option twice": (question(Options=["It rolls.", "it rolls"]), "options cannot be used: "),
    "eleven options": (question(Options=[f"It does {n}." for n in range(11)], Answer="A"), "options cannot be used: "),
    "letters with a gap": (question(Options={"A": "left", "C": "right"}), "options cannot be used: "),
    "options as one string": (stage_2(options="left, right"), "options cannot be used: "),
    "other options than the question's": (stage_2(options=["right", "up"]), "options are not those that the question ends"),
    "fewer options than the question's": (question(Question="What? A) It falls. B) It rolls."), "options are not those that"),
    "an option with a clip in it": (question(Options={"A": "<video> rolls", "B": "It falls."}), "option has the place of"),
    "options as numbers": (stage_2(options=[1, 2]), "options cannot be used: "),
    "no option is right": (stage_2(answer="up"), "no option is the answer: "),
    "qa of another type": (changed("futurebench.json", qa=["?"]), "qa is not an object: ['?']"),
    "two questions in one": (changed("v1_33k.json", mc_qa=[{}, {}]), "mc_qa is not one question: there are 2"),
    "pictures and clips": (changed("easyr1.json", videos=["ID_7.mp4"]), "both pictures and clips"),
    "data of another type": (changed("video_r1.json", data_type="audio"), "data_type is one of image, video: 'audio'"),
    "data without a path": (changed("video_r1.json", path=None), "path is missing"),
    "a cut of a clip": (changed("easyr1.json", images=None, videos=[{"video": "ID_7.mp4", "video_end": 1.0}]), "videos are"),
    "a picture as a number": (changed("easyr1.json", images=[3]), "images is not a path or an embedded picture: 3"),
    "an empty picture": (changed("geo3k.json", images=[{"bytes": b"".hex(), "path": None}]), "images is not a path"),
    "more pictures than places": (changed("geo3k.json", images=["picture.png"] * 2), "placeholders do not fit: 1 <image>"),
    "a place without a picture": (changed("geo3k.json", images=[]), "placeholders do not fit: 1 <image>"),
    "a prompt that ends with an answer": (
        changed("geo3k.json", prompt=[{"role": "assistant", "content": "<image>"}]), "prompt does not end with what a user"),
    "no ground truth": (changed("geo3k.json", reward_model={"style": "rule"}), "ground_truth is missing"),
    "a ground truth as a number": (changed("geo3k.json", reward_model={"ground_truth": 3}), "ground_truth is not a string: 3"),
    "a chat without an answer": (
        changed("chat.json", messages=[{"role": "user", "content": "?"}]), "messages: the last of at least two"),
    "a picture's token": (twiff(question="<image><image><|image_pad|>"), "text holds a special token: <|image_pad|>"),
    "a latent's token": (twiff(answer="A<rimage><|latent|>B<rimage>C<ans>D</ans>"), "text holds a special token: <|latent|>"),
    "the end of a turn": (stage_2(problem="<image><image>?<|im_end|>"), "text holds a special token: <|im_end|>"),
    "a token in an option": (question(Options=["It rolls.", "<|video_pad|>"], Answer="A"), "text holds a special token: <"),
    "half a character": (stage_2(problem="<image><image>\ud800?"), "text is not Unicode: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_listed_with_its_reason_and_stops_no_other(name: str, media: Path, tmp_path: Path) -> None:
    bad, reason = BAD[name]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (twiff(), bad, stage_2())))
    first, found, last = read([tmp_path / "rows.jsonl"], media)
    assert isinstance(first, Row) and isinstance(last, Row)
    assert isinstance(found, BadRow), found
    assert found.source == f"{tmp_path / 'rows.jsonl'}: row 1"
    assert found.reason.startswith(reason), found.reason


def test_a_format_is_one_file(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new one must bring is what the registry asks of it."""
    new = SimpleNamespace(
        KEYS=({"riddle", "solution_text"},),
        FIELDS=("riddle", "solution_text"),
        parse=lambda fields, locate: {"turns": (Turn("user", fields["riddle"]),), "truth": fields["solution_text"]},
    )
    fields = {"riddle": "What next?", "solution_text": "It falls."}
    with pytest.raises(RowError, match="unknown form"):
        parse(fields, "", 0, place(media, GOLDEN).locate)
    monkeypatch.setitem(FORMATS, "riddles", new)
    row = parse(fields, "file: row 0", 0, place(media, GOLDEN).locate)
    assert (row.question, row.truth, row.data_source) == ("What next?", "It falls.", "riddles")
