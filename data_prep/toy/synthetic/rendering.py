"""Renders the frames of a motion."""

import numpy as np

from data_prep.toy.synthetic.physics import Body, Box, Motion

SIZE = 64
WALL = 3
BOX = Box(WALL, WALL, SIZE - WALL, SIZE - WALL)
FPS = 24

PALETTE = {"red": (255, 70, 70), "green": (60, 230, 60), "blue": (80, 110, 255), "yellow": (250, 220, 50)}
WALL_COLOUR = (70, 70, 70)


def render(motion: Motion, num_frames: int) -> np.ndarray:
    """Returns uint8 ``[num_frames, 64, 64, 3]``: frame f shows time f, shapes on black with smooth edges, walls around."""
    frames = np.zeros((num_frames, SIZE, SIZE, 3), np.float32)
    frames[:, :WALL] = frames[:, -WALL:] = frames[:, :, :WALL] = frames[:, :, -WALL:] = WALL_COLOUR
    for number, frame in enumerate(frames):
        for body in motion.at(number):
            _paint(frame, body)
    return np.rint(frames).astype(np.uint8)


def _paint(frame: np.ndarray, body: Body) -> None:
    colour, shape = body.name.split()
    # Only the square of pixels around the shape is touched.
    left, top = (max(int(c - body.radius) - 1, 0) for c in body.position)
    reach = 2 * int(body.radius) + 4
    dx = np.abs(np.arange(left, min(left + reach, SIZE)) + 0.5 - body.position[0])[None, :]
    dy = np.abs(np.arange(top, min(top + reach, SIZE)) + 0.5 - body.position[1])[:, None]
    distance = np.maximum(dx, dy) if shape == "square" else np.sqrt(dx * dx + dy * dy)
    coverage = np.clip(body.radius + 0.5 - distance, 0, 1)[..., None]
    patch = frame[top : top + reach, left : left + reach]
    patch += coverage * (np.array(PALETTE[colour]) - patch)
