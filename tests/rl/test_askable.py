"""Stage 2 finds the rows that it cannot ask before anything is started, all of them, without decoding a clip to its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bad_files
import pytest
import ray
from bad_files import pattern
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin

from data_prep.curation import candidates, read, stages
from future_l1_verl.data.formats import parse
from future_l1_verl.data.prompts import processor_inputs, prompt_length
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.skipped import Skipped
from future_l1_verl.evaluation import runner, tasks
from future_l1_verl.rewards.score import compute_score
from future_l1_verl.rl import checks
from future_l1_verl.rl.askable import CACHE, askable
from future_l1_verl.rl.dataset import LatentRLDataset
from future_l1_verl.toy import tiny
from future_l1_verl.training.checks import files

ROWS, BAD_ROWS = 40, 10
MAX_LENGTH = 300
Fields = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = bad_files.write(tmp_path_factory.mktemp("set"))
    tiny.build(out / "model")
    return out


@pytest.fixture(scope="module")
def processor(folder: Path) -> ProcessorMixin:
    return AutoProcessor.from_pretrained(folder / "model")


def asked(text: str = "Row?", **changed: Any) -> Fields:
    row = {"problem": f"<image>{text}", "answer": "left", "options": ["left", "right"], "video": "clip.mp4", "image": [3]}
    return row | changed


def pictured(image: str) -> Fields:
    return {"problem": "<image>Row?", "answer": "left", "images": [image]}


# What is wrong, and the reason that is given.
BAD: list[tuple[Any, str]] = [
    (asked("Row<|image_pad|>?"), "text holds a special token: <|image_pad|>"),
    (asked("Row?" + " left" * MAX_LENGTH), "prompt is too long: "),
    (asked(video="untimed.h264"), "a video needs frames with times"),
    (asked(answer=3), "answer is not a string: 3"),
    (asked(options="left, right"), "options cannot be used: .*not str"),
    (asked(options=[str(n) for n in range(11)], answer="3"), "options cannot be used: .*2 to 10, not 11"),
    (asked(answer="<final>left</final>"), "answer is not clear: <final> is left in it"),
    (asked(answer=" "), "answer is empty"),
    (asked(options=["left", "Left."]), "options cannot be used: .*must differ"),
    (asked(image=[1.0, 2.0]), "image is not a list of frame numbers: "),
    (asked(video="gone.mp4"), "video or image is missing: "),
    # Of the same kinds, but not what was reported.
    (asked(video="text.mp4"), "row cannot be prepared: VideoError: .*text.mp4: cannot be decoded"),
    (asked(video="sound.mp4"), "row cannot be prepared: VideoError: .*sound.mp4: holds no video stream"),
    (asked(video="short.mp4"), "row cannot be prepared: ValueError: a frame pool needs a video of at least 3 frames"),
    (asked("Row\udfff?"), "text is not Unicode: "),
    (asked(answer="<b class='x'>left"), "answer is not clear: <b class='x'> is left in it"),
    (asked(answer="left<image>right"), "answer is not clear: <image> is left in it"),
    (asked(answer=["left"]), "answer is not a string: "),
    (asked(options={"A": "left", "C": "right"}), "options cannot be used: .*by the letters"),
    (asked(options=0), "options cannot be used: .*not int"),
    (asked(options=["left", None]), "options cannot be used: every option must be a text"),
    (asked(answer="up"), "no option is the answer: "),
    (asked(image=[0]), "frames go outside 1..8"),
    ("left", "row is not an object with fields: "),
    (asked(video="a\0b.mp4"), "video or image is missing: "),
]
# As frames: pictures have no times.
BAD_PICTURES: list[tuple[Any, str]] = [
    (pictured("tall.png"), "row cannot be prepared: ValueError: absolute aspect ratio"),
    (pictured("flat.png"), "row cannot be prepared: ValueError: absolute aspect ratio"),
    (pictured("chunk.png"), "row cannot be prepared: PictureError: .*chunk.png: is no picture"),
    (pictured("cut.jpg"), "row cannot be prepared: PictureError: .*cut.jpg: cannot be read"),
    (pictured("bomb.png"), "row cannot be prepared: PictureError: .*bomb.png: cannot be read (DecompressionBombError: "),
]
SETS = {
    "reported, of frames": ("frames", [*BAD_PICTURES[:4], BAD[0], BAD[1], *BAD[3:7]]),
    "reported, of videos": ("video", [*BAD[:3], *BAD[4:11]]),
    "of the same kinds": ("video", BAD[11:21]),
    "of the same kinds, with pictures": ("frames", [*BAD[20:25], *BAD[11:15], BAD_PICTURES[4]]),
}


@dataclass(frozen=True)
class Forty:
    """Stage 2's settings for a file of forty rows; ``reasons`` why some cannot be asked, by number."""

    config: DictConfig
    reasons: dict[int, str]

    @property
    def manifest(self) -> Path:
        return Path(self.config.data.manifest)

    def listed(self) -> dict[int, str]:
        lines = [json.loads(line) for line in self.manifest.read_text().splitlines()]
        return {int(line["source"].rpartition(": row ")[2]): line["reason"] for line in lines}

    def dataset(self, processor: ProcessorMixin) -> LatentRLDataset:
        return LatentRLDataset(files(self.config.data.train_files), None, self.config.data, processor)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(folder: Path, out: Path, train: Path, val: Path, *overrides: str) -> DictConfig:
    given = [
        "platform=cpu", f"actor_rollout_ref.model.path={folder}/model", f"data.train_files={train}", f"data.val_files={val}",
        f"trainer.default_local_dir={out}", "data.train_batch_size=8", f"data.max_prompt_length={MAX_LENGTH}",
    ]  # fmt: skip
    with initialize_config_module("future_l1_verl.config.rl", version_base=None):
        found = compose("main", overrides=[*given, *overrides])
    checks.take_as_trained(found)
    return found


