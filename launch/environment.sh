# Sourced by the other scripts with the wanted extras: activates an environment that has kdjax installed.
# An active virtual environment is used; else .venv beside this folder, which is made where there is none, and made anew
# where the checkout was moved or its Python is gone.
# shellcheck shell=bash
# shellcheck source-path=SCRIPTDIR
: "${root:?}" # the checkout

# Whether `python` is that of the environment that is said to be active.
is_active() {
  python -I -c 'import os, sys; sys.exit(not os.path.samefile(sys.prefix, os.environ["VIRTUAL_ENV"]))' &>/dev/null
}

# Whether .venv is whole and knows its place: `activate` has it written down.
is_whole() (
  [[ -e "$root/.venv/bin/activate" ]] || return
  # shellcheck source=/dev/null
  source "$root/.venv/bin/activate"
  [[ "$VIRTUAL_ENV" -ef "$root/.venv" ]] && is_active
)

if [[ -n "${VIRTUAL_ENV:-}" ]]; then
  is_active ||
    { echo "error: VIRTUAL_ENV is $VIRTUAL_ENV, but \`python\` is not of it: activate it anew, or unset it" >&2; exit 2; }
else
  if ! is_whole; then
    source "$root/launch/pythons.sh"
    found=$(find_python 3.12 3.11 3.13 3) ||
      { echo "error: no Python of version 3.11 or later with venv and ensurepip was found" >&2; exit 2; }
    "$found" -m venv --clear "$root/.venv"
  fi
  # shellcheck source=/dev/null
  source "$root/.venv/bin/activate"
fi
# Installing takes a while, so it is done once for each checkout, its pyproject.toml and the set of extras.
checkout=.kdjax-$(echo "$root" | cksum | cut -d' ' -f1)
stamp="$VIRTUAL_ENV/$checkout-$(cat "$root/pyproject.toml" <(echo "$1") | cksum | cut -d' ' -f1)"
if [[ ! -e "$stamp" ]]; then
  held=$(python -I -c 'import importlib.util as u; found = u.find_spec("kdjax"); print(found.origin if found else "")')
  if [[ -n "$held" && "$held" != "$root/kdjax/__init__.py" ]]; then
    echo "note: $VIRTUAL_ENV ran kdjax from ${held%/kdjax/__init__.py}; from now on it runs $root" >&2
  fi
  echo "installing kdjax and its dependencies into $VIRTUAL_ENV: this may take minutes" >&2
  python -m pip install -q --disable-pip-version-check -e "$root${1:+[$1]}"
  find "$VIRTUAL_ENV" -maxdepth 1 -name '.kdjax-*' ! -name "$checkout-*" -delete # another checkout installs again
  touch "$stamp"
fi
