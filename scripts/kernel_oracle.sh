#!/usr/bin/env bash
# Compares the kernel with neural-tangents, the library of infinitely wide
# networks, and writes what that computes to tests/data/neural_tangents.npz, with
# which the tests compare wherever they run.
#
# neural-tangents is unmaintained and runs on jax of early 2024 only: it has an
# environment of its own, with every version pinned, which is removed afterwards.
#
#   scripts/kernel_oracle.sh [FILE]   write another file
#   PYTHON=python3.11                 its interpreter, 3.9 to 3.12
#   VENV=DIR                          the environment of this project (.venv)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

file="${1:-tests/data/neural_tangents.npz}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch"
pip=("$scratch/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" jax==0.4.25 jaxlib==0.4.25 numpy==1.26.4 scipy==1.12.0 \
  frozendict==2.4.6 absl-py==2.1.0
# Its other dependencies are TensorFlow's, of a part that is not needed here.
"${pip[@]}" --no-deps neural-tangents==0.6.5
"$scratch/bin/python" scripts/kernel_oracle.py "$file"
"${VENV:-.venv}/bin/python" -m pytest -q tests/test_kernels.py \
  -k neural_tangents
