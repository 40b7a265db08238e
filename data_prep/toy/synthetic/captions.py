"""Plain descriptions of frames, for pretraining: positions, motion and contacts.

They never look like the set's questions and answers.
"""

from data_prep.toy.synthetic import words
from data_prep.toy.synthetic.physics import Body
from data_prep.toy.synthetic.rendering import BOX
from data_prep.toy.synthetic.scenes import FUTURE, OBSERVED, Scene


def caption(scene: Scene, entries: list[int]) -> str:
    """Describes the pool ``entries`` frame by frame, one body after the other."""
    return " ".join(_describe(scene, index, entries) for index in range(len(scene.bodies)))


def observed_caption(scene: Scene) -> str:
    """Describes the observed frames and the direction of motion, which is about to change in none of them."""
    moves = [f"{body.name} moves {_direction(body)}." for body in scene.motion.at(scene.now)]
    return " ".join([caption(scene, list(OBSERVED)), *moves])


def future_caption(scene: Scene) -> str:
    """Describes the future frames and the contacts in each."""
    touched = [scene.touches(entry) for entry in FUTURE]
    return f"{caption(scene, list(FUTURE))} It touches {', '.join(touched)}."


def _describe(scene: Scene, index: int, entries: list[int]) -> str:
    bodies = [scene.motion.at(scene.pool[entry - 1])[index] for entry in entries]
    return f"The {bodies[0].name} is {', '.join(_place(body) for body in bodies)}."


def _place(body: Body) -> str:
    (x, y), r = body.position, body.radius
    column = words.COLUMNS[_fifth(x, BOX.left + r, BOX.right - r)]
    row = words.ROWS[_fifth(y, BOX.top + r, BOX.bottom - r)]
    return f"{column} {row}"


def _fifth(value: float, low: float, high: float) -> int:
    return min(int(5 * (value - low) / (high - low)), 4)


def _direction(body: Body) -> str:
    vx, vy = body.velocity
    across, along = "left" if vx < 0 else "right", "up" if vy < 0 else "down"
    # The faster of the two is named first.
    return f"{across} {along}" if abs(vx) > abs(vy) else f"{along} {across}"
