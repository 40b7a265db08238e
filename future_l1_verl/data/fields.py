"""Reads the fields of a row of another data set. All functions raise RowError, naming the field."""

import json
from collections.abc import Callable
from typing import Any

from future_l1_verl.data.first_part import first_part
from future_l1_verl.data.rows import IMAGE, PLACEHOLDER, VIDEO, Clip, Picture, RowError, Shown, Turn
from future_l1_verl.data.shape import unified
from future_l1_verl.rewards.answer import answer_text, chosen_option, grade
from future_l1_verl.rewards.options import asked, given, inlined, texts

Fields = dict[str, Any]
Locate = Callable[..., str]
"""``locate(fields, name, ...)``: the path of a clip that a row calls by a name, or by one of several (see `locate`)."""

OBSERVED = ("question_images_index", "frames", "image")  # names of the observed frames in files; below, of the future ones
FUTURE = ("reasoning_images_index", "recon_frames", "reasoning_image")
FRAMES = (*OBSERVED, *FUTURE, "video", "video_path", "question_images", "reasoning_images")
GAINS = (("gain",), ("base_correct", "correct_in_8_base"), ("hint_correct", "correct_in_8_hint"))  # ours, the published 50K's
COMMON = (
    *("id", "meta_data", "class", "category", "question_type", "split", "options", "Options", "data_source"),
    *(name for names in GAINS for name in names),
)


def text(fields: Fields, *names: str) -> str:
    """Returns the first of some fields that is present, which must hold a text."""
    name, value = first(fields, *names)
    if not isinstance(value, str):
        raise RowError(f"{name} is not a string: {value!r:.80}")
    if not value.strip():
        raise RowError(f"{name} is empty")
    return value.strip()


def first(fields: Fields, *names: str) -> tuple[str, Any]:
    """Returns name and value of the first of some fields that is present."""
    name = next((name for name in names if fields.get(name) is not None), None)
    if name is None:
        raise RowError(f"{' or '.join(names)} is missing")
    return name, fields[name]


def mapping(fields: Fields, name: str) -> Fields:
    """Returns a field that is an object, or an object as JSON; empty if it is missing."""
    value = fields.get(name) or {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise RowError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RowError(f"{name} is not an object: {value!r:.80}")
    return value


def listed(fields: Fields, name: str) -> list[Any]:
    """Returns a field as a list: a single value becomes a list of one, a missing field an empty list."""
    value = fields.get(name)
    return [] if value is None else value if isinstance(value, list) else [value]


def indices(fields: Fields, *names: str) -> tuple[int, ...]:
    """Returns the first of some fields that is present, which must hold entries of TwiFF's pool."""
    name, value = first(fields, *names)
    if not isinstance(value, list) or any(type(index) is not int for index in value):  # True is an int, too
        raise RowError(f"{name} is not a list of frame numbers: {value!r:.80}")
    return tuple(value)


def pictures(fields: Fields, name: str, locate: Locate) -> tuple[Picture, ...]:
    """Returns pictures given by path, or by their bytes as `datasets` stores them."""
    return tuple(_picture(fields, name, item, locate) for item in listed(fields, name))


def _picture(fields: Fields, name: str, item: Any, locate: Locate) -> Picture:
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes) and item:
        return Picture(item)
    if isinstance(item, str) and item:
        return Picture(locate(fields, item.removeprefix("file://")))
    raise RowError(f"{name} is not a path or an embedded picture: {item!r:.80}")


def named_frames(fields: Fields, locate: Locate) -> dict[str, Any]:
    """Returns ``video``, ``observed`` and ``future`` of a row in TwiFF's form: entries of its pool, or pictures."""
    observed: tuple[int | Picture, ...]
    future: tuple[int | Picture, ...]
    if fields.get("question_images") is not None:
        first(fields, "reasoning_images")
        video, observed, future = "", *(pictures(fields, name, locate) for name in ("question_images", "reasoning_images"))
    else:
        video, observed = locate(fields, text(fields, "video", "video_path")), indices(fields, *OBSERVED)
        future = indices(fields, *FUTURE)
    if not observed:
        raise RowError("no observed frame")
    return {"video": video, "observed": observed, "future": future}


def require_no_frames(fields: Fields) -> None:
    """Raises RowError if a row that would be shown as a whole clip names frames: it must not show more than those."""
    if name := next((name for name, value in fields.items() if _names_frames(name, value)), None):
        raise RowError(
            f"frames are named in an unknown way: {name}; observed ones go by {', '.join(OBSERVED)}, future ones by "
            f"{', '.join(FUTURE)}; leave the field out if it means something else"
        )


def _names_frames(name: str, value: Any) -> bool:
    """Returns whether a field, or one inside it, has a name that mentions frames, or is a list of numbers."""
    match value:
        case None:
            return False
        case _ if name in (*COMMON, "images", "videos", "video_split"):  # V1-33K's parts of the whole clip
            return False
        case dict():
            return any(_names_frames(*item) for item in value.items())
        case list():
            numbers = all(isinstance(item, int | float) or str(item).isdecimal() for item in value)
            return bool(value) and (numbers or any(_names_frames(name, item) for item in value))
        case _:
            return "frame" in name.lower()


