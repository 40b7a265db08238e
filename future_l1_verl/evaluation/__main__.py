"""``python -m future_l1_verl.evaluation run --model DIR --data FILE --out DIR``: answers, scores and a table.

``... report --run DIR --stage NAME=DIR [...]``: curves, accuracy and sample answers of a run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from future_l1_verl.data.rows import RL_COLUMNS, check_frames, read_rows
from future_l1_verl.evaluation.runner import Decoding, answer
from future_l1_verl.evaluation.scoring import summarise
from future_l1_verl.sft.checks import check_checkpoint


def run(args: argparse.Namespace) -> None:
    check_checkpoint(args.model)
    rows = read_rows(args.data, RL_COLUMNS)[: args.limit]
    check_frames(rows, {"image": lambda row: row["problem"]})
    decoding = Decoding(
        args.max_tokens,
        args.temperature,
        args.min_latents,
        args.seed,
        args.dtype,
        args.max_model_len,
        args.system_prompt or None,
    )
    records = answer(args.model, rows, decoding)
    summary = summarise(records)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "answers.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = {"model": str(args.model), "data": str(args.data), **asdict(decoding)}
    (args.out / "summary.json").write_text(json.dumps({"settings": settings, "splits": summary}, indent=2) + "\n")
    Console().print(as_table(summary, str(args.model)))


def _trained_with() -> str:
    """The system prompt of stage 2's config."""
    return OmegaConf.load(resources.files("future_l1_verl.config.rl") / "main.yaml").data.system_prompt


def report(args: argparse.Namespace) -> None:
    evaluations = dict(entry.split("=", 1) for entry in args.stage)
    from future_l1_verl.evaluation.report import write_report

    print(write_report(args.run, {stage: Path(folder) for stage, folder in evaluations.items()}))


def as_table(summary: dict[str, dict], title: str) -> Table:
    table = Table(title=title)
    for column in ("split", "n", "accuracy", "95 % interval", "majority", "parsed", "spans", "latents"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, row in summary.items():
        low, high = row["interval"]
        table.add_row(
            split,
            str(row["n"]),
            f"{row['accuracy']:.3f}",
            f"{low:.3f} .. {high:.3f}",
            f"{row['majority']:.3f}",
            f"{row['parsed']:.3f}",
            f"{row['spans']:.2f}",
            f"{row['latents']:.2f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m future_l1_verl.evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="ask a checkpoint the questions of a file")
    command.add_argument("--model", type=Path, required=True, help="checkpoint directory with latent tokens")
    command.add_argument("--data", type=Path, required=True, help="RL parquet or JSON")
    command.add_argument("--out", type=Path, required=True, help="folder for answers.jsonl and summary.json")
    command.add_argument("--limit", type=int, help="only the first rows")
    command.add_argument("--max-tokens", type=int, default=Decoding.max_tokens)
    command.add_argument("--temperature", type=float, default=Decoding.temperature)
    command.add_argument("--min-latents", type=int, default=Decoding.min_latents)
    command.add_argument("--seed", type=int, default=Decoding.seed)
    command.add_argument("--dtype", default=Decoding.dtype)
    command.add_argument("--max-model-len", type=int)
    command.add_argument("--system-prompt", default=_trained_with(), help="default: as in stage 2; empty for none")
    command.set_defaults(call=run)
    command = commands.add_parser("report", help="curves, accuracy and samples of a run as PNGs and Markdown")
    command.add_argument("--run", type=Path, required=True, help="folder with tensorboard/sft and tensorboard/rl")
    command.add_argument("--stage", action="append", required=True, metavar="NAME=DIR", help="an evaluation folder; repeat")
    command.set_defaults(call=report)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
