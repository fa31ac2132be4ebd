#!/usr/bin/env bash
# Runs the tests: launch/test.sh [arguments of pytest]. Set-up as in local.sh, with the extra `test`.
# Tests against PyTorch are skipped where torch is not installed.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
source "$root/launch/environment.sh" test
cd "$root"
exec python -m pytest "$@"