def clips(fields: Fields, locate: Locate, *names: str) -> tuple[Clip, ...]:
    """Returns the clips of the first of some fields that is present, given by path or, as verl writes them, as objects with
    ``video``; of each clip only the part that may be shown."""
    name = next((name for name in names if fields.get(name) is not None), names[0])
    found = [item if isinstance(item, dict) else {name: item} for item in listed(fields, name)]
    if cut := [key for item in found for key in ("video_start", "video_end") if item.get(key) is not None]:
        raise RowError(f"{name} are shown as a whole: {cut[0]} cannot be kept to; cut the clip itself")
    return tuple(Clip(first_part(fields, text(item, name, "video").removeprefix("file://"), locate)) for item in found)


def in_order(turns: list[Turn], pictures: tuple[Picture, ...], clips: tuple[Clip, ...]) -> tuple[Shown, ...]:
    """Returns pictures and clips in the order of their places; those without a place come last, and `Row` refuses them."""
    rest: dict[str, list[Shown]] = {IMAGE: list(pictures), VIDEO: list(clips)}
    found = PLACEHOLDER.findall("".join(turn.text for turn in turns))
    return (*(rest[place].pop(0) for place in found if rest[place]), *rest[IMAGE], *rest[VIDEO])


def truth(fields: Fields, *names: str) -> str:
    """Returns the right answer in a field that holds nothing else, without the ``<answer>`` around it."""
    found = unified(text(fields, *names))
    return answer_text(found) or found


def answered(response: str, field: str, choices: tuple[str, ...]) -> str:
    """Returns the text in ``<answer>`` of the response or the field, or else the text after the last frame of the field.
    Raises RowError if the response and the field give different answers."""
    said, stated = answer_text(response), answer_text(field) or field.rpartition(IMAGE)[2].strip()
    if not said and not stated:
        raise RowError(f"answer is empty: nothing follows the last <image> of {field!r:.80}")
    if said and stated and said != stated:
        chosen = {chosen_option(answer, choices) for answer in (said, stated)}
        if len(chosen) > 1 or (not choices and not grade(said, stated).correct):
            raise RowError(f"two answers: {said!r:.80} in the response, {stated!r:.80} in the field")
    return said or stated


def options(fields: Fields) -> tuple[str, ...]:
    """Returns the options of a field; none if there is no such field."""
    try:
        return tuple(given(next((fields[name] for name in ("options", "Options") if fields.get(name) is not None), None)))
    except ValueError as error:
        raise RowError(f"options cannot be used: {error}") from error


def choice(fields: Fields, question: str, truth: str) -> tuple[str, ...]:
    """Returns the options of a field, or else those at the end of the question if the truth is one of them."""
    if found := options(fields):
        return found
    try:
        found = tuple(texts(inlined(question)))
    except ValueError:  # no options, or options that do not differ as text, such as pictures
        return ()
    return found if chosen_option(truth, found) is not None else ()


def asking(question: str, choices: tuple[str, ...], shown: tuple[Shown, ...]) -> tuple[Turn, ...]:
    """Returns the question with its options as a user's turn; without places for frames it gets them at the start."""
    whole = asked(question, list(choices))
    if choices and whole != question and (other := inlined(question)):
        raise RowError(f"options are not those that the question ends with: {list(choices)!r:.80} and {other!r:.80}")
    return (Turn("user", whole if PLACEHOLDER.search(whole) else places(shown) + whole),)


def places(shown: tuple[Shown, ...]) -> str:
    return "".join(VIDEO if isinstance(item, Clip) else IMAGE for item in shown)


def identity(fields: Fields) -> dict[str, Any]:
    """Returns id, category, data source and gains: the arguments of `Row` with these names."""
    name = fields.get("id")
    if name is not None and type(name) not in (str, int):
        raise RowError(f"id is neither a string nor a number: {name!r:.80}")
    kinds = (mapping(fields, "meta_data").get("classification"), *map(fields.get, ("class", "category", "question_type")))
    named = [kind.strip().lower() for kind in kinds if isinstance(kind, str)]
    split, source = (value if isinstance(value := fields.get(each), str) else "" for each in ("split", "data_source"))
    gains = tuple(next((fields[name] for name in names if fields.get(name) is not None), None) for names in GAINS)
    counted = all(type(gain) is int and abs(gain) < 2**31 for gain in gains)  # as files of candidates hold them
    return {
        "gains": gains if counted else None,
        "id": "" if name is None else str(name),
        "category": next(iter([*named, split])),
        "data_source": source,
    }


_PLACES = {"image": IMAGE, "image_url": IMAGE, "video": VIDEO, "video_url": VIDEO}
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


def turns(fields: Fields, name: str) -> list[Turn]:
    """Returns the turns of a chat: a list of objects or an object of lists, with ``role`` and ``content`` (a text, or a list
    of parts) or ``from`` and ``value``."""
    talk = fields[name]
    try:
        if isinstance(talk, dict) and all(isinstance(column, list) for column in talk.values()):
            talk = [dict(zip(talk, values, strict=False)) for values in zip(*talk.values(), strict=True)]
        return [Turn(_ROLES[said.get("role") or said["from"]], _content(said.get("content") or said["value"])) for said in talk]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RowError(f"{name} are not turns of role and content: {fields[name]!r:.80}") from error


def _content(content: str | list[Fields]) -> str:
    """Returns the text, with places for pictures and clips, whose files are in other fields of the row."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else _PLACES[part["type"]] for part in content)
