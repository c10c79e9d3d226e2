# shellcheck shell=bash
# Sourced by the scripts next to it: makes the virtual environment, once.

named_python="${PYTHON:-}"
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"

# python_version INTERPRETER: as 3.12.
python_version() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# setup_venv REQUIREMENT: makes $VENV where it is missing and installs the
# repository there, editable, unless that was done with this very setup.py.
setup_venv() {
  local requirement="$1" stamp
  # Also where the environment is there already: whoever names an interpreter
  # wants that one.
  if [[ -n "$named_python" || ! -x "$VENV/bin/pip" ]] &&
      ! command -v "$PYTHON" > /dev/null; then
    echo "error: there is no $PYTHON; name one with PYTHON=..." >&2
    exit 2
  fi
  if [[ -n "$named_python" && -x "$VENV/bin/pip" ]] &&
      [[ "$(python_version "$PYTHON")" != \
         "$(python_version "$VENV/bin/python")" ]]; then
    echo "error: $VENV is of Python $(python_version "$VENV/bin/python")," \
      "PYTHON=$PYTHON is $(python_version "$PYTHON"): remove $VENV, or name" \
      'another place with VENV=...' >&2
    exit 2
  fi
  if [[ ! -x "$VENV/bin/pip" ]]; then  # What venv installs last.
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "error: $("$PYTHON" --version 2>&1) is too old, Python 3.11 or" \
        'newer is needed; name one with PYTHON=...' >&2
      exit 2
    fi
    if ! "$PYTHON" -c 'import venv, ensurepip' 2> /dev/null; then
      echo "error: $PYTHON cannot make virtual environments; install its venv" \
        'module (on Debian and Ubuntu: apt install python3-venv)' >&2
      exit 2
    fi
    echo "making $VENV with $("$PYTHON" --version)"
    "$PYTHON" -m venv "$VENV"
  fi
  # What is installed, and from where: a moved repository installs again.
  stamp="$(pwd) $requirement $(cksum < setup.py)"
  if ! grep -qsxF -- "$stamp" "$VENV/installed"; then
    echo "installing $requirement into $VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
      --editable "$requirement"
    echo "$stamp" >> "$VENV/installed"
  fi
}
