#!/usr/bin/env bash
# Makes tests/data/torchmetrics_values.npz again: scores of classifiers as
# torchmetrics and torch-uncertainty compute them, in an environment of their
# own that is removed afterwards. The tests compare with the file; torch is no
# dependency. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch"
"$scratch/bin/pip" install --quiet --disable-pip-version-check \
  torchmetrics==1.9.0 'torch-uncertainty[cpu]==0.13.0'
"$scratch/bin/python" scripts/torchmetrics_values.py \
  "${1:-tests/data/torchmetrics_values.npz}"
