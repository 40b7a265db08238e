"""``python docs/images/method.py``: draws docs/images/method.svg, what a model does with a question, and how it learns to."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#e69f00", "#009e73", "#666666"  # Okabe and Ito's
OUT = Path(__file__).with_name("method.svg")


def box(axes: Axes, x: float, y: float, width: float, text: str, colour: str, height: float = 0.62) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.02", facecolor=f"{colour}22", edgecolor=colour))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0, colour: str = GREY) -> None:
    style = f"arc3,rad={bend}"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=colour, connectionstyle=style))


def frame(axes: Axes, x: float, y: float, ball: float) -> None:
    axes.add_patch(FancyBboxPatch((x, y), 0.7, 0.62, boxstyle="square,pad=0", facecolor="white", edgecolor=GREY))
    axes.add_patch(Circle((x + ball, y + 0.31), 0.08, color="#d55e00"))
    axes.plot([x + 0.62, x + 0.62], [y + 0.08, y + 0.54], color=BLUE, linewidth=3)


def decoding(axes: Axes, y: float) -> None:
    axes.text(0, y + 0.95, "Decoding: one answer", weight="bold")
    for number, ball in enumerate((0.12, 0.24, 0.36)):
        frame(axes, 0.8 * number, y, ball)
    axes.text(1.15, y - 0.35, "observed frames, question", ha="center", color=GREY)
    box(axes, 2.75, y, 1.9, "<reason> it rolls to\nthe right </reason>", BLUE)
    box(axes, 4.85, y, 0.62, "start", GREY)
    for number in range(4):
        centre = (5.95 + 0.62 * number, y + 0.31)
        axes.add_patch(Circle(centre, 0.22, facecolor=f"{ORANGE}44", edgecolor=ORANGE))
        axes.text(*centre, f"z{'₁₂₃₄'[number]}", ha="center", va="center")
        arrow(axes, (centre[0] - 0.52, y + 0.66), (centre[0], y + 0.56), bend=-0.6, colour=ORANGE)
    box(axes, 8.25, y, 0.55, "end", GREY)
    box(axes, 9.0, y, 1.85, "<answer> the blue\nwall </answer>", GREEN)
    axes.text(6.9, y - 0.35, "a latent span: each input is the hidden state before it", ha="center", color=GREY)


def learning(axes: Axes, y: float) -> None:
    axes.text(0, y + 0.95, "Learning: two stages", weight="bold")
    box(axes, 0, y, 1.8, "TwiFF clips,\nvisual gain", GREY)
    box(axes, 2.5, y, 3.3, "stage 1: cross-entropy of text, and\nlatents near the future frames", ORANGE)
    box(axes, 6.5, y, 3.0, "stage 2, LA-DAPO: right answers,\nform, R_ctr, R_div", GREEN)
    box(axes, 10.1, y, 0.75, "model", BLUE)
    for start, end in ((1.85, 2.45), (5.85, 6.45), (9.55, 10.05)):
        arrow(axes, (start, y + 0.31), (end, y + 0.31))


def main() -> None:
    matplotlib.rcParams |= {"svg.hashsalt": "future_l1_verl", "font.size": 9}
    figure = Figure(figsize=(11, 3.5), layout="tight")
    axes = figure.add_subplot(xlim=(-0.1, 11), ylim=(-0.2, 3.2), aspect="equal")
    axes.axis("off")
    decoding(axes, 2.0)
    learning(axes, 0.0)
    figure.savefig(OUT, metadata={"Date": None})


if __name__ == "__main__":
    main()
