#!/usr/bin/env bash
# From a fresh clone to a leaderboard: installs into .venv (a minute or two),
# runs the quickstart sweep and shows its leaderboard (about a minute on two
# cores). What is done is not done again.
#
#   PYTHON=python3.12 ./scripts/quickstart.sh   another interpreter for .venv
#   VENV=DIR                                    another place for it
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac

(( $# == 0 )) || { echo "error: unknown argument '$1'" >&2; exit 2; }
. scripts/setup_venv.sh
setup_venv .

exec "$VENV/bin/python" -m enn_ensembles quickstart
