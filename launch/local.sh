#!/usr/bin/env bash
# Runs kdjax on this machine: launch/local.sh [flags of python -m kdjax.main]
# Without flags: the whole demo. Uses the active virtual environment, or makes .venv beside this folder.
# KDJAX_EXTRAS=cuda12 (or cuda13, tpu, tensorboard) installs for other hardware, KDJAX_EXTRAS=export what the stage
# `export` needs; several with commas between.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
source "$root/launch/environment.sh" "${KDJAX_EXTRAS:-}"
exec python -m kdjax.main "$@"
