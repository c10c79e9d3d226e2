#!/usr/bin/env bash
# Runs a sweep on all GPUs of this machine: a worker process per GPU.
#
#   scripts/multi_gpu.sh -- --config=testbed_configs/paper.py --results_dir=DIR
#
# What stands behind -- are flags of experiments.run_sweep; paths are relative
# to this repository. CUDA_VISIBLE_DEVICES narrows the GPUs. In a job array each
# task takes its share (run_sweep --help).
#
# Flags:
#   --workers_per_gpu=N  more than one where a worker leaves a GPU idle; they
#                        share its memory (default 1)
#   --dry_run            print the command, run nothing
#
#   PYTHON=...           the interpreter (default: .venv/bin/python)
#
# Tried with GPUs that were only named: no machine with several was at hand.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh

fail() { echo "error: $*" >&2; exit 2; }

workers_per_gpu=1 dry_run=''
while (( $# )); do
  case "$1" in
    --) shift; break ;;
    --help|-h) print_help "scripts/${0##*/}"; exit 0 ;;
    --dry_run) dry_run=1 ;;
    --workers_per_gpu=*) workers_per_gpu="${1#*=}" ;;
    *) fail "unknown argument '$1'; flags of the sweep stand behind --" ;;
  esac
  shift
done
[[ "$workers_per_gpu" =~ ^[1-9][0-9]*$ ]] ||
  fail "--workers_per_gpu must be >= 1, got '$workers_per_gpu'"

if [[ -n "${CUDA_VISIBLE_DEVICES+set}" ]]; then
  IFS=', ' read -r -a gpus <<< "$CUDA_VISIBLE_DEVICES"
else
  mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader \
    2> /dev/null)
fi
(( ${#gpus[@]} )) ||
  fail 'there is no GPU here: nvidia-smi, or CUDA_VISIBLE_DEVICES, lists none'

PYTHON="${PYTHON:-.venv/bin/python}"
command -v "$PYTHON" > /dev/null ||
  fail "there is no $PYTHON: scripts/quickstart.sh makes it; see PYTHON=..."

# run_sweep gives each worker one of CUDA_VISIBLE_DEVICES.
CUDA_VISIBLE_DEVICES="$(IFS=,; echo "${gpus[*]}")"
export CUDA_VISIBLE_DEVICES JAX_PLATFORMS=cuda,cpu
command=("$PYTHON" -m experiments.run_sweep "$@"
  "--num_workers=$(( ${#gpus[@]} * workers_per_gpu ))")
if [[ -n "$dry_run" ]]; then
  echo "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES" \
    "JAX_PLATFORMS=$JAX_PLATFORMS $(printf '%q ' "${command[@]}")"
  exit 0
fi
# Signals reach Python itself.
exec "${command[@]}"
