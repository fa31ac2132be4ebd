#!/usr/bin/env bash
# Runs launch/slurm.sbatch for real, on a Slurm of its own on this machine, where two slurmd stand in for two nodes.
#
#     tests/tools/single_node_slurm.sh DIRECTORY [CHECK…]
#
# Needs root, an active virtual environment, and Debian's packages slurm-wlm and munge. Everything is kept in the new
# DIRECTORY. The daemons have PIDs and an /etc/hosts of their own, and end with the script. CHECK is any of plain, term,
# preempt, array, nodes, nodes_term, cancel, limit; default: all. `shell` gives a shell beside the running daemons.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if [[ -z "${KDJAX_SLURM_INSIDE:-}" ]]; then
  export KDJAX_SLURM_INSIDE=1
  exec unshare --mount --pid --mount-proc --fork --kill-child "$here/single_node_slurm.sh" "$@"
fi
# The first process of a PID namespace ends by the signals that it handles only.
trap "exit 130" INT TERM
mkdir "$1" && chmod 755 "$1"
directory=$(CDPATH='' cd -- "$1" && pwd)
shift
host=$(hostname -s)

# JAX resolves the name of the first node.
cp /etc/hosts "$directory/hosts"
echo "127.0.0.1 node1 node2" >>"$directory/hosts"
mount --bind "$directory/hosts" /etc/hosts
cat >"$directory/slurm.conf" <<END_CONF
ClusterName=kdjax
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
# A job that was requeued waits until its credential has expired: 120 s by default.
AuthInfo=socket=$directory/munge.socket,cred_expire=5
StateSaveLocation=$directory/state
SlurmctldPidFile=$directory/slurmctld.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdSpoolDir=$directory/spool.%n
SlurmdPidFile=$directory/slurmd.%n.pid
SlurmdLogFile=$directory/slurmd.%n.log
# Both nodes have all cores of this machine.
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[26818-26819] CPUs=$(nproc) State=UNKNOWN
PartitionName=low Nodes=node[1-2] Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=node[1-2] PriorityTier=2 PreemptMode=OFF
END_CONF
export SLURM_CONF=$directory/slurm.conf
mkdir "$directory/state" "$directory/out"
(umask 077 && head -c 1024 /dev/urandom >"$directory/munge.key")
munged --force --key-file="$directory/munge.key" --socket="$directory/munge.socket" \
  --pid-file="$directory/munged.pid" --log-file="$directory/munged.log" --seed-file="$directory/munge.seed"
slurmctld
nice -n 10 slurmd -N node1
nice -n 10 slurmd -N node2
for _ in {1..30}; do
  [[ $(sinfo --noheader --partition=low --format=%T) != idle ]] || break
  sleep 1
done
sinfo

cd "$here/../.."
export XLA_FLAGS=--xla_backend_optimization_level=0 # compiles quicker
work=$directory/work flags=(--config.dataset.source=demo --config.run.cache_dir="$directory/cache")
flags+=(--config.dataset.demo_{classes=3,train=48,validation=12,test=12})
long=(--config=tests/tiny.py "${flags[@]}" --config.student.epochs=8)

submit() { sbatch --parsable --output="$directory/out/%j.out" "$@"; }
state() { scontrol show job "$1" | grep -o 'JobState=[A-Z]*' | sort -u | cut -d= -f2; }
# Waits until the state of job $1, or of all elements of the array, is $2.
await() {
  for _ in {1..600}; do
    now=$(state "$1")
    if [[ "$now" == "$2" ]]; then return; fi
    if [[ "$now" =~ ^(FAILED|TIMEOUT|CANCELLED|COMPLETED)$ ]]; then break; fi
    sleep 0.5
  done
  echo "job $1 is $now, not $2:" && tail -n 30 "$directory/out/$1.out" && exit 1
}
# Waits until job $1 has trained the students for some steps.
training() { until grep -qs 'distill: step 3/' "$directory/out/$1.out"; do sleep 0.2; done; }
requeued() { scontrol show job "$1" | grep -q "Restarts=${2:-1}" && grep -q 'is saved' "$directory/out/$1.out"; }
# The results are those of the run that nothing happened to, but for what the cache had already.
same() {
  python - "$work/$1/results.json" "$work/$2/results.json" <<'END_PYTHON'
import json, sys
one, other = (json.load(open(path)) for path in sys.argv[1:])
for document in (one, other):
    document.pop("environment")
    for name in ("forward_images", "clean_images", "repeated_images"):
        document["teacher"].pop(name)
assert one == other, [name for name in one if one[name] != other[name]]
END_PYTHON
}

check_plain() {
  job=$(submit launch/slurm.sbatch "${long[@]}" --workdir="$work/plain")
  await "$job" COMPLETED && [[ -e "$work/plain/results.json" ]]
}
check_term() {
  job=$(submit launch/slurm.sbatch "${long[@]}" --workdir="$work/term")
  training "$job" && scancel --signal=TERM "$job"
  await "$job" PENDING && await "$job" COMPLETED && requeued "$job" && same plain term
}
check_limit() {
  job=$(submit --time=5 --signal=TERM@60 launch/slurm.sbatch "${long[@]}" --config.student.epochs=600 \
    --workdir="$work/limit")
  await "$job" PENDING && requeued "$job" && scancel "$job"
}
check_preempt() {
  job=$(submit launch/slurm.sbatch "${long[@]}" --workdir="$work/preempt")
  training "$job"
  other=$(submit --partition=high --nodes=2 --exclusive --wrap="sleep 5")
  await "$job" PENDING && await "$other" COMPLETED && await "$job" COMPLETED && requeued "$job" && same plain preempt
}
check_array() {
  job=$(KDJAX_CONFIGS="tests/tiny.py tests/tiny.py:again" KDJAX_RUNS=$work/array \
    submit --array=0-1 launch/slurm.sbatch "${flags[@]}")
  await "$job" COMPLETED && same array/tiny array/tiny-again
}
check_nodes() {
  job=$(submit --nodes=2 launch/slurm.sbatch "${long[@]}" --workdir="$work/nodes")
  await "$job" COMPLETED && [[ -e "$work/nodes/results.json" ]]
}
check_nodes_term() {
  job=$(submit --nodes=2 launch/slurm.sbatch "${long[@]}" --workdir="$work/nodes_term")
  training "$job" && scancel --signal=TERM "$job"
  await "$job" PENDING && await "$job" COMPLETED && requeued "$job" && same nodes nodes_term
}
check_cancel() {
  job=$(submit launch/slurm.sbatch "${long[@]}" --workdir="$work/cancel")
  training "$job" && scancel "$job"
  await "$job" CANCELLED && sleep 10 && await "$job" CANCELLED
}

if [[ "${1:-}" == shell ]]; then exec bash; fi
[[ $# -gt 0 ]] || set -- plain term preempt array nodes nodes_term cancel limit
for check; do
  SECONDS=0
  "check_$check"
  echo "$check: passed, $SECONDS s"
done
