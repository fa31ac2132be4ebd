# Sourced by the other scripts with the wanted extras: activates an environment that has kdjax installed.
# An active virtual environment is used; else .venv beside this folder is made.
if [[ -z "${VIRTUAL_ENV:-}" ]]; then
  if [[ ! -e "$root/.venv/bin/activate" ]]; then
    for candidate in python3.12 python3.11 python3.13 python3; do
      if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        "$candidate" -m venv --clear "$root/.venv"
        break
      fi
    done
    [[ -e "$root/.venv/bin/activate" ]] || { echo "error: no Python of version 3.11 or later was found" >&2; exit 2; }
  fi
  source "$root/.venv/bin/activate"
fi
# Installing takes a while, so it is done once for each pyproject.toml and set of extras.
stamp="$VIRTUAL_ENV/.kdjax-$(cat "$root/pyproject.toml" <(echo "$root $1") | cksum | cut -d' ' -f1)"
if [[ ! -e "$stamp" ]]; then
  python -m pip install -q --disable-pip-version-check -e "$root${1:+[$1]}"
  touch "$stamp"
fi
