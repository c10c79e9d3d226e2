#!/usr/bin/env bash
# Installs into .venv, with what tests need, and runs them. Arguments go to
# pytest: ./scripts/test.sh -k sweeps
#
#   PYTHON=python3.12 ./scripts/test.sh   another interpreter for .venv
#   VENV=DIR                              another place for it
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

. scripts/setup_venv.sh
setup_venv '.[test]'

# A process per core, and no more threads than that: tests are many small
# compilations, each of which keeps one core busy.
cores="$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)"
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
exec "$VENV/bin/python" -m pytest tests \
  --numprocesses="$((cores < 8 ? cores : 8))" --dist=loadfile "$@"
