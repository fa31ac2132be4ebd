# shellcheck shell=bash
# Sourced by the other scripts and by .ci/run: finds a Python that runs.

# find_python VERSION...: prints the path of the first Python of one of these versions (3.12, 3.11, …; 3 for any) that
# starts, has venv and ensurepip (Debian has them in python3-venv) and is 3.11 or later. It looks in PATH and in pyenv's
# folder, where python3.12 may be a shim that only says that no such version is chosen.
find_python() {
  local version candidate
  for version in "$@"; do
    while read -r candidate; do
      if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
        </dev/null &>/dev/null; then
        echo "$candidate"
        return
      fi
    done < <(
      type -aP "python$version"
      compgen -G "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions/$version*/bin/python$version"
    )
  done
  return 1
}