def forty(folder: Path, out: Path, bad: list[tuple[Any, str]], *overrides: str) -> Forty:
    """Every fourth row is bad, as long as there are ``bad`` ones."""
    wrong = {4 * place: item for place, item in enumerate(bad)}
    rows = [wrong[number][0] if number in wrong else asked(f"Row {number}?") for number in range(ROWS)]
    train = write(folder / f"{out.name}.jsonl", rows)
    val = write(folder / f"{out.name}_val.jsonl", [asked()])
    return Forty(config(folder, out, train, val, *overrides), {number: reason for number, (_, reason) in wrong.items()})


def never(*_: object, **__: object) -> None:
    pytest.fail("this must not be called")


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clips.count_frames", "clips.read_timed_frames", "video._decode"):
        monkeypatch.setattr(f"future_l1_verl.data.{name}", never)


@pytest.mark.parametrize("name", SETS)
def test_all_ten_of_forty_are_named_before_anything_is_started(
    name: str, folder: Path, tmp_path: Path, no_decoding: None
) -> None:
    form, bad = SETS[name]
    found = forty(folder, tmp_path, bad, f"data.observed={form}")
    assert len(found.reasons) == BAD_ROWS
    with pytest.raises(RowError, match=r"10 of 40 rows cannot be used, more than data\.max_bad_rate=0\.0:") as error:
        checks.check(found.config)
    assert not ray.is_initialized()
    listed = found.listed()
    assert listed.keys() == found.reasons.keys()
    for number, reason in found.reasons.items():
        named = re.search(rf"\.jsonl: row {number}: (.*)", str(error.value))[1]
        assert named == listed[number] and re.match(pattern(reason), named), (number, named)


@pytest.mark.parametrize("name", SETS)
def test_with_a_setting_they_are_left_out_and_listed(
    name: str, folder: Path, tmp_path: Path, processor: ProcessorMixin
) -> None:
    form, bad = SETS[name]
    found = forty(folder, tmp_path, bad, f"data.observed={form}", "data.max_bad_rate=0.25")
    checks.check(found.config)
    data = found.dataset(processor)
    good = sorted(set(range(ROWS)) - found.reasons.keys())
    assert [row.number for row in data.rows] == [data[place]["index"] for place in range(len(data))] == good
    assert found.listed().keys() == found.reasons.keys()
    # One of forty more than may be.
    found.config.data.max_bad_rate = 0.24
    with pytest.raises(RowError, match="10 of 40 rows cannot be used"):
        found.dataset(processor)


def test_the_rate_is_that_of_each_file_and_both_are_named(folder: Path, tmp_path: Path) -> None:
    """Ten bad rows of forty to train on are none of the one to validate with; and where both have too many, both are told."""
    found = forty(folder, tmp_path, BAD[3:13], "data.max_bad_rate=0.25")
    checks.check(found.config)
    write(folder / f"{tmp_path.name}_val.jsonl", [asked(), asked(answer=5)])
    found.config.data.max_bad_rate = 0.2
    with pytest.raises(
        RowError, match=r"(?s)10 of 40 rows .*: row 36: .*1 of 2 rows .*_val\.jsonl: row 1: answer is not a string"
    ):
        checks.check(found.config)


