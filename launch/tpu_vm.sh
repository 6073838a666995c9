#!/usr/bin/env bash
# Trains on a Cloud TPU VM or pod slice through gcloud; every command can be repeated, and `run` again resumes.
#
#   launch/tpu_vm.sh create                     the slice (reserves and bills it)
#   launch/tpu_vm.sh sync                       this commit to all workers, and installs it there
#   launch/tpu_vm.sh run [flags of main]        on all workers, in the background
#   launch/tpu_vm.sh log                        follows the log of worker 0
#   launch/tpu_vm.sh stop                       SIGTERM: saves at one step on all workers and leaves
#   launch/tpu_vm.sh delete                     gives the slice back
#
# Environment: NAME (contrique), ZONE (us-west4-a), PROJECT (gcloud's), TYPE (v5litepod-16), VERSION (v2-alpha-tpuv5-lite;
# v6e: v2-alpha-tpuv6e, v4: tpu-ubuntu2204-base), SPOT (1: may be taken away at any time, cheaper).
# The workdir must be one place that all workers see: gs://BUCKET/RUN, which the TPU's service account may write, or Filestore.
set -euo pipefail
name=${NAME:-contrique} zone=${ZONE:-us-west4-a} type=${TYPE:-v5litepod-16} version=${VERSION:-v2-alpha-tpuv5-lite}
place=(--zone="$zone")
if [[ -n ${PROJECT:-} ]]; then place+=(--project="$PROJECT"); fi
cd "$(dirname "$0")/.."

everywhere() {
  gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all --command="$1"
}

case ${1:-} in
  create)
    spot=()
    if [[ ${SPOT:-0} == 1 ]]; then spot=(--spot); fi
    gcloud compute tpus tpu-vm create "$name" "${place[@]}" --accelerator-type="$type" --version="$version" "${spot[@]}"
    ;;
  sync)
    archive=$(mktemp --suffix=.tar.gz)
    trap 'rm -f "$archive"' EXIT
    git archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$name:contrique_jax.tar.gz" "${place[@]}" --worker=all
    # uv brings a Python of its own: the images' is too old (3.10)
    everywhere 'mkdir -p contrique_jax && tar -xzf contrique_jax.tar.gz -C contrique_jax &&
      { test -x ~/.local/bin/uv || curl -LsSf https://astral.sh/uv/install.sh | sh; } &&
      ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 venv &&
      ~/.local/bin/uv pip install --quiet --python venv/bin/python "./contrique_jax[tpu,gcs]"'
    ;;
  run)
    shift
    if (($# == 0)); then
      echo "run: give the flags of contrique_jax.main, e.g. --config configs/contrique_resnet50.py --workdir gs://BUCKET/RUN" >&2
      exit 2
    fi
    printf -v flags '%q ' "$@"
    # cluster detection is jax's own; --distributed=on makes a worker that finds no other say so instead of training alone
    # in braces, or the shell that waits for the whole line would keep ssh open
    main="nohup ../venv/bin/python -m contrique_jax.main --distributed=on $flags"
    everywhere "cd contrique_jax && { $main >../train.log 2>&1 </dev/null & }"
    ;;
  log) gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=0 --command='tail -n 50 -F train.log' ;;
  stop) everywhere 'pkill -TERM -f "[c]ontrique_jax.main" || true' ;; # the brackets: not the shell that runs this line
  delete) gcloud compute tpus tpu-vm delete "$name" "${place[@]}" ;;
  *)
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
