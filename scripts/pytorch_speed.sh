#!/usr/bin/env bash
# Training of image classifiers here and in PyTorch, side by side, on an idle
# machine: makes an environment with torch and torch-uncertainty, which is
# removed afterwards, and passes its arguments to experiments/pytorch_speed.py.
# torch is no dependency. PYTHON names the interpreter that has this package,
# TORCH_PYTHON one that has torch, if there is one already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

python="${PYTHON:-python3}"
if [[ -z "${TORCH_PYTHON:-}" ]]; then
  scratch="$(mktemp -d)"
  trap 'rm -rf "$scratch"' EXIT
  "$python" -m venv "$scratch"
  "$scratch/bin/pip" install --quiet --disable-pip-version-check \
    'torch-uncertainty[cpu]==0.13.0' scikit-learn
  TORCH_PYTHON="$scratch/bin/python"
fi
"$python" -m experiments.pytorch_speed --torch_python="$TORCH_PYTHON" "$@"
