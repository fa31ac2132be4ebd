#!/usr/bin/env bash
# NOT RUN on a TPU: none was at hand. Unproven are gcloud's part, the metadata below, the extra `tpu`, and kdjax on a TPU.
# Seen, with stand-ins for gcloud, the metadata and local.sh: both of two workers get the commit and their flags.
# Runs kdjax on a TPU VM, on all workers of the slice at once:
#
#     launch/tpu_vm.sh NAME ZONE --config=configs/uc_merced.py --workdir=/mnt/shared/uc_merced [other flags of kdjax]
#
# - NAME exists, and `gcloud` here may enter it. Its image has Python 3.11 or later with venv, git and curl.
# - Each worker clones KDJAX_REPOSITORY (default: the `origin` of this clone) into ~/kdjax, and takes the commit that is
#   checked out here; it must have been pushed. KDJAX_EXTRAS adds extras to `tpu`.
# - With several workers, --workdir and data given by path lie on a file system that all of them have mounted (Filestore,
#   say; no gs:// name). Each worker's ~/.cache may be its own.
# - After a preemption the same command goes on where the run was; nothing here gives it by itself.
set -euo pipefail
[[ $# -ge 2 ]] || { echo "usage: launch/tpu_vm.sh NAME ZONE [flags of kdjax.main]" >&2; exit 2; }
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
name=$1 zone=$2
shift 2
repository=${KDJAX_REPOSITORY:-$(git -C "$root" remote get-url origin)}
commit=$(git -C "$root" rev-parse HEAD)
extras=tpu${KDJAX_EXTRAS:+,$KDJAX_EXTRAS}

# What each worker does with: repository, commit, extras, flags of kdjax.
on_worker() {
  set -euo pipefail
  local repository=$1 commit=$2 extras=$3 worker endpoints hosts
  shift 3
  [[ -d ~/kdjax/.git ]] || git clone --quiet "$repository" ~/kdjax
  cd ~/kdjax
  git fetch --quiet "$repository" '+refs/heads/*:refs/remotes/given/*' # by itself it takes the default branch alone
  git checkout --quiet --detach "$commit"
  # Which worker this is, and the addresses of all, from where JAX itself reads them. An endpoint is a host, or
  # NAME:ID:HOST.
  local metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes
  worker=$(curl -sf -H "Metadata-Flavor: Google" "$metadata/agent-worker-number")
  endpoints=$(curl -sf -H "Metadata-Flavor: Google" "$metadata/worker-network-endpoints")
  IFS=, read -ra hosts <<<"$endpoints"
  if ((${#hosts[@]} > 1)); then
    set -- "$@" --coordinator="${hosts[0]##*:}:8476" --processes="${#hosts[@]}" --process="$worker"
  fi
  # Each worker installs first, which may take one some minutes longer than another.
  KDJAX_CONNECT_SECONDS=${KDJAX_CONNECT_SECONDS:-600} KDJAX_EXTRAS=$extras launch/local.sh "$@"
}
printf -v command '%q ' on_worker "$repository" "$commit" "$extras" "$@"
printf -v command 'bash -c %q' "$(declare -f on_worker); $command"
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
