#!/usr/bin/env bash
# Runs what reads the code without running it, ruff and pyright, as
# pyproject.toml configures them. Exit code 1 where one of them finds something;
# where pyright cannot start, for it needs node, it is left out and that is said.
#
#   PYTHON=python3.12 ./scripts/lint.sh   another interpreter for .venv
#   VENV=DIR                              another place for it
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

. scripts/setup_venv.sh
setup_venv '.[dev]'

failed=0
"$VENV/bin/ruff" check . || failed=1
# Without the wheel of node pyright would load it from the internet.
if reason="$("$VENV/bin/pyright" --version 2>&1)"; then
  "$VENV/bin/pyright" --pythonpath "$VENV/bin/python" || failed=1
else
  echo "pyright is left out, it does not start: ${reason##*$'\n'}" >&2
fi
exit "$failed"