def looked_at(
    found: Forty, processor: ProcessorMixin, monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> tuple[set[int], set[int]]:
    """The rows whose prompts are built, and those that can be asked, in another start with changed settings."""
    from future_l1_verl.rl import askable as module

    build, built = module.prompt, set()
    monkeypatch.setattr(module, "prompt", lambda row, *others: (built.add(row.number), build(row, *others))[1])
    data = OmegaConf.merge(found.config.data, changed)
    rows = askable(files(data.train_files), data, processor, Skipped(found.manifest, 1.0))
    monkeypatch.undo()
    return built, {row.number for row in rows}


def test_the_second_start_takes_what_the_first_found_unless_something_changed(
    folder: Path, tmp_path: Path, processor: ProcessorMixin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those of them that can be read: the others are never asked about prompts.
    bad = [BAD[1], *BAD[11:14], (asked(video="other.mp4"), ""), BAD_PICTURES[0]]
    (folder / "other.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    found = forty(folder, tmp_path, bad, "data.max_bad_rate=0.25")
    shown, good = set(range(ROWS)) - {4, 8, 12}, set(range(ROWS)) - {0, 4, 8, 12, 20}
    assert looked_at(found, processor, monkeypatch)[1] == good
    assert (tmp_path / CACHE).is_file()
    assert looked_at(found, AutoProcessor.from_pretrained(folder / "model"), monkeypatch) == (set(), good)
    # By the trainer, which builds its processor in another way.
    from verl.utils.tokenizer import hf_processor

    assert looked_at(found, hf_processor(str(folder / "model")), monkeypatch) == (set(), good)

    for name, value in (
        ("max_prompt_length", MAX_LENGTH - 1),
        ("observed", "video"),
        ("system_prompt", "Think."),
        ("video_frames", 3),
    ):
        assert looked_at(found, processor, monkeypatch, **{name: value})[0] == shown
        assert looked_at(found, processor, monkeypatch, **{name: value})[0] == set()
    other = AutoProcessor.from_pretrained(folder / "model")
    other.chat_template = other.chat_template.replace("assistant", "assistant" + " left" * MAX_LENGTH)
    assert looked_at(found, other, monkeypatch) == (shown, set())

    (folder / "other.mp4").write_bytes((folder / "short.mp4").read_bytes())
    assert looked_at(found, processor, monkeypatch) == (set(), good - {16})  # its clip is looked at first
    assert found.listed()[16].startswith("row cannot be prepared: ValueError: a frame pool needs")
    os.utime(folder / "clip.mp4", (0, 0))
    assert looked_at(found, processor, monkeypatch) == (good - {16} | {0}, good - {16})


def test_a_clip_that_breaks_off_is_listed_when_its_turn_comes_and_the_next_row_is_given(
    folder: Path, tmp_path: Path, processor: ProcessorMixin
) -> None:
    wrong = [(asked(video="broken.mp4"), "video or image cannot be shown: .*broken.mp4: cannot be decoded")] * 3
    found = forty(folder, tmp_path, wrong, "data.max_bad_rate=0.1")
    checks.check(found.config)
    data = found.dataset(processor)
    assert len(data) == ROWS and not found.manifest.exists()
    # Rows 0, 4 and 8 are broken.
    assert [data[place]["index"] for place in range(10)] == [1, 1, 2, 3, 5, 5, 6, 7, 9, 9]
    assert found.listed().keys() == {0, 4, 8}
    for number, reason in found.listed().items():
        assert re.match(found.reasons[number], reason)


@pytest.mark.parametrize(("video", "given"), [("slow.mp4", [1, 1]), ("clip.mp4", [0, 1])])
def test_what_passes_by_guessed_times_is_not_asked_if_the_real_ones_make_it_too_long(
    video: str, given: list[int], folder: Path, tmp_path: Path, processor: ProcessorMixin
) -> None:
    """Times are words of a prompt: "<1500.0 seconds>" is longer than "<1.5 seconds>"."""
    rows = write(folder / f"{tmp_path.name}.jsonl", [asked(video=video, image=[3, 6], problem="<image><image>Row?"), asked()])
    found = config(folder, tmp_path, rows, rows, "data.observed=video", "data.max_bad_rate=0.5")
    guesses = Skipped(tmp_path / "guesses.jsonl", 1.0)
    assert askable([str(rows)], OmegaConf.merge(found.data, {"max_prompt_length": 1}), processor, guesses) == []
    lengths = [int(re.search(r"(\d+) tokens", reason)[1]) for reason in guesses.listed.values()]
    found.data.max_prompt_length = max(lengths)
    data = LatentRLDataset(str(rows), None, found.data, processor)
    assert len(data) == 2 and [data[place]["index"] for place in range(2)] == given
    if given[0] == 1:
        (line,) = (tmp_path / "skipped_rows.jsonl").read_text().splitlines()
        assert json.loads(line)["reason"].startswith("prompt is too long: ")
    for item in (data[0], data[1]):
        assert processor_inputs(processor, item["raw_prompt"])["input_ids"].shape[1] <= found.data.max_prompt_length


SIZE = st.integers(1, 300)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(SIZE, SIZE).filter(lambda size: max(size) < 150 * min(size)), min_size=1, max_size=4),
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=5, max_size=5),
)
def test_the_length_of_a_prompt_is_that_of_the_processors_ids(
    sizes: list[tuple[int, int]], texts: list[str], processor: ProcessorMixin
) -> None:
    content = [{"type": "text", "text": texts[0]}]
    for size, text in zip(sizes, texts[1:], strict=False):
        content += [{"type": "image", "image": Image.new("RGB", size)}, {"type": "text", "text": text}]
    chat = [{"role": "user", "content": content}]
    assert prompt_length(processor, chat) == processor_inputs(processor, chat)["input_ids"].shape[1]


