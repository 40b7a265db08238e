"""``python docs/images/data_flow.py``: draws docs/images/data_flow.svg, what a step of stage 2 moves between its parts."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from method import BLUE, GREEN, GREY, ORANGE, arrow, box

OUT = Path(__file__).with_name("data_flow.svg")


def said(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, ha="center", va="center", color=GREY, fontsize=8)


def main() -> None:
    matplotlib.rcParams |= {"svg.hashsalt": "future_l1_verl", "font.size": 9}
    figure = Figure(figsize=(11, 3.7), layout="tight")
    axes = figure.add_subplot(xlim=(-0.1, 11), ylim=(-0.2, 3.5), aspect="equal")
    axes.axis("off")
    box(axes, 0, 2.3, 1.5, "rows:\nquestion, clip", GREY)
    box(axes, 2.6, 2.3, 1.9, "rollout: vLLM\nwith spans", BLUE)
    box(axes, 6.1, 2.3, 2.0, "agent loop: grade,\nreward parts", GREEN)
    box(axes, 9.0, 2.3, 1.8, "replay buffer:\ngroup filter", GREEN)
    box(axes, 2.6, 0.3, 1.9, "actor: FSDP,\nlikelihood by role", ORANGE)
    box(axes, 6.1, 0.3, 2.0, "reference: FSDP,\nthe model as it began", GREY)
    for start, end in (((1.55, 2.61), (2.55, 2.61)), ((4.55, 2.61), (6.05, 2.61)), ((8.15, 2.61), (8.95, 2.61))):
        arrow(axes, start, end)
    said(axes, 2.05, 3.1, "prompt,\nframes")
    said(axes, 5.3, 3.15, "n answers: tokens,\nlog-probs, latents")
    said(axes, 8.55, 3.1, "a group")
    arrow(axes, (9.9, 2.25), (8.15, 0.75), bend=-0.25)
    arrow(axes, (9.9, 2.25), (4.4, 0.95), bend=0.12)
    said(axes, 9.75, 1.1, "groups that\nare kept")
    arrow(axes, (6.05, 0.5), (4.55, 0.5))
    said(axes, 5.3, 0.15, "log-probs, states\nbefore latents")
    arrow(axes, (3.55, 0.97), (3.55, 2.25))
    said(axes, 2.75, 1.6, "weights after\nan update")
    figure.savefig(OUT, metadata={"Date": None})


if __name__ == "__main__":
    main()
