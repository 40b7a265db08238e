"""``python -m data_prep.toy.synthetic --out DIR --seed S`` writes the synthetic video-event set."""

from pathlib import Path

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.arguments import Parser
from future_l1_verl.progress import Progress


def main() -> None:
    parser = Parser("python -m data_prep.toy.synthetic", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="new or empty directory")
    parser.add_argument(
        "--train-questions", type=int, default=Settings.train_questions, help="training questions of each split"
    )
    parser.add_argument("--val-questions", type=int, default=Settings.val_questions, help="validation questions a split")
    parser.add_argument("--test-questions", type=int, default=Settings.test_questions, help="test questions a split")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--pairs", type=float, default=Settings.pairs, help="share of clips with two balls that collide")
    parser.add_argument(
        "--mistaken",
        type=float,
        default=Settings.mistaken,
        help="share of rows of stage 1 about a later hit that answer the first",
    )
    parser.add_argument("--answers", choices=("text", "letter"), default="text", help="what an answer names")
    args = parser.parse_args()
    values = vars(args)
    out = values.pop("out")
    write_set(out, Settings(**values), lambda items, label: Progress(items, desc=label))


if __name__ == "__main__":
    main()