@pytest.mark.parametrize(
    "row",
    [
        asked("Which way?\nA. left\nB. right"),
        asked("Which way?"),
        {"problem": "Before <video> and after?", "answer": "It falls.", "videos": ["clip.mp4"]},
        {"question": "frame_1\n<image>\nWhat next?", "answer": "It rises.<rimage>It falls.<ans>It lands.</ans>",
         "video": "clip.mp4", "question_images_index": [1], "reasoning_images_index": [5]},
    ],
)  # fmt: skip
def test_one_question_text_reaches_the_judge_of_training_evaluation_and_curation(
    row: Fields, folder: Path, tmp_path: Path, processor: ProcessorMixin
) -> None:
    rows = write(folder / f"{tmp_path.name}.jsonl", [row])
    trained = LatentRLDataset(str(rows), None, config(folder, tmp_path, rows, rows).data, processor)[0]["question"]
    ((question,), _) = tasks.read(tasks.TASKS["rl"], [rows], None)
    evaluated = runner._asked(question)["problem"]
    read.read([rows], tmp_path / "candidates.parquet", folder, tmp_path / "left_out.jsonl", 0.0)
    (candidate,) = candidates.read(tmp_path / "candidates.parquet")
    curated = stages._asked(candidate, "a reply").question
    assert trained == evaluated == curated
    assert trained and "<image>" not in trained and "<video>" not in trained
    assert re.sub(r"<\w+>", "", row.get("problem", row.get("question"))).strip() in trained


WORDS = st.sampled_from(["left", "Left.", "right", "A", "B", "(b)", "7", "7.0", "", " ", "Ünder", "<b>", "a < b", "B. right"])
TEXTS = WORDS | st.text(st.characters(codec="utf-8", exclude_characters="<|"), max_size=5)
TRUTHS = (
    TEXTS
    | TEXTS.map("<answer>{}</answer>".format)
    | st.tuples(TEXTS, TEXTS).map(lambda both: f"{both[0]}<answer>{both[1]}</answer>")
    | st.sampled_from(["<final>B</final>", "<answer>left", "left<image>right", "<b class='x'>left", "</answer>B<answer>"])
    | st.none()
    | st.integers(-1, 1)
    | st.floats(0, 1)
    | st.lists(TEXTS, max_size=2)
)
OPTIONS = (
    st.none()
    | st.booleans()
    | st.integers(0, 1)
    | TEXTS
    | st.lists(TEXTS | st.none() | st.integers(), max_size=11)
    | st.dictionaries(st.sampled_from("ABCDK"), TEXTS | st.none(), max_size=4)
    | st.sampled_from([["left", "right"], {"A": "left", "B": "right"}, ["A. left", "B. right"], {"A": "left", "B": None}])
)


@settings(max_examples=200)
@given(truth=TRUTHS, options=OPTIONS)
def test_stage_2_and_the_stock_reward_refuse_the_same_truths_and_options(truth: Any, options: Any) -> None:
    """`compute_score` gets what verl's own rows hold; stage 2 reads these and its own, and foreign tags as well.

    A number is no text to stage 2, whose files hold texts; other people's rows hold numbers, and `compute_score` takes them.
    """
    number = isinstance(truth, int | float)
    asking = {"problem": "What?", "answer": truth, "options": options}
    stock = {"prompt": [{"role": "user", "content": "What?"}], "reward_model": {"ground_truth": truth}}
    stock["extra_info"] = {"options": options}

    def read_as(fields: Fields) -> bool:
        try:
            row = parse(fields, "rows: row 0", 0, lambda _, name: name)
        except RowError:
            return False
        return bool(row.truth)

    def scored() -> bool:
        try:
            asyncio.run(compute_score("rows", "no answer", truth, {"options": options}))
        except ValueError:
            return False
        return True

    assert read_as(asking) == read_as(stock) == (scored() and not number)
