#!/usr/bin/env bash
# Sets everything up and runs all checks, two files at a time; arguments go to pytest (e.g. `bash tests/run.sh -m "not e2e"`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash recipes/env.sh cpu
source recipes/large_pages.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
