"""``python -m data_prep.sums --out FILE --rows N --seed S``: additions as rows of a stock verl job, to try rewards on."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pandas as pd


def rows(count: int, seed: int) -> list[dict[str, object]]:
    """Rows as verl's RL data set reads them (verl/utils/dataset/rl_dataset.py)."""
    generator = random.Random(seed)
    made = []
    for index in range(count):
        a, b = generator.randint(0, 99), generator.randint(0, 99)
        question = f"What is {a} + {b}?"
        prompt = f"{question} Explain between <reason> and </reason>, and answer between <answer> and </answer>."
        made.append({
            "data_source": "sums", "prompt": [{"role": "user", "content": prompt}],
            "reward_model": {"style": "rule", "ground_truth": str(a + b)},
            "extra_info": {"index": index, "question": question},
        })  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="parquet file to write")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows(args.rows, args.seed)).to_parquet(args.out)


if __name__ == "__main__":
    main()
