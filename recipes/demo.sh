#!/usr/bin/env bash
# From nothing to samples by class and by prompt, on one page: bash recipes/demo.sh [--all] [DIR], demo by default.
# --all adds clips of moving figures, which takes another half an hour.
# It makes a virtual environment in .venv, or uses the one in GRN_VENV. Stages that are done are skipped, an interrupted
# one resumes. DEMO_PROMPT="a yellow star" draws another prompt of your own.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
target=first
if [ "${1:-}" = --all ]; then
    target=all
    shift
fi
out=${1:-demo}
venv=${GRN_VENV:-$project/.venv}
command -v make >/dev/null || { echo "demo.sh: make is missing; install it, on Debian and Ubuntu with: apt install make" >&2; exit 1; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
"$project/.ci/setup" "$venv"
export PATH="$venv/bin:$PATH"
# Another prompt than last time is sampled anew, and nothing else.
if [ -n "${DEMO_PROMPT:-}" ] && [ "$(cat "$out/.prompt" 2>/dev/null)" != "$DEMO_PROMPT" ]; then
    rm -f "$out/.done/yours"
fi
# Two stages at once, each with half of the cores.
cores=$(getconf _NPROCESSORS_ONLN)
if [ "$cores" -gt 1 ]; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / 2))}
    set -- -j2
else
    set --
fi
exec make --no-print-directory "$@" -C "$project/recipes/quickstart" OUT="$out" PYTHON="$venv/bin/python" "$target"
