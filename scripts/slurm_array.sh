#!/usr/bin/env bash
# Submits a sweep to Slurm: a job that makes the problems, an array of tasks
# that share the work, and a job that builds the leaderboard.
#
#   scripts/slurm_array.sh --num_tasks=200 --partition=gpu --gpus=1 -- \
#     --config=testbed_configs/sweeps.py --results_dir=/shared/results
#
# What stands behind -- are flags of experiments.run_sweep; paths are relative
# to this repository. It and the folders must be on a file system that all nodes
# share. It is safe to submit again: what is done is skipped.
#
# A task that is preempted, or comes to its time limit, is told by SIGTERM,
# keeps what it has and is queued again (exit code 75).
#
# Flags (all --name=value; whatever is cluster-specific is here):
#   --num_tasks=N       shares of the work, and array tasks (default 20). Shares
#                       are even up to about one per ten minutes of work.
#   --concurrency=N     at most so many tasks at a time (default: no limit)
#   --problem_tasks=N   tasks that make the problems (default 1); 0 for none,
#                       where they are in the cache already
#   --output_dir=DIR    of the leaderboard (default: results_dir.leaderboard)
#   --log_dir=DIR       (default: results_dir.logs)
#   --partition=NAME    of all jobs (default: the cluster's)
#   --account=NAME      (default: the user's)
#   --time=LIMIT        of each task, as sbatch takes it (default 04:00:00)
#   --cpus=N            cores per task, each with a worker (default 1)
#   --gpus=N            GPUs per task, each with a worker (default 0)
#   --mem=SIZE          of each task, as sbatch takes it (default: cluster's)
#   --setup=TEXT        first lines of every job, e.g. 'module load cuda'
#   --sbatch_args=TEXT  further arguments of every sbatch, e.g. '--qos=low'
#   --signal_seconds=N  SIGTERM comes so long before the time limit (default 90)
#   --max_restarts=N    a task is not queued again more often (default 100)
#   --max_array_size=N  (default: what scontrol says of the cluster)
#   --job_name=NAME     (default enn)
#   --dry_run           print the jobs, submit nothing
#
#   PYTHON=...          the interpreter on the nodes (default: .venv/bin/python)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh

fail() { echo "error: $*" >&2; exit 2; }

num_tasks=20 concurrency='' problem_tasks=1 output_dir='' log_dir=''
partition='' account='' time=04:00:00 cpus=1 gpus=0 mem='' setup=''
sbatch_args='' signal_seconds=90 max_restarts=100 max_array_size=''
job_name=enn dry_run=''
while (( $# )); do
  case "$1" in
    --) shift; break ;;
    --help|-h) print_help "scripts/${0##*/}"; exit 0 ;;
    --dry_run) dry_run=1 ;;
    --num_tasks=*|--concurrency=*|--problem_tasks=*|--output_dir=*|\
    --log_dir=*|--partition=*|--account=*|--time=*|--cpus=*|--gpus=*|--mem=*|\
    --setup=*|--sbatch_args=*|--signal_seconds=*|--max_restarts=*|\
    --max_array_size=*|--job_name=*)
      name="${1%%=*}"; printf -v "${name#--}" '%s' "${1#*=}" ;;
    *) fail "unknown argument '$1'; flags of the sweep stand behind --" ;;
  esac
  shift
done
sweep=("$@")

# They stand on lines of a job's script, of which each would begin another.
for name in output_dir log_dir partition account time mem sbatch_args job_name
do
  [[ "${!name}" != *[$'\n\r"']* ]] ||
    fail "--$name must have no line break and no quotation mark"
done
for name in num_tasks cpus max_restarts; do
  [[ "${!name}" =~ ^[1-9][0-9]*$ ]] ||
    fail "--$name must be >= 1, got '${!name}'"
done
for name in gpus problem_tasks signal_seconds; do
  [[ "${!name}" =~ ^(0|[1-9][0-9]*)$ ]] ||
    fail "--$name must be >= 0, got '${!name}'"
done
for name in concurrency max_array_size; do
  [[ "${!name}" =~ ^([1-9][0-9]*)?$ ]] ||
    fail "--$name must be >= 1, got '${!name}'"
