#!/usr/bin/env bash
# Packs what benchmarks/gpu.sh needs on a bare GPU machine without a network into the ignored folder .gpu/.
#
#   launch/gpu_kit.sh --pristine PHOTOS/clean --authentic PHOTOS/mine [--start MODEL] [--megabytes 50] [--python 3.12]
#   on that machine, in a copy of this folder with .gpu/:  benchmarks/gpu.sh .gpu OUT
#
# .gpu/wheels       pure-Python packages that a machine with jax, flax, optax, orbax, torch and the like may lack
# .gpu/pristine     clean photographs, 512x384 WebP: what training distorts
# .gpu/authentic    photographs as they are, sides of at most 448, WebP
# .gpu/start        the model folder that training starts from (--start); left out without it
# Photographs fill --megabytes, half of each kind, drawn at random; the rest comes on top. PYTHON: default python.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
pristine='' authentic='' start='' megabytes=50 target=3.12
fail() {
  echo "error: $1" >&2
  exit 2
}
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,11s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --pristine | --authentic | --start | --megabytes | --python) (($# > 1)) || fail "$1: give a value." ;;&
    --pristine) pristine=$2 ;;
    --authentic) authentic=$2 ;;
    --start) start=$2 ;;
    --megabytes) megabytes=$2 ;;
    --python) target=$2 ;;
    *) fail "launch/gpu_kit.sh: '$1' is no flag; see launch/gpu_kit.sh --help." ;;
  esac
  shift 2
done
[[ $megabytes =~ ^[1-9][0-9]*$ ]] || fail "--megabytes $megabytes: give a whole number, at least 1."
for folder in "$pristine" "$authentic"; do
  [[ -d $folder ]] || fail "--pristine and --authentic: '$folder' is no folder; name two folders of photographs."
done
[[ -z $start || -f $start/model.json ]] || fail "--start $start: no model folder there (no model.json)."

kit=$root/.gpu.new # in its place when all is there, since what it is made of may lie in the old one
rm -rf "$kit"
mkdir -p "$kit/wheels"
# what an import of the training needs and such machines may lack; gpu.sh installs those that cannot be imported there
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$target" --dest "$kit/wheels" \
  dm-pix chex toolz ml_collections tensorboardX
if [[ -n $start ]]; then cp -rL "$start" "$kit/start"; fi
"$python" "$root/benchmarks/gpu.py" pack --pristine "$pristine" --authentic "$authentic" --out "$kit" --megabytes "$megabytes"
shopt -s nullglob
for cache in "$root"/.gpu/cache.*; do cp "$cache" "$kit/"; done
rm -rf "$root/.gpu"
mv "$kit" "$root/.gpu"
du -sh "$root/.gpu"
