#!/usr/bin/env bash
# Stage 2 on 20K open questions of TwiFF: 312 steps of 64 prompts at most, with a judge. Arguments are those of
# la_dapo_qwen3vl8b.sh. `future-l1 eval run --task twiffbench` gives replies the 4,096 tokens of the paper; training and its
# validation stay at 2,048.
#   bash recipes/la_dapo_twiff.sh --model DIR --data FILE --val FILE --out DIR --judge-url URL --judge-model NAME [...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

exec bash recipes/la_dapo_qwen3vl8b.sh --questions twiff --every 50 --judged "$@"
