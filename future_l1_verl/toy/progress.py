"""``TRAINING 2>&1 | python -m future_l1_verl.toy.progress``: shortens verl's output to one line per step."""

import re
import sys

_STEP = re.compile(r"step:(\d+) - (.*)")
_START_UP = re.compile(r"Started a local Ray instance|\w[\w ]* initialized|all initialize finished")
_SHOWN = {
    "train/cross_entropy": "cross-entropy",
    "train/latent_error": "latent error",
    "val/loss": "validation loss",
    "critic/score/mean": "reward",
    "rewards/accuracy/mean": "accuracy",
    "rewards/format/mean": "format",
    "rewards/contrastive/mean": "R_ctr",
    "rewards/diversity/mean": "R_div",
    "latents/latents_per_answer": "latents",
    "parity/text_gap_max": "parity gap",
    "timing_s/step": "seconds",
}


def condense(line: str) -> str | None:
    """Returns what to show of a line of output; None for nothing."""
    if match := _STEP.search(line):
        values = dict(field.split(":", 1) for field in match[2].split(" - ") if ":" in field)
        shown = [f"{name} {_number(values[key])}" for key, name in _SHOWN.items() if key in values]
        return f"step {match[1]}: " + ", ".join(shown) if shown else None
    return "starting: " + match[0] if (match := _START_UP.search(line)) else None


def _number(text: str) -> str:
    return f"{float(text.removeprefix('np.float64(').rstrip(')')):.4g}"


def main() -> None:
    for line in sys.stdin:
        if shown := condense(line):
            print(shown, flush=True)


if __name__ == "__main__":
    main()
