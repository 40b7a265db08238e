import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_prep.toy.synthetic.physics import Body, Box, simulate

BOX = Box(left=0, top=0, right=60, bottom=40)


def ball(x, y, vx, vy, radius=5.0, name="red ball"):
    return Body(name, (x, y), (vx, vy), radius)


def test_bounces_between_two_walls_happen_when_computed_by_hand():
    # From x = 20 at 2 px/frame: right face at x = 55 after 35 / 2; then 50 px across every 25 frames.
    motion = simulate([ball(20, 20, 2, 0)], BOX, until=70)
    assert [(event.time, event.wall) for event in motion.events] == [(17.5, "right"), (42.5, "left"), (67.5, "right")]
    assert motion.at(17.5)[0].position == (55, 20)
    assert motion.at(20)[0].position == (50, 20)  # 2.5 frames back from the wall
    assert motion.at(20)[0].velocity == (-2, 0)


def test_both_axes_bounce_independently():
    # x: (55 - 10) / 3 = 15; y: (20 - 5) / 1.5 = 10 to the top, then (35 - 5) / 1.5 = 20 more to the bottom.
    motion = simulate([ball(10, 20, 3, -1.5)], BOX, until=31)
    assert [(event.time, event.wall) for event in motion.events] == [(10, "top"), (15, "right"), (30, "bottom")]


def test_equal_balls_meeting_head_on_swap_velocities():
    # Centres 30 apart, 10 when they touch, closing at 4: after 5 frames, at x = 25 and 35.
    motion = simulate([ball(15, 20, 2, 0), ball(45, 20, -2, 0)], BOX, until=6)
    (event,) = motion.events
    assert (event.time, event.body, event.other, event.wall) == (5, 0, 1, None)
    first, second = motion.at(6)
    assert (first.position, first.velocity) == ((23, 20), (-2, 0))
    assert (second.position, second.velocity) == ((37, 20), (2, 0))


def test_a_glancing_blow_turns_equal_balls_at_right_angles():
    # Touching when the centres are 10 apart; dy = 6 so dx = 8: the moving ball has gone 20 - 8 = 12 px in 6 frames.
    motion = simulate([ball(20, 17, 2, 0), ball(40, 23, 0, 0)], BOX, until=7)
    assert motion.events[0].time == pytest.approx(6)
    first, second = motion.at(7)
    # Along the normal (0.8, 0.6) the speed 1.6 is handed over; the rest stays.
    assert second.velocity == pytest.approx((1.28, 0.96))
    assert first.velocity == pytest.approx((0.72, -0.96))


def test_a_heavy_ball_follows_through():
    # Masses 36 and 9, target at rest: v1' = (36 - 9) / 45 * 3 = 1.8, v2' = 2 * 36 / 45 * 3 = 4.8.
    motion = simulate([ball(10, 20, 3, 0, radius=6), ball(31, 20, 0, 0, radius=3)], BOX, until=4.5)
    assert motion.events[0].time == pytest.approx(4)
    first, second = motion.at(4.5)
    assert first.velocity == pytest.approx((1.8, 0))
    assert second.velocity == pytest.approx((4.8, 0))


coordinate = st.floats(0.01, 0.99)
speed = st.floats(-4, 4)


@given(st.lists(st.tuples(coordinate, coordinate, speed, speed, st.floats(2, 6)), min_size=2, max_size=3))
def test_energy_is_kept_and_nothing_leaves_or_overlaps(drawn):
    bodies = []
    for u, w, vx, vy, r in drawn:
        body = ball(r + u * (60 - 2 * r), r + w * (40 - 2 * r), vx, vy, r)
        assume(all(math.dist(body.position, b.position) > r + b.radius for b in bodies))
        bodies.append(body)
    motion = simulate(bodies, BOX, until=60)

    def energy(state):
        return sum(body.mass * (body.velocity[0] ** 2 + body.velocity[1] ** 2) for body in state)

    for time in [*range(61), *(event.time for event in motion.events)]:
        state = motion.at(time)
        assert energy(state) == pytest.approx(energy(bodies), rel=1e-9, abs=1e-9)
        for index, body in enumerate(state):
            (x, y), r = body.position, body.radius
            assert r - 1e-6 <= x <= 60 - r + 1e-6
            assert r - 1e-6 <= y <= 40 - r + 1e-6
            assert all(math.dist(body.position, b.position) >= r + b.radius - 1e-6 for b in state[:index])


@given(st.tuples(coordinate, coordinate, speed, speed), st.tuples(coordinate, coordinate, speed, speed))
def test_momentum_changes_only_at_walls(one, two):
    bodies = [ball(5 + 50 * u, 5 + 30 * w, vx, vy) for u, w, vx, vy in (one, two)]
    assume(math.dist(bodies[0].position, bodies[1].position) > 10)
    motion = simulate(bodies, BOX, until=60)

    def momentum(state):
        return [sum(body.mass * body.velocity[axis] for body in state) for axis in (0, 1)]

    for (before, after), event in zip(pairwise(motion.states), motion.events, strict=True):
        change = [b - a for a, b in zip(momentum(before), momentum(after), strict=True)]
        kept = [True, True] if event.wall is None else [event.wall in ("top", "bottom"), event.wall in ("left", "right")]
        assert [abs(c) < 1e-9 or not k for c, k in zip(change, kept, strict=True)] == [True, True]
    assert motion.starts == sorted(motion.starts)


def test_motion_runs_backwards():
    bodies = [ball(12, 12, 2.3, 1.1), ball(40, 25, -1.7, 0.4)]
    end = simulate(bodies, BOX, until=50).at(50)
    turned = [Body(b.name, b.position, (-b.velocity[0], -b.velocity[1]), b.radius) for b in end]
    back = simulate(turned, BOX, until=50).at(50)
    for body, start in zip(back, bodies, strict=True):
        assert body.position == pytest.approx(start.position, abs=1e-6)


@pytest.mark.parametrize("bodies", [[ball(2, 20, 1, 0)], [ball(20, 20, 1, 0), ball(25, 20, 1, 0)]])
def test_impossible_starts_are_refused(bodies):
    with pytest.raises(ValueError, match="starts"):
        simulate(bodies, BOX, until=1)


def test_times_outside_the_motion_are_refused():
    with pytest.raises(ValueError, match="0 to 5"):
        simulate([ball(20, 20, 1, 0)], BOX, until=5).at(5.1)
