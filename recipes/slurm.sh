#!/usr/bin/env bash
#SBATCH --job-name=future-l1
#SBATCH --output=slurm-%j.out
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --exclusive
# A recipe of stage 2 on the nodes of a Slurm job: starts Ray on all of them, waits until it is there, runs the recipe on the
# first, and ends Ray. Fails if the recipe does, or Ray on any node.
#   sbatch --nodes N recipes/slurm.sh RECIPE.sh [its arguments; --nodes N is added...]
#   bash recipes/slurm.sh --dry-run RECIPE.sh [...]          prints the commands and ends
# Submit it in the repository's root, on a file system that all nodes see. Ray's logs are in /tmp/ray-JOB of each node.
set -euo pipefail

# how long Ray may take to start, in seconds
patience=300

# sbatch runs a copy of this file, so that its own path says nothing.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
[ -f recipes/functions.sh ] || { echo "slurm.sh: submit it in the repository's root, not in $PWD" >&2 && exit 1; }
source recipes/functions.sh

dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=yes && shift; fi
[ $# -gt 0 ] || fail "which recipe?"
[ -f "recipes/$1" ] || fail "no recipe $1 in recipes/"

if [ -n "$dry_run" ]; then
    nodes=(NODE_1 NODE_2...) count=N others=N-1 job=JOB cpus=CPUS ip=IP port=PORT client_port=CLIENT_PORT
else
    [ -n "${SLURM_JOB_ID:-}" ] || fail "it runs in a Slurm job: sbatch --nodes N recipes/slurm.sh $1 ..."
    bash recipes/env.sh cuda
    mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    # Jobs that share a node have ports and folders of their own. This script runs on the first node.
    count=${#nodes[@]} others=$((${#nodes[@]} - 1)) job=$SLURM_JOB_ID cpus=$SLURM_CPUS_ON_NODE
    port=$((20000 + 2 * (job % 5000))) client_port=$((port + 1))
    ip=$(.venv/bin/python -c 'import ray; print(ray.util.get_node_ip_address())')
    # Ray runs what it is told by whoever has the token: Ray on the other nodes and the recipe, which inherit it.
    RAY_AUTH_TOKEN=$(.venv/bin/python -c 'import secrets; print(secrets.token_hex(32))')
    export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_ADDRESS=$ip:$port
fi

# A step has one CPU for each task unless told otherwise.
step=(srun --ntasks-per-node 1 --cpus-per-task "$cpus" --cpu-bind none)
start=(.venv/bin/ray start --block --disable-usage-stats --temp-dir "/tmp/ray-$job")
head=("${step[@]}" --nodes 1 --ntasks 1 --nodelist "${nodes[0]}"
    "${start[@]}" --head --node-ip-address "$ip" --port "$port" --ray-client-server-port "$client_port" --include-dashboard false)
workers=("${step[@]}" --nodes "$others" --ntasks "$others" --exclude "${nodes[0]}" "${start[@]}" --address "$ip:$port")
recipe=(bash "recipes/$1" "${@:2}" --nodes "$count")
there='import ray, sys, time
ray.init(logging_level="error")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(1)'

if [ -n "$dry_run" ]; then
    for command in head workers recipe; do declare -n words=$command && printf '%q ' "${words[@]}" && echo; done
    exit 0
fi

ray=()
trap 'kill "${ray[@]}" 2>/dev/null || true; wait' EXIT
beside_ray() { # COMMAND...: its exit status; the end if Ray's comes before its
    local status=0 pid
    setsid "$@" & # a group of its own, which ends as a whole
    pid=$!
    wait -n "$pid" "${ray[@]}" || status=$?
    if kill -0 "$pid" 2>/dev/null; then
        kill -- "-$pid"
        fail "Ray ended on a node; its logs are in /tmp/ray-$job there"
    fi
    return "$status"
}

# The other nodes and the driver wait for the head themselves.
"${head[@]}" & ray+=($!)
if [ "$others" -gt 0 ]; then "${workers[@]}" & ray+=($!); fi
beside_ray timeout "$patience" .venv/bin/python -c "$there" "$count" || fail "after $patience s Ray is not on $count nodes"
beside_ray "${recipe[@]}"
