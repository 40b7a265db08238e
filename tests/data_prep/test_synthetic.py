import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from data_prep.examples import LETTERS
from data_prep.synthetic import words
from data_prep.synthetic.captions import future_caption, observed_caption
from data_prep.synthetic.physics import Body, simulate
from data_prep.synthetic.rendering import BOX, PALETTE, SIZE, render
from data_prep.synthetic.scenes import CLEAR, NoQuestionError, Scene, pose, sample_scene
from data_prep.synthetic.writing import Settings, write_set
from future_l1_verl.data.twiff import frame_numbers
from future_l1_verl.data.video import count_frames, read_frames

SETTINGS = Settings(clips=24, test_clips=8, seed=3, pairs=0.25)
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
    return {name: pd.read_parquet(made / f"{name}.parquet") for name in ("sft_train", "sft_test", "rl_train", "rl_test")}


def test_same_settings_give_the_same_bytes(made, tmp_path):
    write_set(tmp_path, SETTINGS, silent)
    assert contents(tmp_path) == contents(made)


def test_another_seed_gives_other_clips(made, tmp_path):
    write_set(tmp_path, Settings(clips=2, test_clips=1, seed=4, pairs=0.25), silent)
    clips = {p.read_bytes() for p in (made / "clips").iterdir()}
    assert all(p.read_bytes() not in clips for p in (tmp_path / "clips").iterdir())


def test_a_part_does_not_depend_on_the_size_of_the_other(made, tmp_path):
    write_set(tmp_path, Settings(clips=1, test_clips=8, seed=3, pairs=0.25), silent)
    assert (tmp_path / "rl_test.parquet").read_bytes() == (made / "rl_test.parquet").read_bytes()


def test_train_and_test_share_no_clip(made):
    parts = [{p.read_bytes() for p in (made / "clips").glob(f"{part}-*")} for part in ("train", "test")]
    assert [len(part) for part in parts] == [24, 8]
    assert not parts[0] & parts[1]


def test_a_directory_that_holds_something_is_refused(made):
    with pytest.raises(FileExistsError, match="not empty"):
        write_set(made, SETTINGS, silent)


