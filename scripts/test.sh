#!/usr/bin/env bash
# Installs into .venv, with what tests need, and runs them. Arguments go to
# pytest: ./scripts/test.sh -k sweeps
#
#   PYTHON=python3.12 ./scripts/test.sh   another interpreter for .venv
#   VENV=DIR                              another place for it
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/setup_venv.sh
setup_venv '.[test]'

# The oracle of the kernel, without the dependencies that it does not need here.
# Where it cannot be had, its tests are skipped and say so.
if [[ ! -e "$VENV/oracle" ]]; then
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-deps neural-tangents==0.6.5 frozendict ||
    echo 'neural-tangents could not be installed: its tests will be skipped'
  touch "$VENV/oracle"
fi

# A process per core, and no more threads than that: tests are many small
# compilations, each of which keeps one core busy.
cores="$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)"
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
exec "$VENV/bin/python" -m pytest tests \
  --numprocesses="$((cores < 8 ? cores : 8))" --dist=loadfile "$@"
