#!/usr/bin/env bash
# Runs what reads the code without running it, ruff and pyright, as
# pyproject.toml configures them. Exit code 1 where one of them finds something.
#
#   PYTHON=python3.12 ./scripts/lint.sh   another interpreter for .venv
#   VENV=DIR                              another place for it
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

. scripts/setup_venv.sh
setup_venv '.[lint]'

failed=0
"$VENV/bin/ruff" check . || failed=1
"$VENV/bin/pyright" --pythonpath "$VENV/bin/python" || failed=1
exit "$failed"
