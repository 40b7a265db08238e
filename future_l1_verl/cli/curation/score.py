"""Lets a model answer every candidate with and without its future frames, on Ray Data.

Started again it goes on; what failed is asked for again, and never counted as wrong.
"""

import argparse
from pathlib import Path

from data_prep.curation.backends import Sampling
from data_prep.curation.backends.openai import OpenAISettings
from data_prep.curation.job import Job
from data_prep.curation.patience import Patience
from future_l1_verl.arguments import Parser, json_object, number, positive
from future_l1_verl.rewards.judge.settings import JudgeSettings


def add_arguments(parser: Parser) -> None:
    what = parser.add_argument_group("what")
    what.add_argument("--candidates", type=Path, required=True, help="file that `read` wrote")
    what.add_argument("--videos", type=Path, required=True, help="folder that the candidates' videos are relative to")
    what.add_argument("--out", type=Path, required=True, help="folder for the scores, seen by every machine")
    what.add_argument("--retry-failed", action="store_true", help="ask again for what failed in earlier runs")
    who = parser.add_argument_group("who answers")
    who.add_argument("--model", required=True, help="checkpoint directory, or its name at the server of --url")
    who.add_argument("--url", help="server with the OpenAI API, what comes before /chat/completions; default: vLLM engines")
    who.add_argument("--api-key-file", help="file with the key of --url")
    who.add_argument("--concurrency", type=positive, default=OpenAISettings.concurrency, help="requests in flight per replica")
    who.add_argument("--replicas", type=positive, default=1, help="engines, or processes that ask the server")
    who.add_argument("--gpus", type=number(0, 1024), default=0, help="GPUs per engine; 0 for a CPU")
    who.add_argument("--engine", type=json_object, default={}, metavar="JSON", help="further arguments of vllm.LLM")
    who.add_argument(
        "--address", default="local", help="of a Ray cluster, or auto for the one started here; default: none but this process"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--rollouts", type=positive, default=Job.rollouts, help="answers in each of the two conditions")
    how.add_argument("--temperature", type=number(0, 2), default=Sampling.temperature, help="of sampling")
    how.add_argument(
        "--top-p", type=number(1e-6, 1), default=Sampling.top_p, help="share of the probability that is sampled from"
    )
    how.add_argument("--max-tokens", type=positive, default=Sampling.max_tokens, help="of an answer")
    how.add_argument("--max-pixels", type=positive, default=Job.max_pixels, help="to which frames are shrunk")
    how.add_argument("--base-prompt", type=Path, help="file with {question}; default: ours")
    how.add_argument("--hint-prompt", type=Path, help="file with {question} and, after it, {future}; default: ours")
    how.add_argument("--system-prompt", help="said before the question; default: none")
    how.add_argument("--seed", type=int, default=Job.seed, help="of sampling")
    how.add_argument(
        "--shard-size", type=positive, default=Job.shard_size, help="candidates that are asked, and kept, together"
    )
    judge = parser.add_argument_group("who judges what no rule can decide")
    judge.add_argument("--judge-url", help="what comes before /chat/completions; default: rules alone")
    judge.add_argument("--judge-model", help="its name at the server")
    judge.add_argument(
        "--judge-max-tokens", type=positive, default=JudgeSettings.max_tokens, help="of its reply, thoughts included"
    )
    judge.add_argument("--judge-request", type=json_object, default={}, metavar="JSON", help="further fields of its requests")
    judge.add_argument(
        "--judge-mode", default=JudgeSettings.mode, choices=("rule_first", "judge_only"), help="who decides first"
    )
    judge.add_argument("--judge-prompt", help="file with {question}, {truth} and {answer}; default: ours")
    judge.add_argument("--judge-api-key-file", help="file with the key of --judge-url")
    judge.add_argument("--judge-concurrency", type=positive, default=JudgeSettings.concurrency, help="requests at once")
    judge.add_argument("--judge-cache", help="SQLite file on a disk of the machine that asks")
    patience = parser.add_argument_group("servers that fail")
    patience.add_argument("--rounds", type=positive, default=Patience.rounds, help="times that one thing is asked for")
    patience.add_argument(
        "--outage", type=number(0, float("inf")), default=Patience.outage, help="seconds that a server may be away"
    )


def run(args: argparse.Namespace) -> None:
    from data_prep.curation.score import run

    run(args)
