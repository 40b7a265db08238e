"""``python -m data_prep.toy.synthetic.hints --data DIR --out FILE``: writes SFT rows, each also with its future frames.

A model trained on them can answer under both conditions of curation; a large model can do so without it.
"""

from importlib import resources
from pathlib import Path

import pandas as pd

from data_prep.toy.examples import Row
from future_l1_verl.arguments import Parser

# The prompts of the two conditions, as files for `python -m data_prep.curation score`.
PROMPTS = resources.files("data_prep.toy.synthetic") / "prompts"


def with_hints(row: Row, template: str) -> Row:
    """Returns the row, asked with the hint ``template`` and its future frames among the observed ones."""
    human, gpt = (turn["value"] for turn in row["conversations"])
    asked = template.replace("{question}", human).replace("{future}", "<image>" * len(row["reasoning_image"]))
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": gpt}]
    return row | {"id": f"{row['id']}-hint", "image": [*row["image"], *row["reasoning_image"]], "conversations": turns}


def main() -> None:
    parser = Parser("python -m data_prep.toy.synthetic.hints", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that data_prep.toy.synthetic wrote")
    parser.add_argument("--out", type=Path, required=True, help="parquet file to write into that folder")
    args = parser.parse_args()
    if args.out.resolve().parent != args.data.resolve():
        raise SystemExit(f"--out {args.out}: must be a file in {args.data}, since clips are named relative to it")
    template = (PROMPTS / "hint.txt").read_text(encoding="utf-8").strip()
    rows = pd.read_parquet(args.data / "train.parquet").to_dict("records")
    pd.DataFrame([made for row in rows for made in (row, with_hints(row, template))]).to_parquet(args.out, index=False)


if __name__ == "__main__":
    main()
