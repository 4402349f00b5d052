#!/bin/sh
# Whether every NVRTC from 12.0 to 13.5 compiles this project's kernels to PTX that vcuda loads, and that gives the same
# bits. Not part of `make test`: it fetches four compilers, 250 MB, into a folder that it removes.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

before=
for wheel in nvidia-cuda-nvrtc-cu12==12.0.140 nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-nvrtc==13.5.37; do
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$work/$wheel" "$wheel"
  # The right kernels of both tests print a digest of their results, a line each.
  MEMO_NVRTC=$(echo "$work/$wheel"/nvidia/*/lib) cargo test --quiet ${CARGO_FLAGS:---release} --test planted --test hopper -- --nocapture >"$work/log" 2>&1 \
    || { tail -n 40 "$work/log"; echo "$wheel: a test fails" >&2; exit 1; }
  grep -o 'bits [^:]*: [0-9a-f]\{16\}' "$work/log" | sort >"$work/$wheel.bits"
  echo "$wheel: $(wc -l <"$work/$wheel.bits") results"
  test -s "$work/$wheel.bits"
  # A newer one may know kernels that an older one does not.
  comm -23 "$work/${before:=$wheel}.bits" "$work/$wheel.bits" >"$work/missing"
  if test -s "$work/missing"; then cat "$work/missing"; echo "$wheel: other bits than $before" >&2; exit 1; fi
  before=$wheel
done
echo "all the same"
