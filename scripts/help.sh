# shellcheck shell=bash
# Sourced by the scripts next to it.

# print_help SCRIPT: the comment that a script begins with.
print_help() {
  sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$1"
}
