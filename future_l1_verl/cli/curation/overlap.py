"""The arguments about benchmarks that `curate select` and `curate build` share."""

from pathlib import Path

from data_prep.curation.overlap import DISTANCE, SHARE, WAYS, WHOLE_STEM
from future_l1_verl.arguments import Parser, number, positive


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--benchmark", type=Path, nargs="+", default=[], metavar="FILE", help="candidates to keep clear of")
    parser.add_argument("--benchmark-videos", type=Path, nargs="+", default=[], metavar="DIR", help="folder of each, or of all")
    parser.add_argument("--overlap", nargs="+", choices=WAYS, default=WAYS, help="what is compared with the benchmarks")
    parser.add_argument("--video-id", default=WHOLE_STEM, metavar="REGEX", help="its first group, in file names without suffix")
    parser.add_argument("--hash-distance", type=int, default=DISTANCE, help="most bits of 64 in which matching frames differ")
    parser.add_argument("--frame-share", type=number(0, 1), default=SHARE, help="least share of a clip's frames that match")
    parser.add_argument("--workers", type=positive, help="processes that decode and hash clips; default: as many as cores")
