"""Simulates the exact motion of shapes in a box: straight lines between events, without time steps.

Lengths are pixels, times are frames, so a velocity is pixels per frame. Contacts are elastic and frictionless.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

Vector = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """The walls, as coordinates of their inner faces; y grows downwards, as in an image."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Body:
    """A disc or an axis-aligned square of half-width ``radius``, of mass ``radius ** 2``. It does not rotate."""

    name: str
    position: Vector
    velocity: Vector
    radius: float

    @property
    def mass(self) -> float:
        return self.radius**2

    # dataclasses.replace takes four times as long, and a set is made of millions.
    def at(self, position: Vector) -> Body:
        return Body(self.name, position, self.velocity, self.radius)

    def moving(self, velocity: Vector) -> Body:
        return Body(self.name, self.position, velocity, self.radius)


@dataclass(frozen=True)
class Event:
    """``body`` (an index) hits ``wall``, or ``body`` and ``other`` (an index, the larger one) hit each other."""

    time: float
    body: int
    wall: str | None = None
    other: int | None = None

    def involves(self, body: int) -> bool:
        return body in (self.body, self.other)


@dataclass(frozen=True)
class Motion:
    """The bodies from time 0 to ``until``; ``states[i]`` are the bodies from time ``starts[i]`` on."""

    starts: list[float]
    states: list[list[Body]]
    events: list[Event]
    until: float

    def at(self, time: float) -> list[Body]:
        """Returns the bodies at ``time``; at the time of an event, after it. Raises ValueError outside [0, until]."""
        if not 0 <= time <= self.until:
            raise ValueError(f"the motion covers times 0 to {self.until}, not {time}")
        index = bisect.bisect_right(self.starts, time) - 1
        return _advance(self.states[index], time - self.starts[index])


def simulate(bodies: Sequence[Body], box: Box, until: float) -> Motion:
    """Moves ``bodies`` from time 0 to ``until`` and records every contact in order of time.

    Raises ValueError if a body starts outside the box or two bodies start overlapping.
    """
    _check(bodies, box)
    time, state = 0.0, list(bodies)
    motion = Motion([time], [state], [], until)
    while True:
        wait, event = _next_event(state, box)
        if time + wait > until:
            return motion
        time += wait
        state = _bounce(_advance(state, wait), event)
        motion.starts.append(time)
        motion.states.append(state)
        motion.events.append(Event(time, event.body, event.wall, event.other))


def _check(bodies: Sequence[Body], box: Box) -> None:
    for index, body in enumerate(bodies):
        (x, y), r = body.position, body.radius
        if not (box.left + r <= x <= box.right - r and box.top + r <= y <= box.bottom - r):
            raise ValueError(f"body {index} ({body.name}) starts outside the walls, at {body.position}")
        for other in bodies[:index]:
            if math.dist(body.position, other.position) < r + other.radius:
                raise ValueError(f"body {index} ({body.name}) starts inside {other.name}")


def _advance(bodies: Sequence[Body], time: float) -> list[Body]:
    return [b.at((b.position[0] + b.velocity[0] * time, b.position[1] + b.velocity[1] * time)) for b in bodies]


def _next_event(bodies: Sequence[Body], box: Box) -> tuple[float, Event]:
    """Returns the time until the next contact (infinite if there is none) and that contact."""
    soonest, found = math.inf, Event(math.inf, 0)
    for index, body in enumerate(bodies):
        (x, y), (vx, vy), r = body.position, body.velocity, body.radius
        for wall, distance, speed in (
            ("left", x - r - box.left, -vx),
            ("right", box.right - r - x, vx),
            ("top", y - r - box.top, -vy),
            ("bottom", box.bottom - r - y, vy),
        ):
            if speed > 0 and (wait := max(distance, 0.0) / speed) < soonest:
                soonest, found = wait, Event(wait, index, wall=wall)
        for first in range(index):
            if (wait := _time_to_touch(bodies[first], body)) < soonest:
                soonest, found = wait, Event(wait, first, other=index)
    return soonest, found


def _time_to_touch(a: Body, b: Body) -> float:
    """Returns when two discs touch next: the smaller root of |d + w t| = r_a + r_b if they approach, else infinity."""
    dx, dy = b.position[0] - a.position[0], b.position[1] - a.position[1]
    wx, wy = b.velocity[0] - a.velocity[0], b.velocity[1] - a.velocity[1]
    approach = -(dx * wx + dy * wy)
    if approach <= 0:
        return math.inf
    speed2 = wx * wx + wy * wy
    gap2 = dx * dx + dy * dy - (a.radius + b.radius) ** 2
    discriminant = approach * approach - speed2 * gap2
    if discriminant <= 0:
        return math.inf
    return max(gap2 / (approach + math.sqrt(discriminant)), 0.0)


def _bounce(bodies: list[Body], event: Event) -> list[Body]:
    body = bodies[event.body]
    vx, vy = body.velocity
    if event.other is None:
        velocity = (-vx, vy) if event.wall in ("left", "right") else (vx, -vy)
        bodies[event.body] = body.moving(velocity)
        return bodies
    other = bodies[event.other]
    dx, dy = other.position[0] - body.position[0], other.position[1] - body.position[1]
    distance = math.hypot(dx, dy)
    nx, ny = dx / distance, dy / distance
    closing = (vx - other.velocity[0]) * nx + (vy - other.velocity[1]) * ny
    impulse = 2 * closing * body.mass * other.mass / (body.mass + other.mass)
    a, b = impulse / body.mass, impulse / other.mass
    bodies[event.body] = body.moving((vx - a * nx, vy - a * ny))
    bodies[event.other] = other.moving((other.velocity[0] + b * nx, other.velocity[1] + b * ny))
    return bodies
