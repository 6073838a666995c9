#!/usr/bin/env bash
# What one GPU does with this program, in one command and stages in order of worth; each writes its result at once.
#
#   launch/gpu_kit.sh ...                 first, where there is a network: makes the kit
#   benchmarks/gpu.sh KIT OUT [check] [step] [lite0] [loader] [train]      default: all but train
#   TINY=1 benchmarks/gpu.sh ...          the same on a CPU with small sizes, to try it out
#
#   check   devices, versions, ceilings; 20 losses beside the CPU's; distortions and views beside the host's, and their time
#   step    ResNet-50 in bf16 at BATCHES images, beside compiled PyTorch; share of the roofline; a profile
#   lite0   the same for EfficientNet-Lite0; its convolutions one by one, depthwise ones in both formulations
#   loader  images a second that the threads loader delivers
#   train   TRAIN_FLAGS of contrique_jax.main from the kit's photographs (several trainings, side by side: put ; between their
#           flags), ended by SIGTERM after TRAIN_SECONDS; the other stages pause them while they time
# Some stages' compilers run side by side, which a profile or a time may show; what is timed takes turns. OUT gets report.txt as the stages end, and of each training train.N.txt as it comes and every KEEP seconds
# (60) weights.N.npz (gpu.py model makes a model folder of it). At the end come profile.tar.gz, programs.tar.gz, run.tar.gz and,
# with CACHE=1, cache.NN (compiled programs: put them into KIT, and the next call starts sooner).
set -uo pipefail
if (($# < 2)) || [[ ! -d $1 ]]; then
  sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
kit=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2")
shift 2
cd "$(dirname "$0")/.." || exit 2
(($#)) || set -- check step lite0 loader
room=${ROOM:-/tmp/gpu_room}
# what an earlier call has compiled and installed stays, its results do not
rm -rf "$room"/{peaks,training,losses,profile,programs,gpu.csv} "$room"/run.* "$room"/kernels_*
mkdir -p "$room/cache" "$room/profile" "$room/programs"
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false XLA_PYTHON_CLIENT_MEM_FRACTION=.92 TF_CPP_MIN_LOG_LEVEL=2
export JAX_COMPILATION_CACHE_DIR=$room/cache/jax TORCHINDUCTOR_CACHE_DIR=$room/cache/torch JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
if [[ -f $kit/cache.00 ]]; then cat "$kit"/cache.* | tar -xzf - -C "$room/cache"; fi
shopt -s nullglob
missing=()
for wheel in "$kit"/wheels/*.whl; do
  name=${wheel##*/} name=${name%%-*}
  "$python" -c "import ${name/tensorboardx/tensorboardX}" 2>/dev/null || missing+=("$wheel")
done
if ((${#missing[@]})); then
  "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$room/site" "${missing[@]}" || exit 2
fi
export PYTHONPATH=$PWD:$room/site
platform=cuda sizes=() views=() batches=(256) lite=(512) side=8192 patience=1
if [[ ${BATCHES:-} ]]; then read -ra batches <<<"$BATCHES"; fi
if [[ ${TINY:-} ]]; then
  platform=cpu sizes=(--images 16 --canvas 96 --view 64) views=(--view 64 --rounds 1) batches=(4 8) lite=(4) side=256 patience=10
  export JAX_PLATFORMS=cpu
fi

stage() { # NAME LIMIT COMMAND...: its output goes to the report when it ends, cut or not
  local name=$1 limit=$2 begun=$SECONDS code
  shift 2
  timeout -k 5 $((limit * patience)) "$@" >"$room/$name.txt" 2>&1
  code=$?
  {
    printf '\n== %s: exit code %s after %s s\n' "$name" "$code" $((SECONDS - begun))
    grep -v -E 'WARNING|^[IWE][0-9]{4}|Compiling|^ *$' "$room/$name.txt" | tail -n 60
  } | tee -a "$out/report.txt"
}
pack() { # NAME FOLDER: into OUT, if there is anything
  if [[ -n $(ls -A "$2" 2>/dev/null) ]]; then tar -czf "$out/$1.tar.gz" -C "$2" .; fi
}
profiles() { # what was profiled so far goes out now, so that a cut loses only the rest
  local trace
  for trace in "$room"/profile/*; do
    [[ -d $trace && ! -f $room/kernels_${trace##*/}.txt ]] && stage "kernels_${trace##*/}" 30 "$python" benchmarks/gpu.py kernels "$trace"
  done
  pack profile "$room/profile"
  pack programs "$room/programs"
}
wanted() { [[ " $want " == *" $1 "* ]]; }
want=$*

stage devices 60 "$python" benchmarks/gpu.py devices --platform $platform --side $side --peaks "$room/peaks"
[[ -f $room/peaks ]] || exit 2
read -ra peaks <"$room/peaks"
turn=(--turn "$room/turn")
trainings=() pause=()
if wanted train; then # starts first; the others pause it while they time
  [[ ${TRAIN_FLAGS:-} ]] || { echo "error: TRAIN_FLAGS is empty: give it the flags of contrique_jax.main, --config first." >&2 && exit 2; }
  start=()
  if [[ -d $kit/start ]]; then start=(--config.train.init_from="$kit/start"); fi
  IFS=';' read -ra sets <<<"$TRAIN_FLAGS"
  for number in "${!sets[@]}"; do
    # shellcheck disable=SC2086
    timeout -s TERM -k 60 "${TRAIN_SECONDS:-300}" \
      "$python" -m contrique_jax.main ${sets[number]} --workdir "$room/run.$number" \
      --config.data.pristine="$kit/pristine" --config.data.authentic="$kit/authentic" --config.data.loader=threads \
      --config.data.cache_gigabytes=32 --config.train.checkpoint_every="${KEEP_STEPS:-50}" --config.train.keep_checkpoints=1 \
      "${start[@]}" >"$out/train.$number.txt" 2>&1 &
    trainings+=($!)
  done
  sleep 1
  for each in "${trainings[@]}"; do pgrep -P "$each"; done >"$room/training"
  pause=(--pause "$room/training")
  nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,clocks.sm --format=csv -l 2 >"$room/gpu.csv" 2>/dev/null &
  watching=$!
  keep_weights() { # what each training has come to; an earlier file goes when the later one is whole
    for run in "$room"/run.*; do
      JAX_PLATFORMS=cpu nice "$python" benchmarks/gpu.py weights "$run" "$out/weights.${run##*.}.npz"
    done
  }
  (
    since=$SECONDS
    while pgrep -F "$room/training" >/dev/null; do
      sleep 1
      ((SECONDS - since < ${KEEP:-60})) && continue
      since=$SECONDS
      keep_weights
    done
  ) >/dev/null 2>&1 &
  keeping=$!
fi
jobs=()
if wanted step; then
  stage step 300 "$python" benchmarks/train_step.py --images "${batches[@]}" --torch-up-to 256 "${views[@]}" "${peaks[@]}" "${turn[@]}" "${pause[@]}" \
    --profile "$room/profile/step" --program "$room/programs" &
  jobs+=($!)
fi
if wanted check; then
  stage augment 300 "$python" benchmarks/gpu.py augment --kit "$kit" "${sizes[@]}" "${turn[@]}" "${pause[@]}" --profile "$room/profile/augment" &
  jobs+=($!)
fi
((${#jobs[@]})) && wait "${jobs[@]}" && profiles # more compilers at a time are slower than one after the other
jobs=()
if wanted lite0; then
  stage layers 60 "$python" benchmarks/gpu.py layers "${turn[@]}" "${pause[@]}" &
  jobs+=($!)
  stage lite0 300 "$python" benchmarks/train_step.py --encoder efficientnet_lite0 --no-torch --images "${lite[@]}" \
    "${views[@]}" "${peaks[@]}" "${turn[@]}" "${pause[@]}" --profile "$room/profile/lite0" --program "$room/programs" &
  jobs+=($!)
fi
if wanted check; then
  stage losses 150 "$python" benchmarks/gpu.py losses --kit "$kit" --platform $platform --out "$room" &
  jobs+=($!)
fi
((${#jobs[@]})) && wait "${jobs[@]}"
profiles
if [[ -s $room/training ]]; then xargs kill -CONT <"$room/training" 2>/dev/null; fi # a stage may have been cut while it paused it
if wanted loader; then
  stage loader 90 "$python" benchmarks/gpu.py loader --kit "$kit" "${sizes[@]}" "${pause[@]}" --seconds "${LOADER_SECONDS:-5}"
fi
if [[ ${CACHE:-} && -n $(ls -A "$room/cache") ]]; then tar -czf - -C "$room/cache" . | split -b 15M -d - "$out/cache."; fi

if wanted train; then
  for number in "${!trainings[@]}"; do
    wait "${trainings[number]}"
    { printf '\n== train %s: exit code %s after %s s\n' "$number" $? $SECONDS && tail -c 600 "$out/train.$number.txt"; } | tee -a "$out/report.txt"
    tail -n 2 "$room/run.$number/metrics.jsonl" | tee -a "$out/report.txt"
  done
  kill "$watching" 2>/dev/null
  wait "$keeping"
  keep_weights
  (cd "$room" && tar -czf "$out/run.tar.gz" run.*/config.json run.*/metrics.jsonl gpu.csv)
fi
exit 0
