#!/usr/bin/env bash
# Runs a sweep on a TPU VM: one process that trains on all chips of this host.
#
#   scripts/tpu_vm.sh -- --config=testbed_configs/paper.py --results_dir=DIR
#
# On a slice of several hosts run it on all of them (gcloud compute tpus tpu-vm
# ssh NAME --worker=all --command=...), with --num_hosts: each host is a task of
# its own and computes alone, so no host waits for another, and one that is
# preempted takes none along. Folders must be shared by the hosts, and must have
# an atomic rename: Filestore has one, a mounted bucket may not.
#
# What stands behind -- are flags of experiments.run_sweep; paths are relative
# to this repository.
#
# Flags:
#   --num_hosts=N    hosts of the slice (default 1)
#   --host=I         which this is, from 0 (default: TPU_WORKER_ID)
#   --chips=A,B,C    shape of this host's chips, e.g. 2,2,1 (default: what
#                    libtpu finds; needed with several hosts)
#   --dry_run        print the command, run nothing
#
#   PYTHON=...       the interpreter (default: .venv/bin/python), with jax[tpu]
#
# Not tried on a TPU: none was at hand. What it would run is tested.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh

fail() { echo "error: $*" >&2; exit 2; }

num_hosts=1 host="${TPU_WORKER_ID:-}" chips='' dry_run=''
while (( $# )); do
  case "$1" in
    --) shift; break ;;
    --help|-h) print_help "scripts/${0##*/}"; exit 0 ;;
    --dry_run) dry_run=1 ;;
    --num_hosts=*) num_hosts="${1#*=}" ;;
    --host=*) host="${1#*=}" ;;
    --chips=*) chips="${1#*=}" ;;
    *) fail "unknown argument '$1'; flags of the sweep stand behind --" ;;
  esac
  shift
done
[[ "$num_hosts" =~ ^[1-9][0-9]*$ ]] ||
  fail "--num_hosts must be >= 1, got '$num_hosts'"
[[ "$chips" =~ ^([0-9]+,[0-9]+,[0-9]+)?$ ]] ||
  fail "--chips must be three numbers with commas, got '$chips'"

settings=(JAX_PLATFORMS=tpu,cpu)
task=()
if (( num_hosts > 1 )); then
  [[ "$host" =~ ^[0-9]+$ ]] && (( host < num_hosts )) ||
    fail "--host must be 0 to $((num_hosts - 1)), got '$host'"
  [[ -n "$chips" ]] || fail '--chips must be given with several hosts'
  task=("--task_index=$host" "--num_tasks=$num_hosts")
fi
if [[ -n "$chips" ]]; then
  # A slice of its own: libtpu would otherwise wait for the other hosts.
  settings+=("TPU_CHIPS_PER_PROCESS_BOUNDS=$chips" TPU_PROCESS_BOUNDS=1,1,1)
fi

PYTHON="${PYTHON:-.venv/bin/python}"
command -v "$PYTHON" > /dev/null ||
  fail "there is no $PYTHON: scripts/quickstart.sh makes it; see PYTHON=..."

command=(env "${settings[@]}" "$PYTHON" -m experiments.run_sweep "$@"
  "${task[@]}" --num_workers=1)
if [[ -n "$dry_run" ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
# Signals reach Python itself.
exec "${command[@]}"
