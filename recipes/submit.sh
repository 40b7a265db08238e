#!/usr/bin/env bash
# Hands a recipe of stage 2 to a Ray cluster that is running, and follows its log; exits with 1 if the run fails.
#   bash recipes/submit.sh --address http://HEAD:8265 [--dry-run] RECIPE.sh [its arguments...]
# On every node Ray was started by this repository's .venv/bin/ray, at this very path (a file system that all see, or a copy
# on each); nothing is uploaded. Relative paths start at the repository's root.
# A cluster with token authentication needs its token here: in ~/.ray/auth_token, or where RAY_AUTH_TOKEN_PATH says. For one
# without, RAY_AUTH_MODE=disabled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

address= dry_run=

while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=yes ;;
    --address) [ $# -ge 2 ] || fail "$1 needs a value" && address=$2 && shift ;;
    --*) fail "unknown argument $1; see --help" ;;
    *) break ;;
    esac
    shift
done
[ -n "$address" ] || fail "--address is needed"
[ $# -gt 0 ] || fail "which recipe?"
[ -f "recipes/$1" ] || fail "no recipe $1 in recipes/"
recipe=$PWD/recipes/$1 && shift

command=(.venv/bin/ray job submit --address "$address" -- bash "$recipe" "$@")
if [ -n "$dry_run" ]; then
    printf '%q ' "${command[@]}" && echo
    exit 0
fi
# Given an address, Ray uses a token only if told so.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
exec "${command[@]}"
