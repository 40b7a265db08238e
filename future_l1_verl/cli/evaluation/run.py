"""Asks a checkpoint the questions of a benchmark.

An answer is a line of ``answers.jsonl`` in --out as soon as it is there; the same command goes on where it
stopped. Exits with 1 if a verdict or an answer is missing.
"""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser, json_object, number, positive
from future_l1_verl.data.rows import FORMS
from future_l1_verl.evaluation.choices import KINDS, PROTOCOLS, STYLES
from future_l1_verl.evaluation.tasks import TASKS


def add_arguments(parser: Parser) -> None:
    what = parser.add_argument_group("what is asked")
    what.add_argument(
        "--task", choices=TASKS, required=True, help="which benchmark the rows are of; rl: any rows with a right answer"
    )
    what.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="parquet, JSON or JSON lines; a folder of shards, or of save_to_disk",
    )
    what.add_argument("--videos", help="where clips are: a folder, a map or a template; default: beside the data")
    what.add_argument("--limit", type=positive, help="how many of the first rows to ask")
    what.add_argument("--max-frames", type=positive, default=32, help="of a clip whose question names no frames")
    what.add_argument(
        "--prompt",
        choices=STYLES,
        help="latent spans and text; that, and the letter of an option alone; text as the checkpoint was trained, or asked for "
        "by us, or the answer alone; default: as the checkpoint was trained",
    )
    what.add_argument("--system-prompt", help="instead of that of --prompt; empty for none")
    what.add_argument("--observed", choices=FORMS, help="how frames are shown; default: as the checkpoint was trained")

    who = parser.add_argument_group("who answers")
    who.add_argument("--model", type=Path, required=True, help="checkpoint directory; with --url the one that is served there")
    who.add_argument("--url", help="a running `vllm serve`: what comes before /chat/completions")
    who.add_argument("--served-name", help="default: the only one that the server lists")
    who.add_argument("--api-key-file", type=Path, help="file with the key of --url")
    who.add_argument("--tensor-parallel", type=positive, default=1, help="devices of an engine")
    who.add_argument("--data-parallel", type=positive, default=1, help="engines side by side")
    who.add_argument("--dtype", default="auto", help="what the engine computes in, as vLLM names it")
    who.add_argument("--max-model-len", type=positive, help="tokens of prompt and reply at most; default: the checkpoint's")
    who.add_argument(
        "--gpu-memory-utilization", type=number(0.01, 1), help="share of the memory that an engine may use; default: vLLM's"
    )
    who.add_argument("--engine", type=json_object, default={}, metavar="JSON", help="further arguments of vLLM's engine")
    who.add_argument("--concurrency", type=positive, default=128, help="questions at once, with their frames in memory")

    how = parser.add_argument_group("how")
    how.add_argument("--max-tokens", type=positive, help="of a reply; default: the task's")
    how.add_argument("--temperature", type=number(0, 2), default=0.0, help="of sampling; 0 takes the likeliest token")
    how.add_argument("--top-p", type=number(1e-6, 1), default=1.0, help="share of the probability that is sampled from")
    how.add_argument("--seed", type=int, default=0, help="of sampling and of interventions")
    how.add_argument("--min-latents", type=positive, default=1, help="latents of a span before the model may end it")
    how.add_argument("--intervene", choices=KINDS, help="replace the latents of the answers of --intact")
    how.add_argument(
        "--intact", type=Path, metavar="DIR", help="a finished run of these questions or more, made with --save-latents"
    )

    judge = parser.add_argument_group("judge of open answers; for twiffbench needed")
    judge.add_argument("--judge-url", help="what comes before /chat/completions")
    judge.add_argument("--judge-model", help="its name at the server")
    judge.add_argument("--judge-concurrency", type=positive, default=64, help="requests at once")
    judge.add_argument("--judge-api-key-file", help="file with the key of --judge-url")
    judge.add_argument("--judge-max-tokens", type=positive, default=64, help="of its reply, thoughts included")
    judge.add_argument("--judge-request", type=json_object, default={}, metavar="JSON", help="further fields of its requests")
    judge.add_argument(
        "--marking", choices=PROTOCOLS, default="ours", help="how TwiFF-Bench is marked: by our protocol or its authors'"
    )
    judge.add_argument("--judge-cache", help="file of verdicts, for the processes of one machine")

    parser.add_argument("--out", type=Path, required=True, help="folder; started again with it, a run goes on")
    parser.add_argument("--save-latents", action="store_true", help="keep the latents of each answer, which interventions need")


def run(args: argparse.Namespace) -> int:
    from openai import OpenAIError

    from future_l1_verl.evaluation.ask import ask

    try:
        return ask(args)
    except OpenAIError as error:
        raise ConnectionError(f"--url {args.url}: {error}") from error
