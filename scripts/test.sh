#!/usr/bin/env bash
# Installs into .venv, with what tests need, runs ruff and pyright, and, where
# they find nothing, the tests. Arguments go to pytest:
# ./scripts/test.sh -k sweeps
#
#   PYTHON=python3.12 ./scripts/test.sh   another interpreter for .venv
#   VENV=DIR                              another place for it
#   LINT=0                                tests alone
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

. scripts/setup_venv.sh
setup_venv '.[test]'
[[ "${LINT:-1}" == 0 ]] || VENV="$VENV" scripts/lint.sh

# A process per core, and no more threads than that: tests are many small
# compilations, each of which keeps one core busy.
cores="$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)"
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
exec "$VENV/bin/python" -m pytest tests \
  --numprocesses="$((cores < 8 ? cores : 8))" --dist=loadfile \
  --no-loadscope-reorder "$@"
