#!/usr/bin/env bash
# Several processes on this machine, each with fake CPU devices: the way of a pod, to try out.
#
#   launch/local.sh PROCESSES DEVICES [flags of contrique_jax.main]
#   launch/local.sh 2 4 --config configs/demo.py --workdir runs/local
#
# What process I says goes to local.I.log in $LOGS (default: a new folder under /tmp); process 0's is shown.
# Ctrl-C or SIGTERM asks all of them to save and leave at one step. The same command again resumes.
set -euo pipefail
if (($# < 3)); then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
processes=$1 devices=$2
shift 2
python=${PYTHON:-python}
logs=${LOGS:-$(mktemp -d /tmp/contrique.XXXXXX)}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$processes

jobs=()
for ((i = 0; i < processes; i++)); do
  JAX_PROCESS_ID=$i "$python" -m contrique_jax.main "$@" >"$logs/local.$i.log" 2>&1 &
  jobs+=($!)
done
echo "logs: $logs" >&2
exec 3>&2
tail -n +1 -F --pid="${jobs[0]}" "$logs/local.0.log" 2>/dev/null >&3 &
shown=$!
trap 'kill -TERM "${jobs[@]}" 2>/dev/null || true' INT TERM
finished() { # the exit code of a job; a signal to us interrupts `wait`, the job goes on
  local code=0
  wait "$1" || code=$?
  while kill -0 "$1" 2>/dev/null; do
    code=0
    wait "$1" || code=$?
  done
  return "$code"
}

worst=0
for job in "${jobs[@]}"; do finished "$job" || worst=$?; done
wait "$shown" || true
exit "$worst"
