"""Checks that a server is fit to judge: that it answers, in the right form, and knows right from wrong.

Exits with 1 if it is not.
"""

import argparse

from future_l1_verl.arguments import Parser, json_object, positive
from future_l1_verl.rewards.judge.settings import JudgeSettings


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--check", metavar="URL", required=True, help="what comes before /chat/completions")
    parser.add_argument("--model", help="its name at the server; default: the only one that the server lists")
    parser.add_argument("--prompt", metavar="FILE", help="with {question}, {truth} and {answer}; default: ours")
    parser.add_argument("--api-key-file", metavar="FILE", help="file with the key of the server")
    parser.add_argument("--timeout", metavar="S", type=float, default=60.0, help="seconds per request")
    parser.add_argument("--max-tokens", metavar="N", type=positive, default=JudgeSettings.max_tokens, help="of a reply")
    parser.add_argument(
        "--request", metavar="JSON", type=json_object, default={}, help="further fields of each request; null takes one away"
    )


def run(args: argparse.Namespace) -> int:
    import asyncio

    from future_l1_verl.rewards.judge.check import EXAMPLES, check
    from future_l1_verl.rewards.judge.client import Judge
    from future_l1_verl.rewards.judge.settings import JudgeUnavailable

    shared = {name: getattr(args, name) for name in ("prompt", "api_key_file", "timeout", "max_tokens", "request")}
    settings = JudgeSettings(args.check, args.model or "?", attempts=1, concurrency=len(EXAMPLES), **shared)
    Judge(settings)  # reads the files
    try:
        wrong = asyncio.run(check(settings, args.model))
    except JudgeUnavailable as error:
        wrong = str(error)
    print(wrong or "the judge is fit")
    return 1 if wrong else 0
