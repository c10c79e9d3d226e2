#!/usr/bin/env bash
# Runs the quick tests on several Pythons, each with the lowest and the newest
# versions that setup.py allows, and prints a table of what passed.
#
#   scripts/test_versions.sh [PYTEST ARGUMENTS]   default: -m 'not slow' tests
#
#   PYTHONS='python3.11 python3.13'   which interpreters (default: 3.11 to 3.13;
#                                     what is not there is said and left out)
#   KEEP=DIR                          keeps the environments and logs there
#
# An environment of its own is made for each, which takes minutes and some GB.
# Exit codes: 0 all passed; 1 some did not; 2 there was nothing to run.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/help.sh
case "${1:-}" in --help|-h) print_help "scripts/${0##*/}"; exit 0 ;; esac
(( $# )) || set -- -m 'not slow' tests

folder="${KEEP:-$(mktemp -d)}"
mkdir -p "$folder"
[[ -n "${KEEP:-}" ]] || trap 'rm -rf "$folder"' EXIT

# Every lower bound of setup.py as the only version: name>=1.2 -> name==1.2.*,
# with its condition on Python. A jaxlib newer than jax would be taken for a jax
# that is not there.
lowest() {
  sed -n "s/^ *'\([A-Za-z0-9_-]*\)>=\([0-9.]*\)\(;.*\)\{0,1\}',\$/\1==\2.*\3/p" \
    setup.py
}

# Imports all that the extras of setup.py have brought.
import_extras() {
  "$1" - << 'EOF'
import importlib
import importlib.metadata as metadata
import re

modules = {}
for module, names in metadata.packages_distributions().items():
  for name in names:
    modules.setdefault(name.lower(), []).append(module)
for requirement in metadata.requires('enn_ensembles'):
  if 'extra ==' in requirement:
    name = re.match('[A-Za-z0-9._-]+', requirement)[0].lower()
    for module in modules[name]:
      if not module.startswith('_'):
        importlib.import_module(module)
EOF
}

run() {  # run PYTHON lowest|newest: a line of the table.
  local python="$1" which="$2" venv log
  venv="$folder/$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$which"
  log="$venv.log"
  shift 2
  if ! { "$python" -m venv "$venv" &&
      "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint <([[ "$which" == newest ]] || lowest) \
        --editable '.[dev,test]' &&
      import_extras "$venv/bin/python"; } > "$log" 2>&1; then
    echo "$which: cannot be installed ($(grep -m1 -i error "$log" || true))"
    return 1
  fi
  local versions code=0
  versions="$("$venv/bin/python" -c 'import importlib.metadata as m
print(", ".join(f"{n} {m.version(n)}" for n in ("jax", "dm-haiku", "numpy")))')"
  JAX_PLATFORMS=cpu "$venv/bin/python" -m pytest -q "$@" > "$log" 2>&1 ||
    code=$?
  echo "$which ($versions): $(tail -n 1 "$log")"
  return "$code"
}

read -r -a pythons <<< "${PYTHONS:-python3.11 python3.12 python3.13}"
num_run=0 failed=0
for python in "${pythons[@]}"; do
  if ! "$python" --version > /dev/null 2>&1; then
    echo "$python is not here and is left out"
    continue
  fi
  for which in lowest newest; do
    num_run=$((num_run + 1))
    line="$(run "$python" "$which" "$@")" || failed=$((failed + 1))
    echo "| $("$python" --version) | $line |"
  done
done
(( num_run )) || { echo 'error: none of these Pythons is here' >&2; exit 2; }
(( ! failed )) || exit 1
