#!/usr/bin/env bash
# Set up (once) and run the tests; further arguments go to pytest. GRN_VENV names another virtual environment.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${GRN_VENV:-.venv}
.ci/setup "$venv"
# One thread each: two processes with all the threads of the machine would take turns.
export OMP_NUM_THREADS=1
exec "$venv/bin/python" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal "$@"
