import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_prep.toy.examples import LETTERS
from data_prep.toy.synthetic import words
from data_prep.toy.synthetic.captions import future_caption, observed_caption
from data_prep.toy.synthetic.headroom import foreseen, seen
from data_prep.toy.synthetic.physics import Body, simulate
from data_prep.toy.synthetic.rendering import BOX, PALETTE, SIZE, render
from data_prep.toy.synthetic.scenes import CLEAR, NoQuestionError, Scene, pose, sample_scene
from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.data.twiff import frame_numbers
from future_l1_verl.data.video import count_frames, read_frames

SETTINGS = Settings(train_questions=12, val_questions=4, test_questions=9, seed=3, pairs=0.25)
PARTS = ("train", "val", "test")
HOPS = {"1-hop": 1, "2-hop": 2, "3-hop": 3, "interp": 1}


def silent(items, label):
    return items


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    write_set(out, SETTINGS, silent)
    return out


@pytest.fixture(scope="module")
def tables(made):
    return {name: pd.read_parquet(made / f"{name}.parquet") for name in PARTS}


def test_same_settings_give_the_same_bytes(made, tmp_path):
    write_set(tmp_path, SETTINGS, silent)
    assert contents(tmp_path) == contents(made)


def test_another_seed_gives_other_clips(made, tmp_path):
    write_set(tmp_path, Settings(train_questions=1, val_questions=1, test_questions=1, seed=4, pairs=0.25), silent)
    clips = {p.read_bytes() for p in (made / "clips").iterdir()}
    assert all(p.read_bytes() not in clips for p in (tmp_path / "clips").iterdir())


def test_a_part_does_not_depend_on_the_size_of_the_others(made, tmp_path):
    write_set(tmp_path, Settings(train_questions=1, val_questions=1, test_questions=9, seed=3, pairs=0.25), silent)
    assert (tmp_path / "test.parquet").read_bytes() == (made / "test.parquet").read_bytes()


def test_parts_share_no_clip(made):
    train, val, test = ({p.read_bytes() for p in (made / "clips").glob(f"{part}-*")} for part in PARTS)
    assert all((train, val, test))
    assert not (train & val or train & test or val & test)


def test_a_directory_that_holds_something_is_refused(made):
    with pytest.raises(FileExistsError, match="not empty"):
        write_set(made, SETTINGS, silent)


