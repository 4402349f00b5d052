#!/usr/bin/env bash
# Kernels with other NVRTCs than the one at hand, from their wheels.
#
#   tests/nvrtc_wheels.sh         the oldest and the newest: each compiles the kernels for the GPUs that it knows (part of `make test`)
#   tests/nvrtc_wheels.sh every   12.4, 12.9, 13.0 and 13.4: every kernel for every GPU; then drivers of these versions with each
#                                 set of these compilers (30 minutes on two cores)
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=(nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-nvrtc==13.4.92)
[ "${1:-}" = every ] &&
  wheels=(nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-nvrtc==13.4.92)

folders=()
for wheel in "${wheels[@]}"; do
  # A folder each: pip installs nothing, and says that it did, where the folder `nvidia` is of another wheel.
  folder=.nvrtc-wheels/${wheel#*==}
  [ -d "$folder" ] || python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$folder" "$wheel"
  folders+=("$(echo "$PWD/$folder"/nvidia/*/lib)")
done

[ "${1:-}" = every ] && export MEMO_EVERY_KERNEL=1
for folder in "${folders[@]}"; do
  MEMO_NVRTC=$folder cargo test --quiet ${CARGO_FLAGS:---release} --test architectures -- --ignored --nocapture
done
[ "${1:-}" = every ] || exit 0

# The newest of the driver's major version or older ones computes; else the oldest of the newer ones, whose PTX is lowered; else the
# error names the wheel.
model=tests/fixtures/models/tiny
echo cat >.nvrtc-wheels/labels.txt
predict() { target/release/memo predict --device virtual --json --model "$model" --labels .nvrtc-wheels/labels.txt --views 2 assets/demo-views.png 2>&1; }
for driver in 12.4 12.9 13.0 13.4; do
  fits="nvidia-cuda-nvrtc<13.1"
  case $driver in 12.4) fits="nvidia-cuda-nvrtc-cu12<12.5" ;; 12.9) fits="nvidia-cuda-nvrtc-cu12<12.10" ;; esac
  for set in {0..15}; do
    paths=
    for i in 0 1 2 3; do [ $((set >> i & 1)) = 1 ] && paths+=${paths:+:}${folders[i]}; done
    export MEMO_NVRTC=${paths:-/nonexistent} VCUDA_DRIVER_VERSION=$driver
    if said=$(predict); then
      [ -n "$paths" ] || { echo "driver $driver without a compiler: $said"; exit 1; }
    else
      [ -z "$paths" ] && grep -qF "pip install '$fits'" <<<"$said" || { echo "driver $driver, $paths: $said"; exit 1; }
    fi
  done
  echo "driver $driver: right with each of 15 sets of compilers, and $fits is named where there is none"
done
