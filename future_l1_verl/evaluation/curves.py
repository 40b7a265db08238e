"""Draws the curves of both trainings from their tensorboard folders."""

from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Curve = list[tuple[int, float]]

# Per training, by file name: title, and the curves in the figure.
FIGURES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "sft": {
        "sft_losses": ("Stage 1: losses", ("train/cross_entropy", "train/latent_error", "val/loss")),
        "sft_latents": (
            "Stage 1, held-out rows: error of latents over that of the mean embedding, and retrieval",
            ("val/latent_error_ratio", "val/latent_retrieval", "val/latent_retrieval_chance"),
        ),
    },
    "rl": {
        "rl_learning": (
            "Stage 2: reward and accuracy in training, and accuracy on validation",
            ("critic/score/mean", "filter/accuracy_before", "val/all/accuracy"),
        ),
        "rl_rewards": (
            "Stage 2: reward parts (mean of a step)",
            (
                "critic/score/mean",
                "rewards/accuracy/mean",
                "rewards/format/mean",
                "rewards/contrastive/mean",
                "rewards/diversity/mean",
            ),
        ),
        "rl_loss": ("Stage 2: policy loss and KL", ("actor/pg_loss", "actor/kl_loss", "actor/grad_norm")),
        "rl_parity": (
            "Stage 2: rollout against actor, text log-probs [nats]",
            ("parity/text_gap_max", "parity/text_gap_mean"),
        ),
        "rl_latents": (
            "Stage 2: latents in use (mean per answer)",
            ("latents/spans_per_answer", "latents/latents_per_answer", "latents/with_span", "latents/budget_end_share"),
        ),
    },
}
LOGARITHMIC = {"rl_parity"}
SMOOTHED = {"rl_learning", "rl_rewards"}
WIDTH = 5  # steps of a moving mean


def read_curves(directory: Path) -> dict[str, Curve]:
    """Returns all scalars of a tensorboard folder, by step; for a step logged again after a resume only the last value."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: sorted({event.step: event.value for event in events.Scalars(tag)}.items()) for tag in events.Tags()["scalars"]}


def write_curves(run: Path, out: Path) -> dict[str, str]:
    """Writes the `FIGURES` as PNGs into ``out``, from ``run/tensorboard/{sft,rl}``. Returns their titles by file name.

    A figure without any logged curve (latents of a text-only training) is left out. Raises FileNotFoundError naming
    the tensorboard folder that is missing.
    """
    titles = {}
    for stage, figures in FIGURES.items():
        folder = run / "tensorboard" / stage
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: does not exist; a run's curves are in tensorboard/sft and tensorboard/rl")
        curves = read_curves(folder)
        for name, (title, tags) in figures.items():
            if present := {tag: curves[tag] for tag in tags if tag in curves}:
                _plot(present, title, out / f"{name}.png", name in LOGARITHMIC, name in SMOOTHED)
                titles[f"{name}.png"] = title
    return titles


def moving_mean(curve: Curve) -> Curve:
    """Returns the mean of each point and up to `WIDTH` - 1 points before it."""
    values = [value for _, value in curve]
    return [(step, fmean(values[max(0, i + 1 - WIDTH) : i + 1])) for i, (step, _) in enumerate(curve)]


def _plot(curves: dict[str, Curve], title: str, path: Path, logarithmic: bool, smoothed: bool) -> None:
    figure = Figure(figsize=(8, 4), layout="tight")
    axes = figure.add_subplot(title=title, xlabel="step", yscale="log" if logarithmic else "linear")
    for tag, points in curves.items():
        if smoothed and len(points) > 2 * WIDTH:
            (line,) = axes.plot(*zip(*moving_mean(points), strict=True), label=f"{tag} (mean of {WIDTH} steps)")
            axes.plot(*zip(*points, strict=True), color=line.get_color(), alpha=0.25)
        else:
            axes.plot(*zip(*points, strict=True), label=tag, marker="." if len(points) < 50 else None)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3, fontsize="small")
    figure.savefig(path, dpi=120)
