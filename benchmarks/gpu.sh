#!/usr/bin/env bash
# What one GPU does with this program, in one command and stages in order of worth; each writes its result at once.
#
#   launch/gpu_kit.sh ...                 first, where there is a network: makes the kit
#   benchmarks/gpu.sh KIT OUT [check] [step] [lite0] [loader] [train]      default: all but train
#   TINY=1 benchmarks/gpu.sh ...          the same on a CPU with small sizes, to try it out
#
#   check   devices, versions, ceilings; 20 losses beside the CPU's; distortions and views beside the host's, and their time
#   step    ResNet-50 in bf16 at BATCHES images, beside compiled PyTorch; share of the roofline; a profile
#   lite0   the same for EfficientNet-Lite0, by formulation of the depthwise convolution
#   loader  images a second that the threads loader delivers
#   train   TRAIN_FLAGS of contrique_jax.main from the kit's photographs, ended by SIGTERM after TRAIN_SECONDS; it runs beside
#           the others, which pause it while they time. TRAIN_XLA_FLAGS are for it alone
# The stages' compilers run side by side, which a profile or a time may show; what is timed takes turns. OUT gets report.txt as
# the stages end, and of the training train.txt as it comes and every KEEP seconds (60) weights.NN: a tar of its newest
# checkpoint, at the end of its model folder, in pieces of 15 MB (cat weights.* | tar -x). At the end come profile.tar.gz,
# programs.tar.gz, run.tar.gz and cache.NN (compiled programs: put them into KIT, and the next call starts sooner).
set -uo pipefail
if (($# < 2)) || [[ ! -d $1 ]]; then
  sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
kit=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2")
shift 2
cd "$(dirname "$0")/.." || exit 2
(($#)) || set -- check step lite0 loader
room=${ROOM:-/tmp/gpu_room}
# what an earlier call has compiled and installed stays, its results do not
rm -rf "$room"/{peaks,training,losses,profile,programs,run,gpu.csv}
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
wanted() { [[ " $want " == *" $1 "* ]]; }
want=$*

stage devices 60 "$python" benchmarks/gpu.py devices --platform $platform --side $side --peaks "$room/peaks"
[[ -f $room/peaks ]] || exit 2
read -ra peaks <"$room/peaks"
turn=(--turn "$room/turn")
keep_weights() { # FOLDER: what is there under the run, in pieces that fit; the earlier ones go when all are there
  local part
  part=$(mktemp -d -p "$out" .new.XXXX)
  if tar -cf - -C "$room/run" "$1" | split -b 15M -d - "$part/weights."; then
    rm -f "$out"/weights.*
    mv "$part"/* "$out/"
  fi
  rm -rf "$part"
}
newest() { find "$room/run/checkpoints" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' 2>/dev/null | grep -x '[0-9]*' | sort -n | tail -n 1; }

pause=()
if wanted train; then # starts first; the others pause it while they time
  [[ ${TRAIN_FLAGS:-} ]] || { echo "error: TRAIN_FLAGS is empty: give it the flags of contrique_jax.main, --config first." >&2 && exit 2; }
  start=()
  if [[ -d $kit/start ]]; then start=(--config.train.init_from="$kit/start"); fi
  # shellcheck disable=SC2086
  XLA_FLAGS=${TRAIN_XLA_FLAGS:-} timeout -s TERM -k 60 "${TRAIN_SECONDS:-300}" \
    "$python" -m contrique_jax.main $TRAIN_FLAGS --workdir "$room/run" \
    --config.data.pristine="$kit/pristine" --config.data.authentic="$kit/authentic" --config.data.loader=threads \
    --config.data.cache_gigabytes=32 --config.train.checkpoint_every="${KEEP_STEPS:-50}" --config.train.keep_checkpoints=1 \
    "${start[@]}" >"$out/train.txt" 2>&1 &
  training=$!
  sleep 1
  pgrep -P "$training" >"$room/training"
  pause=(--pause "$room/training")
  nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,clocks.sm --format=csv -l 2 >"$room/gpu.csv" 2>/dev/null &
  watching=$!
  (
    kept='' since=$SECONDS
    while kill -0 "$training" 2>/dev/null; do
      sleep 1
      ((SECONDS - since < ${KEEP:-60})) && continue
      step=$(newest) since=$SECONDS
      if [[ -n $step && $step != "$kept" ]] && keep_weights "checkpoints/$step"; then kept=$step; fi
    done
  ) >/dev/null 2>&1 &
  keeping=$!
fi
jobs=()
if wanted check; then
  stage losses 150 "$python" benchmarks/gpu.py losses --kit "$kit" --platform $platform --out "$room" &
  jobs+=($!)
  stage augment 300 "$python" benchmarks/gpu.py augment --kit "$kit" "${sizes[@]}" "${turn[@]}" "${pause[@]}" --profile "$room/profile/augment" &
  jobs+=($!)
fi
if wanted step; then
  stage step 300 "$python" benchmarks/train_step.py --images "${batches[@]}" --torch-up-to 256 "${views[@]}" "${peaks[@]}" "${turn[@]}" "${pause[@]}" \
    --profile "$room/profile/step" --program "$room/programs" &
  jobs+=($!)
fi
if wanted lite0; then
  for way in taps cpu_taps conv; do
    stage "lite0_$way" 300 "$python" benchmarks/train_step.py --encoder efficientnet_lite0 --depthwise $way --no-torch \
      --images "${lite[@]}" "${views[@]}" "${peaks[@]}" "${turn[@]}" "${pause[@]}" --profile "$room/profile/$way" --program "$room/programs/$way" &
    jobs+=($!)
  done
fi
((${#jobs[@]})) && wait "${jobs[@]}"
if [[ -s $room/training ]]; then kill -CONT "$(<"$room/training")" 2>/dev/null; fi # a stage may have been cut while it paused it
if wanted loader; then
  stage loader 90 "$python" benchmarks/gpu.py loader --kit "$kit" "${sizes[@]}" "${pause[@]}" --seconds "${LOADER_SECONDS:-5}"
fi
for trace in "$room"/profile/*; do
  [[ -d $trace ]] && stage "kernels_${trace##*/}" 30 "$python" benchmarks/gpu.py kernels "$trace"
done
pack profile "$room/profile"
pack programs "$room/programs"
if [[ -n $(ls -A "$room/cache") ]]; then tar -czf - -C "$room/cache" . | split -b 15M -d - "$out/cache."; fi

if wanted train; then
  wait "$training"
  { printf '\n== train: exit code %s after %s s\n' $? $SECONDS && tail -n 8 "$out/train.txt"; } | tee -a "$out/report.txt"
  kill "$watching" 2>/dev/null
  wait "$keeping"
  tail -n 2 "$room/run/metrics.jsonl" | tee -a "$out/report.txt"
  tar -czf "$out/run.tar.gz" -C "$room/run" config.json metrics.jsonl -C "$room" gpu.csv
  if [[ -d $room/run/model ]]; then keep_weights model; else keep_weights "checkpoints/$(newest)"; fi
fi
exit 0