done

PYTHON="${PYTHON:-.venv/bin/python}"
command -v "$PYTHON" > /dev/null ||
  fail "there is no $PYTHON: scripts/quickstart.sh makes it; see PYTHON=..."

# The flags that the three commands share, those of agents, which make_problems
# refuses, and those that are the sweep's alone.
results_dir='' common=() agents=()
for flag in "${sweep[@]}"; do
  case "$flag" in
    --results_dir=*) results_dir="${flag#*=}" ;;
    --task_index*|--num_tasks*|--num_workers*|--grace_seconds*|--dry_run*)
      fail "$flag is set by this script" ;;
    --retry_failed*|--noretry_failed|--memory_budget_mb=*|\
    --timing_seconds=*|--compilation_cache_dir=*) ;;
    --agents=*|--agent_module=*|--num_enn_samples=*|--dtype=*|\
    --enumerate_indices*|--noenumerate_indices) agents+=("$flag") ;;
    --*=*) common+=("$flag") ;;
    *) fail "flags of the sweep are given as --name=value, got '$flag'" ;;
  esac
done
[[ -n "$results_dir" ]] || fail '--results_dir must be given behind --'
[[ "$results_dir" != *[$'\n\r"']* ]] ||
  fail '--results_dir must have no line break and no quotation mark'
output_dir="${output_dir:-$results_dir.leaderboard}"
log_dir="${log_dir:-$results_dir.logs}"
# A shell leaves the home folder in --name=~/folder as it is.
for name in results_dir output_dir log_dir; do
  [[ "${!name}" != '~/'* ]] || declare "$name=$HOME/${!name:2}"
done

# All that can be wrong with the sweep is found before anything is queued, and
# what it costs is said.
workers="$cpus"
(( gpus == 0 )) || workers="$gpus"
dry="$("$PYTHON" -m experiments.run_sweep "${sweep[@]}" --dry_run \
  --task_index=0 --num_tasks="$num_tasks" --num_workers="$workers")" || exit 2
sed -n '/^cost: /,/^[0-9]* work units/{/^[0-9]* work units/!p}' <<< "$dry"

if [[ -z "$max_array_size" ]]; then
  # Where there is no scontrol, a dry run takes Slurm's default.
  max_array_size="$({ scontrol show config 2> /dev/null || true; } |
    sed -n 's/^MaxArraySize *= *//p')"
  max_array_size="${max_array_size:-1001}"  # Slurm's default.
fi
[[ -n "$dry_run" ]] || command -v sbatch > /dev/null ||
  fail 'there is no sbatch here; --dry_run prints the jobs'

# sbatch lines of a job. head NAME ARRAY
head() {
  echo '#!/bin/bash'
  echo "#SBATCH --job-name=$job_name-$1"
  # Appended to: a task that is queued again keeps the log of its first run.
  if [[ -n "$2" ]]; then
    echo "#SBATCH --array=$2"
    echo "#SBATCH --output=\"$log_dir/%x-%A_%a.log\""
  else
    echo "#SBATCH --output=\"$log_dir/%x-%j.log\""
  fi
  echo '#SBATCH --open-mode=append'
  echo '#SBATCH --requeue'
  echo "#SBATCH --signal=B:TERM@$signal_seconds"
  echo "#SBATCH --time=$time"
  echo "#SBATCH --cpus-per-task=$cpus"
  [[ -z "$partition" ]] || echo "#SBATCH --partition=$partition"
  [[ -z "$account" ]] || echo "#SBATCH --account=$account"
  [[ -z "$mem" ]] || echo "#SBATCH --mem=$mem"
}