@pytest.mark.parametrize("bad", [{"clips": 0}, {"test_clips": 0}, {"pairs": 1.1}, {"answers": "number"}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Settings(**({"clips": 1, "test_clips": 1} | bad))


def test_every_clip_is_drawn_for_one_split_and_asks_it(tables):
    ids = set(tables["sft_train"]["id"])
    assert {f"train-{i:05d}-{words.SPLITS[i % 4]}" for i in range(24)} <= ids
    assert len(ids) == len(tables["sft_train"])


@pytest.mark.parametrize("part", ["train", "test"])
def test_letters_are_balanced_and_point_at_the_answer(tables, part):
    rows = tables[f"rl_{part}"]
    for _, group in rows.groupby("split"):
        counts = [sum(group["letter"] == letter) for letter in LETTERS]
        assert max(counts) - min(counts) <= 1
    for row in rows.to_dict("records"):
        assert len(set(row["options"])) == 4
        assert row["options"][LETTERS.index(row["letter"])] == row["answer"]
        lettered = [f"{letter}. {option}" for letter, option in zip(LETTERS, row["options"], strict=True)]
        assert row["problem"].split("\n")[1:] == lettered


@pytest.mark.parametrize("part", ["train", "test"])
def test_placeholders_frames_and_reasons_match(tables, part):
    for row in tables[f"sft_{part}"].to_dict("records"):
        human, gpt = (turn["value"] for turn in row["conversations"])
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
        assert human.count("<image>") == len(row["image"])
        assert gpt.count("<image>") == len(row["reasoning_image"]) == HOPS[row["split"]]
        assert re.fullmatch(r"(<image><reason>[^<]+</reason>)+<answer>[^<]+</answer>", gpt)
        assert gpt.endswith(f"hits {row['answer']}</reason><answer>{row['answer']}</answer>")
        assert row["cot"] == gpt.replace("<image>", "")
        assert list(row["image"][:4]) == [1, 2, 3, 4]
        shown_late = list(row["image"][4:])
        assert len(shown_late) == (row["split"] == "interp")
        assert all(4 < entry <= 8 for entry in row["reasoning_image"])
        assert all(entry > row["reasoning_image"][-1] for entry in shown_late)


def test_rl_rows_ask_the_same_questions(tables):
    sft, rl = tables["sft_train"], tables["rl_train"]
    assert list(rl["id"]) == list(sft["id"])
    assert list(rl["problem"]) == [turns[0]["value"] for turns in sft["conversations"]]
    assert list(rl["data_source"]) == [f"future_l1_synthetic/{split}" for split in sft["split"]]


def test_json_holds_the_training_rows(made, tables):
    rows = json.loads((made / "twiff.json").read_text())
    assert [row["id"] for row in rows] == list(tables["sft_train"]["id"])
    for row in rows:
        assert (made / row["video"]).is_file()
        assert {"conversations", "video", "image", "reasoning_image", "answer", "cot"} <= set(row)


def test_manifest_accounts_for_every_clip_and_split(made, tables):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 3
    for part, clips in (("train", 24), ("test", 8)):
        assert manifest["questions"][part] == dict(Counter(tables[f"sft_{part}"]["split"]))
        dropped = Counter()
        for reason, number in manifest["dropped"][part].items():
            dropped[reason.split(":")[0]] += number
        for split in words.SPLITS:
            assert manifest["questions"][part][split] + dropped[split] == clips


def extent(image, colour):
    """Left, top, right and bottom of the pixels nearest in colour to ``colour``."""
    pixels = np.asarray(image, float)
    names = ["black", *PALETTE]
    references = np.array([(0, 0, 0), *PALETTE.values()], float)
    nearest = np.linalg.norm(pixels[:, :, None] - references, axis=-1).argmin(-1)
    rows, columns = np.nonzero(nearest == names.index(colour))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("table", ["sft_train", "sft_test"])
def test_imagined_frames_show_what_the_reasons_say(made, tables, table):
    for row in tables[table].to_dict("records"):
        path = made / row["video"]
        numbers = frame_numbers(row["reasoning_image"], count_frames(path))
        reasons = re.findall(r"<reason>(\w+) \w+ hits (\w+) (\w+)</reason>", row["conversations"][1]["value"])
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
    write_set(tmp_path, Settings(clips=4, test_clips=1, pairs=1.0), silent)
    for row in pd.read_parquet(tmp_path / "rl_train.parquet").to_dict("records"):
        assert sum(option.endswith("ball") for option in row["options"]) == 1


def test_letters_as_answers(tmp_path):
    write_set(tmp_path, Settings(clips=4, test_clips=1, answers="letter"), silent)
    for row in pd.read_parquet(tmp_path / "sft_train.parquet").to_dict("records"):
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


def test_captions_say_what_is_where():
    moving = scene(10, 30, 3, 0)
    # x = 13, 19, 31, 43 of 9..55: fifths 0, 1, 2, 3; y = 30 is fifth 2.
    places = "far left middle, left middle, center middle, right middle"
    assert observed_caption(moving) == f"The red ball is {places}. red ball moves right down."
    assert future_caption(moving).endswith("It touches right wall, nothing, nothing, nothing.")


def test_captions_never_ask_or_answer(made):
    text = " ".join(pd.read_parquet(made / "captions_train.parquet")["caption"])
    assert not re.search(r"\bhits?\b|\?|<|\b[A-D]\.", text)


def test_sampled_scenes_allow_the_split_asked_for():
    rng = np.random.default_rng(0)
    for split in words.SPLITS:
        for pair in (False, True):
            sampled = sample_scene(rng, pair, split)
            assert len(pose(sampled, split).hits) == HOPS[split]
            assert len(sampled.bodies) == 1 + pair
