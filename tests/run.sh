#!/usr/bin/env bash
# Set up (once) and run the tests; further arguments go to pytest. GRN_VENV names another virtual environment.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${GRN_VENV:-.venv}
.ci/setup "$venv"
exec "$venv/bin/python" -m pytest "$@"