# The rest of a job. body ENVIRONMENT COMMAND: the command's own words may hold
# variables of the job, so they come quoted already.
body() {
  echo "cd $(printf %q "$PWD")"
  [[ -z "$setup" ]] || echo "$setup"
  [[ -z "$1" ]] || echo "export $1"
  echo "restarts=$max_restarts"
  cat << 'END'
id="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
id="${id:-$SLURM_JOB_ID}"
# Slurm's signal comes to this shell, which hands it on.
told=0
trap 'told=1; [[ -z "${pid:-}" ]] || kill -TERM "$pid" 2> /dev/null' TERM USR1
END
  echo "$2 & pid=\$!"
  cat << 'END'
while true; do  # `wait` comes back for every signal.
  wait "$pid"; code=$?
  kill -0 "$pid" 2> /dev/null || break
done
# Told to stop, and stopped: on, in another run. A job that was cancelled is no
# longer running, and stays so.
if (( code == 75 || (told && code != 0) )) &&
    (( ${SLURM_RESTART_COUNT:-0} < restarts )) &&
    [[ "$(squeue -h -j "$id" -o %T 2> /dev/null)" == RUNNING ]]; then
  echo "exit code $code: $id is queued again"
  scontrol requeue "$id" && sleep 60  # Slurm ends this run.
fi
exit "$code"
END
}

exec 3>&1  # Where a dry run prints: what `submit` prints is taken.

# submit SCRIPT ARGUMENTS...: prints the job's id.
submit() {
  local script="$1"; shift
  if [[ -n "$dry_run" ]]; then
    { echo "--- sbatch $* $sbatch_args"; echo "$script"; } >&3
    echo "JOB$((RANDOM))"
  else
    # shellcheck disable=SC2086  # These are several words.
    sbatch --parsable "$@" $sbatch_args <<< "$script" | cut -d';' -f1
  fi
}

quote() { printf '%q ' "$@"; }
python="$(quote "$PYTHON")"
gpu_args=()
(( gpus == 0 )) || gpu_args=("--gres=gpu:$gpus")
[[ -n "$dry_run" ]] || mkdir -p "$log_dir" 2> /dev/null ||
  fail "--log_dir $log_dir cannot be made"

dependency=''  # Of the next array.
if (( problem_tasks )); then
  # Exact posteriors are made on CPUs, whatever the sweep runs on.
  script="$(head problems "0-$((problem_tasks - 1))"; body JAX_PLATFORMS=cpu \
    "$python -m experiments.make_problems $(quote "${common[@]}")\
--task_index=\"\$SLURM_ARRAY_TASK_ID\" --num_tasks=$problem_tasks")"
  problems="$(submit "$script")"
  echo "problems: job $problems"
  dependency="afterok:$problems"
fi

# Indices end below MaxArraySize: more tasks are several arrays, one after the
# other where the number of tasks at a time is limited.
arrays=()
for (( first = 0; first < num_tasks; first += max_array_size )); do
  size=$((num_tasks - first))
  (( size <= max_array_size )) || size="$max_array_size"
  array="0-$((size - 1))${concurrency:+%$concurrency}"
  script="$(head sweep "$array"; body '' \
    "$python -m experiments.run_sweep $(quote "${sweep[@]}")\
--task_index=\$(($first + SLURM_ARRAY_TASK_ID)) --num_tasks=$num_tasks \
--num_workers=$workers --grace_seconds=$((signal_seconds * 2 / 3))")"
  previous="${arrays[*]: -1}"
  after="$dependency"
  [[ -z "$concurrency" || -z "$previous" ]] ||
    after="${dependency:+$dependency,}afterany:$previous"
  arrays+=("$(submit "$script" ${after:+"--dependency=$after"} \
    --kill-on-invalid-dep=yes "${gpu_args[@]}")")
  echo "sweep: job ${arrays[-1]}, tasks $first to $((first + size - 1))" \
    "of $num_tasks"
done

# After any end of the tasks: what failed or is missing is said there.
script="$(head leaderboard ''; body JAX_PLATFORMS=cpu "{ $python \
-m experiments.status $(quote "${common[@]}" "${agents[@]}" \
  "--results_dir=$results_dir"); \
$python -m experiments.build_leaderboard $(quote \
  "--results_dir=$results_dir" "--output_dir=$output_dir"); }")"
leaderboard="$(submit "$script" --kill-on-invalid-dep=yes \
  "--dependency=afterany$(printf ':%s' "${arrays[@]}")")"
echo "leaderboard: job $leaderboard, in $output_dir; logs in $log_dir"
echo "how far it is: $python-m experiments.status $(quote "${common[@]}" \
  "--results_dir=$results_dir")"