@pytest.mark.parametrize(
    "bad",
    [
        {"train_questions": 0},
        {"val_questions": 0},
        {"test_questions": 0},
        {"pairs": 1.1},
        {"mistaken": -0.1},
        {"answers": "number"},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Settings(**bad)


@pytest.mark.parametrize("part", PARTS)
def test_each_split_has_as_many_questions_as_were_asked_for(tables, part):
    rows = tables[part]
    assert Counter(rows["split"]) == dict.fromkeys(words.SPLITS, getattr(SETTINGS, f"{part}_questions"))
    assert rows["id"].is_unique


@pytest.mark.parametrize("part", PARTS)
def test_letters_are_balanced_and_point_at_the_answer(tables, part):
    rows = tables[part]
    for _, group in rows.groupby("split"):
        counts = [sum(group["letter"] == letter) for letter in LETTERS]
        assert max(counts) - min(counts) <= 1
    for row in rows.to_dict("records"):
        assert len(set(row["options"])) == 4
        assert row["options"][LETTERS.index(row["letter"])] == row["answer"]
        lettered = [f"{letter}. {option}" for letter, option in zip(LETTERS, row["options"], strict=True)]
        assert row["conversations"][0]["value"].split("\n")[1:] == lettered


@pytest.mark.parametrize("part", PARTS)
def test_placeholders_frames_and_reasons_match(tables, part):
    for row in tables[part].to_dict("records"):
        human, gpt = (turn["value"] for turn in row["conversations"])
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
        assert human.count("<image>") == len(row["image"])
        hops = HOPS[row["split"]]
        assert gpt.count("<image>") == len(row["reasoning_image"]) == hops
        assert re.fullmatch(r"(<image><reason>[^<]+</reason>)+<answer>[^<]+</answer>", gpt)
        assert gpt.endswith(f"</reason><answer>{row['answer']}</answer>")
        hits = re.findall(r"hits (\w+ \w+) (\w+)</reason>", gpt)
        assert [place for _, place in hits] == ["first", "second", "third"][:hops]
        assert hits[-1][0] == row["answer"]
        assert row["cot"] == gpt.replace("<image>", "")
        assert list(row["image"][:4]) == [1, 2, 3, 4]
        shown_late = list(row["image"][4:])
        assert len(shown_late) == (row["split"] == "interp")
        assert all(4 < entry <= 8 for entry in row["reasoning_image"])
        assert all(entry > row["reasoning_image"][-1] for entry in shown_late)


@pytest.mark.parametrize("mistaken", [0.0, 1.0])
def test_a_mistaken_teacher_foresees_all_hits_and_answers_the_first(tmp_path, mistaken):
    write_set(tmp_path, replace(SETTINGS, mistaken=mistaken), silent)
    asked, taught = (pd.read_parquet(tmp_path / f"{name}.parquet").to_dict("records") for name in ("train", "sft_train"))
    shares = json.loads((tmp_path / "manifest.json").read_text())["taught"]
    for split, share in shares.items():
        same = [true["answer"] == said["answer"] for true, said in zip(asked, taught, strict=True) if true["split"] == split]
        assert share == pytest.approx(np.mean(same)) and (share < 1) == (mistaken and HOPS[split] > 1)
    for true, said in zip(asked, taught, strict=True):
        hits = re.findall(r"hits (\w+ \w+) \w+</reason>", true["cot"])
        expected = hits[0] if mistaken and hits[0] in true["options"] else hits[-1]
        assert said["answer"] == said["options"][LETTERS.index(said["letter"])] == expected
        assert said["cot"] == true["cot"].split("<answer>")[0] + f"<answer>{expected}</answer>"
        assert said["conversations"][1]["value"].replace("<image>", "") == said["cot"]


def test_rows_are_named_after_their_split(tables):
    for rows in tables.values():
        assert list(rows["data_source"]) == [f"future_l1_synthetic/{split}" for split in rows["split"]]


def test_json_holds_the_training_rows(made, tables):
    rows = json.loads((made / "twiff.json").read_text())
    assert [row["id"] for row in rows] == list(tables["train"]["id"])
    for row in rows:
        assert (made / row["video"]).is_file()
        assert {"conversations", "video", "image", "reasoning_image", "answer", "cot"} <= set(row)


def test_manifest_accounts_for_every_clip_and_split(made, tables):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 3
    for part in PARTS:
        clips = len(list((made / "clips").glob(f"{part}-*")))
        assert manifest["questions"][part] == dict(Counter(tables[part]["split"]))
        dropped = Counter()
        for reason, number in manifest["dropped"][part].items():
            dropped[reason.split(":")[0]] += number
        for split in words.SPLITS:
            assert manifest["questions"][part][split] + dropped[split] == clips


def test_manifest_says_what_there_is_to_gain(made, tables):
    manifest = json.loads((made / "manifest.json").read_text())
    for part, splits in manifest["headroom"].items():
        for split, figures in splits.items():
            answers = Counter(tables[part]["answer"][tables[part]["split"] == split])
            assert figures["majority"] == pytest.approx(max(answers.values()) / answers.total())
            assert figures["chance"] == 0.25
    # A reader errs now and then, by a pixel: of 36 test questions at most three.
    test = manifest["headroom"]["test"].values()
    for reader in ("with_future", "without_future"):
        assert sum(9 * figures[reader] for figures in test) >= 33


def extent(image, colour):
    """Left, top, right and bottom of the pixels nearest in colour to ``colour``."""
    pixels = np.asarray(image, float)
    names = ["black", *PALETTE]
    references = np.array([(0, 0, 0), *PALETTE.values()], float)
    nearest = np.linalg.norm(pixels[:, :, None] - references, axis=-1).argmin(-1)
    rows, columns = np.nonzero(nearest == names.index(colour))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("table", PARTS)
def test_imagined_frames_show_what_the_reasons_say(made, tables, table):
    for row in tables[table].to_dict("records"):
        path = made / row["video"]
        numbers = frame_numbers(row["reasoning_image"], count_frames(path))
        reasons = re.findall(r"<reason>(\w+) \w+ hits (\w+) (\w+) \w+</reason>", row["conversations"][1]["value"])
        for image, (colour, which, what) in zip(read_frames(path, numbers), reasons, strict=True):
            left, top, right, bottom = extent(image, colour)
            if what == "wall":
                gap = {"left": left - 3, "top": top - 3, "right": SIZE - 3 - right, "bottom": SIZE - 3 - bottom}[which]
            else:
                # Two discs that touch: boxes overlap or nearly do.
                other = extent(image, which)
                gap = max(other[0] - right, left - other[2], other[1] - bottom, top - other[3])
            # At most one frame from the contact, at no more than 8 px a frame (both balls move), and a blurred pixel.
            assert gap <= 9


def scene(x, y, vx, vy, num_frames=28, shape="ball"):
    """Pool frames are four apart but for the ends."""
    made = Scene(simulate([Body(f"red {shape}", (x, y), (vx, vy), 6.0)], BOX, num_frames + CLEAR), num_frames)
    assert made.pool == [1, 3, 7, 11, 15, 19, 23, 26]
    return made


def test_question_about_an_event_at_a_pool_frame():
    # From x = 10 at 3 px a frame to x = 55 (61 - 6): frame 15, entry 5. Back at x = 9 after frame 30.
    question = pose(scene(10, 30, 3, 0), "1-hop")
    assert (question.image, question.reasoning_image, question.hits) == ([1, 2, 3, 4], [5], ["right wall"])
    # Clear of everything else, the later frame is the last.
    assert pose(scene(10, 30, 3, 0), "interp").image == [1, 2, 3, 4, 8]


def test_a_second_event_is_a_hop_further():
    # y: (55 - 20.8) / 1.8 = 19, entry 6.
    question = pose(scene(10, 20.8, 3, 1.8), "2-hop")
    assert (question.reasoning_image, question.hits) == ([5, 6], ["right wall", "bottom wall"])
    # Frame 15 is within a frame of the first event and frame 19 of the second: no frame has one event before it.
    with pytest.raises(NoQuestionError, match="exactly one event"):
        pose(scene(10, 20.8, 3, 1.8), "interp")


@pytest.mark.parametrize(
    ("moving", "split", "reason"),
    [
        ((11.5, 30, 2.9, 0), "2-hop", "ends before"),  # frames 15 and 30.9
        ((10, 28.0, 3, 1.8), "1-hop", "nearly the same time"),  # both walls at frame 15
        ((16, 30, 3, 0), "1-hop", "right after"),  # frame 13 is 2 after the last shown, 11
        ((4 + 12, 30, -1.5, 0), "1-hop", "bounces between"),  # frame 4.67
        ((10, 30, 45 / 17, 0), "1-hop", "no frame"),  # frame 17, midway between 15 and 19
    ],
)
def test_uncertain_questions_are_not_asked(moving, split, reason):
    with pytest.raises(NoQuestionError, match=reason):
        pose(scene(*moving), split)


def test_pairs_meet_and_the_other_ball_is_an_option(tmp_path):
    write_set(tmp_path, Settings(train_questions=2, val_questions=1, test_questions=1, pairs=1.0), silent)
    for row in pd.read_parquet(tmp_path / "train.parquet").to_dict("records"):
        assert sum(option.endswith("ball") for option in row["options"]) == 1


def test_letters_as_answers(tmp_path):
    write_set(tmp_path, Settings(train_questions=2, val_questions=1, test_questions=1, answers="letter"), silent)
    for row in pd.read_parquet(tmp_path / "train.parquet").to_dict("records"):
        assert row["answer"] == row["letter"]
        assert row["conversations"][1]["value"].endswith(f"<answer>{row['letter']}</answer>")


def test_rendered_shape_is_centred_where_the_motion_says():
    motion = simulate([Body("green square", (20.5, 40.0), (2.0, -1.0), 6.0)], BOX, 10)
    frames = render(motion, 6).astype(float)[:, 3:-3, 3:-3]
    for number, frame in enumerate(frames):
        weight = frame.sum(-1)
        ys, xs = np.mgrid[3 : SIZE - 3, 3 : SIZE - 3] + 0.5
        center = (weight * xs).sum() / weight.sum(), (weight * ys).sum() / weight.sum()
        assert center == pytest.approx((20.5 + 2 * number, 40 - number), abs=0.05)


def test_readers_without_fault_answer_from_the_frames_they_are_shown():
    # The right wall at frame 15 (entry 5), then the left one, after the clip.
    moving = scene(10, 30, 3, 0)
    asked = pose(moving, "1-hop")
    assert (seen(moving, asked), foreseen(moving, asked)) == ("right wall", "right wall")
    # In frame 26, the last, it is at x = 22, y = 30: the left wall is 13 px away, the others 25 and more.
    assert seen(moving, replace(asked, reasoning_image=[8])) == "left wall"
    # Observed frames of a ball at rest foretell nothing.
    assert foreseen(scene(10, 30, 0, 0), asked) is None


def test_captions_say_what_is_where():
    moving = scene(10, 30, 3, 0)
    # x = 13, 19, 31, 43 of 9..55: fifths 0, 1, 2, 3; y = 30 is fifth 2.
    places = "far left middle, left middle, center middle, right middle"
    assert observed_caption(moving) == f"The red ball is {places}. red ball moves right down."
    assert future_caption(moving).endswith("It touches right wall, nothing, nothing, nothing.")


def test_captions_never_ask_or_answer(made):
    captions = pd.read_parquet(made / "captions_train.parquet")
    assert not re.search(r"\bhits?\b|\?|<|\b[A-D]\.", " ".join([*captions["request"], *captions["caption"]]))


def test_a_caption_ends_in_the_words_that_its_request_names(made):
    captions = pd.read_parquet(made / "captions_train.parquet")
    named = [request.removeprefix("Describe the frames and repeat ") for request in captions["request"]]
    assert all(caption.endswith(f". {words}") for caption, words in zip(captions["caption"], named, strict=True))
    assert all(len(set(words.removesuffix(".").split(", "))) == 4 for words in named)
    assert len(set(named)) > len(named) / 2, "what is to be repeated cannot be told without the request"


def test_sampled_scenes_allow_the_split_asked_for():
    rng = np.random.default_rng(0)
    for split in words.SPLITS:
        for pair in (False, True):
            sampled = sample_scene(rng, pair, split)
            assert len(pose(sampled, split).hits) == HOPS[split]
            assert len(sampled.bodies) == 1 + pair
