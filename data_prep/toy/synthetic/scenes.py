"""Draws random scenes, and poses questions about them."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from data_prep.toy.synthetic import words
from data_prep.toy.synthetic.physics import Body, Event, Motion, simulate
from data_prep.toy.synthetic.rendering import BOX
from future_l1_verl.data.twiff import frame_pool

OBSERVED = (1, 2, 3, 4)  # pool entries the model is shown
FUTURE = (5, 6, 7, 8)
# Frames. No question is asked if an event is closer than this to another one or to the last frame shown.
CLEAR = 2.5
# Frames. A pool frame shows an event if it is at most this far from it.
SHOWN = 1.0

FRAMES = (26, 34)
RADIUS = (6.0, 8.0)
# Pixels from the second observed frame to just after the last. More events in the same time need faster shapes.
LEAST_WAY = {"1-hop": 20.0, "interp": 20.0, "2-hop": 28.0, "3-hop": 40.0}


class NoQuestionError(ValueError):
    """A split's question cannot be asked about a scene; the message is the reason, the same for all such scenes."""


@dataclass(frozen=True)
class Scene:
    """A motion filmed for ``num_frames`` frames; questions are about body 0."""

    motion: Motion
    num_frames: int

    @cached_property
    def pool(self) -> list[int]:
        return frame_pool(self.num_frames)

    @property
    def now(self) -> int:
        """The last observed frame."""
        return self.pool[OBSERVED[-1] - 1]

    @property
    def bodies(self) -> list[Body]:
        """The bodies at the start of the motion."""
        return self.motion.states[0]

    @property
    def name(self) -> str:
        return self.bodies[0].name

    def events_of(self, body: int) -> list[Event]:
        return [event for event in self.motion.events if event.involves(body)]

    def target(self, event: Event, body: int = 0) -> str:
        """Returns what ``body`` hits in ``event``, in words."""
        if event.wall is not None:
            return words.wall(event.wall)
        return self.bodies[event.other if event.body == body else event.body].name

    def touches(self, entry: int) -> str:
        """Returns what body 0 hits within a frame of pool ``entry``, or "nothing"."""
        near = [event for event in self.events_of(0) if abs(event.time - self.pool[entry - 1]) <= SHOWN]
        return self.target(near[0]) if near else "nothing"

    @property
    def walls(self) -> list[str]:
        return [words.wall(side) for side in words.WALLS]

    @property
    def other_balls(self) -> list[str]:
        """The things that body 0 could hit besides the walls."""
        return [body.name for body in self.bodies[1:]]


@dataclass(frozen=True)
class Question:
    """A question without its options: pool entries shown and imagined, and the thing hit in each imagined frame."""

    split: str
    image: list[int]
    reasoning_image: list[int]
    hits: list[str]

    @property
    def answer(self) -> str:
        return self.hits[-1]


def sample_scene(rng: np.random.Generator, pair: bool, split: str) -> Scene:
    """Returns a random scene for the question of ``split``: one body, or two balls that meet after the question."""
    while True:
        scene = _draw(rng, pair, LEAST_WAY[split])
        if pair and all(event.other is None or event.time <= scene.now for event in scene.motion.events):
            continue
        try:
            pose(scene, split)
        except NoQuestionError:
            continue
        return scene


def _draw(rng: np.random.Generator, pair: bool, least_way: float) -> Scene:
    num_frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    pool = frame_pool(num_frames)
    straight = pool[OBSERVED[1] - 1], pool[OBSERVED[-1] - 1] + CLEAR
    shapes = ("ball", "ball") if pair else (words.SHAPES[rng.integers(len(words.SHAPES))],)
    colours = rng.permutation(words.COLOURS)[: len(shapes)]
    while True:
        bodies = [
            _draw_body(rng, f"{colour} {shape}", straight[1] - straight[0], least_way)
            for colour, shape in zip(colours, shapes, strict=True)
        ]
        if pair and math.dist(bodies[0].position, bodies[1].position) <= bodies[0].radius + bodies[1].radius:
            continue
        # Motion is reversible: the past is what would follow if all velocities were reversed.
        before = simulate([_reversed(body) for body in bodies], BOX, straight[0]).at(straight[0])
        # Filmed for long enough to show what follows the last event in the question.
        return Scene(simulate([_reversed(body) for body in before], BOX, num_frames + CLEAR), num_frames)


def _draw_body(rng: np.random.Generator, name: str, frames: float, least_way: float) -> Body:
    """Returns a body that avoids the walls for ``frames``: the two ends of its path are drawn, not its velocity."""
    radius = rng.uniform(*RADIUS)
    low, high = BOX.left + radius, BOX.right - radius  # the box is a square
    while True:
        start, end = rng.uniform(low, high, (2, 2))
        if math.dist(start, end) >= least_way:
            velocity = (end - start) / frames
            return Body(name, (float(start[0]), float(start[1])), (float(velocity[0]), float(velocity[1])), radius)


def _reversed(body: Body) -> Body:
    return body.moving((-body.velocity[0], -body.velocity[1]))


def pose(scene: Scene, split: str) -> Question:
    """Returns the question of ``split`` about body 0. Raises NoQuestionError with the reason without a certain answer."""
    pool, events = scene.pool, scene.events_of(0)
    if any(pool[1] <= event.time < scene.now + CLEAR for event in scene.motion.events):
        raise NoQuestionError("a shape bounces between or right after the last observed frames")
    coming = [event for event in events if event.time > scene.now]
    hops = 1 if split == "interp" else words.SPLITS.index(split) + 1
    if len(coming) < hops:
        raise NoQuestionError("the clip ends before the event")
    times = [event.time for event in coming]
    if any(later - sooner < CLEAR for sooner, later in pairwise(times[: hops + 1])):
        raise NoQuestionError("two events at nearly the same time")
    shown = [_entry_showing(time, pool) for time in times[:hops]]
    image = list(OBSERVED)
    if split == "interp":
        image.append(_entry_between(times, pool))
    return Question(split, image, shown, [scene.target(event) for event in coming[:hops]])


def _entry_showing(time: float, pool: list[int]) -> int:
    entry = min(FUTURE, key=lambda e: abs(pool[e - 1] - time))
    if abs(pool[entry - 1] - time) > SHOWN:
        raise NoQuestionError("no frame of the pool shows the event")
    return entry


def _entry_between(times: list[float], pool: list[int]) -> int:
    """Returns the last pool entry that is clearly after the first event and clearly before the second."""
    second = times[1] if len(times) > 1 else math.inf
    entries = [e for e in FUTURE if times[0] + SHOWN < pool[e - 1] and pool[e - 1] + SHOWN < second]
    if not entries:
        raise NoQuestionError("no later frame has exactly one event before it")
    return entries[-1]
