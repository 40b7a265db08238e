"""Computes the answers of perfect readers: how much of a split can be learned, and how much only from the future frames."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_prep.toy.examples import Example
from data_prep.toy.synthetic import words
from data_prep.toy.synthetic.physics import Body, simulate
from data_prep.toy.synthetic.rendering import BOX
from data_prep.toy.synthetic.scenes import CLEAR, OBSERVED, Question, Scene

# The observed frames that show straight motion (scenes.pose).
STRAIGHT = OBSERVED[1:]


def headroom(asked: Sequence[tuple[Scene, Question]], examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Returns accuracies by split, of the questions ``asked``, whose options are in ``examples``.

    ``with_future`` is that of a reader who sees the frames that the reasoning imagines, ``without_future`` that of a reader who
    knows the physics and continues from the observed frames; both see whole pixels. ``chance`` is that of guessing an option
    and ``majority`` that of always giving the most frequent answer.
    """
    found = {}
    for split in words.SPLITS:
        right = [pair for pair in asked if pair[1].split == split]
        posed = [example for example in examples if example.split == split]
        if not right:
            continue
        truths = Counter(question.answer for _, question in right)
        found[split] = {
            "with_future": float(np.mean([seen(*pair) == pair[1].answer for pair in right])),
            "without_future": float(np.mean([foreseen(*pair) == pair[1].answer for pair in right])),
            "chance": float(np.mean([1 / len(example.options) for example in posed])),
            "majority": max(truths.values()) / len(right),
        }
    return found


def seen(scene: Scene, question: Question) -> str:
    """Returns what body 0 is nearest to in the last frame that the reasoning imagines."""
    shown = _shown(scene, question.reasoning_image[-1])
    (x, y), r = shown[0].position, shown[0].radius
    gaps = {
        words.wall("left"): x - r - BOX.left,
        words.wall("right"): BOX.right - r - x,
        words.wall("top"): y - r - BOX.top,
        words.wall("bottom"): BOX.bottom - r - y,
    }
    gaps |= {other.name: math.dist(shown[0].position, other.position) - r - other.radius for other in shown[1:]}
    return min(gaps, key=gaps.get)


def foreseen(scene: Scene, question: Question) -> str | None:
    """Returns the answer that follows from the motion of all bodies in the observed frames; None if it comes too late."""
    frames = [scene.pool[entry - 1] for entry in STRAIGHT]
    ways = [_shown(scene, entry) for entry in STRAIGHT]
    start = [_moving(frames, [bodies[index] for bodies in ways]) for index in range(len(scene.bodies))]
    motion = simulate(_apart(start), BOX, scene.num_frames + CLEAR - frames[-1])
    events = [event for event in motion.events if event.involves(0)]
    hops = len(question.hits)
    return replace(scene, motion=motion).target(events[hops - 1]) if len(events) >= hops else None


def _shown(scene: Scene, entry: int) -> list[Body]:
    """Returns the bodies in whole pixels, as a pool ``entry`` shows them."""
    bodies = scene.motion.at(scene.pool[entry - 1])
    return [replace(b, position=tuple(float(round(c)) for c in b.position), radius=float(round(b.radius))) for b in bodies]


def _moving(frames: Sequence[int], places: Sequence[Body]) -> Body:
    """Returns a body at the last of ``frames`` with the velocity of a least-squares line through its ``places``."""
    slope, offset = np.polyfit(frames, [body.position for body in places], 1)
    radius = places[-1].radius
    position = [float(np.clip(c, BOX.left + radius, BOX.right - radius)) for c in slope * frames[-1] + offset]
    return replace(places[-1], position=tuple(position), velocity=(float(slope[0]), float(slope[1])))


def _apart(bodies: list[Body]) -> list[Body]:
    """Moves bodies that overlap in whole pixels apart until they touch."""
    if len(bodies) == 2 and (gap := math.dist(bodies[0].position, bodies[1].position)) < sum(body.radius for body in bodies):
        return [replace(body, radius=body.radius * gap / sum(b.radius for b in bodies)) for body in bodies]
    return bodies
