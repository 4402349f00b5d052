#!/bin/sh
# Kernels of CUTLASS, CuTe DSL and Triton on the vcuda library at $VCUDA: right against float64, and under all checks without
# a finding. Not part of `make test`: it fetches 1 GB of compilers and headers into a folder that it removes, and the three
# kernels of CUTLASS take minutes to compile. After `cargo build --release`:
# VCUDA=target/release/libvcuda.so vcuda/tests/outside/run.sh [SEEDS]
set -eu
VCUDA=$(realpath "$VCUDA")
export VCUDA
seeds=${1:-3}
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

install() {
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}
python3 -m venv venv
install numpy triton==3.9.0 nvidia-cutlass-dsl==4.8.1
# CUTLASS wants to be asked for without what its own Python needs.
install --no-deps --target "$work" nvidia-cuda-nvcc==13.5.37 nvidia-nvvm==13.5.37 nvidia-cuda-crt==13.5.37 \
  nvidia-cuda-runtime==13.5.37 nvidia-cuda-cccl==13.3.5.0.6 nvidia-cutlass==4.2.0.0
export TRITON_CACHE_DIR="$work/triton"
cuda=$work/nvidia/cu13
source=$work/cutlass_library/source

# Programs of CUTLASS link the driver by its name.
mkdir driver
ln -s "$VCUDA" driver/libcuda.so
ln -s "$VCUDA" driver/libcuda.so.1
export LD_LIBRARY_PATH="$work/driver"

# run NAME COMMAND...: plain, and under all checks with every seed. A finding ends the kernel with an error.
run() {
  name=$1
  shift
  for seed in plain $(seq "$seeds"); do
    case $seed in
      plain) unset VCUDA_CHECK VCUDA_SEED ;;
      *) export VCUDA_CHECK=all VCUDA_SEED="$seed" ;;
    esac
    "$@" >log 2>&1 && ! grep -q '^vcuda: ' log || { tail -n 40 log; echo "$name, seed $seed: wrong" >&2; exit 1; }
  done
  unset VCUDA_CHECK VCUDA_SEED
  echo "$name: right, no finding"
}

run 'CuTe DSL, TMA and wgmma, several tiles a CTA' venv/bin/python "$here/cute_dsl.py"
run 'Triton, sm_80, pointers' venv/bin/python "$here/triton_kernels.py" sm_80
run 'Triton, sm_90, pointers, host and device descriptors' venv/bin/python "$here/triton_kernels.py" sm_90

# compile NAME SCHEDULE CLUSTER: `keep` leaves the kernel's PTX in the folder.
compile() {
  mkdir "$1"
  "$cuda/bin/nvcc" -std=c++17 -gencode arch=compute_90a,code=compute_90a --expt-relaxed-constexpr -w -keep -keep-dir "$1" \
    -I"$source/include" -I"$source/tools/util/include" -I"$cuda/include" -I"$cuda/include/cccl" \
    -DCUTLASS_ENABLE_DIRECT_CUDA_DRIVER_CALL=1 -DSCHEDULE="$2" -DCLUSTER="$3" \
    "$here/cutlass.cu" -o "$1/gemm" -L"$cuda/lib" -Ldriver -lcuda
}
# Sixteen tiles or more for three or four CTAs.
compile cooperative 0 1
run 'CUTLASS, cooperative' cooperative/gemm cooperative/cutlass.ptx 512 512 256 3
compile pingpong 1 2
run 'CUTLASS, ping-pong, clusters of 2' pingpong/gemm pingpong/cutlass.ptx 512 512 256 4
compile stream_k 2 1
run 'CUTLASS, stream-K' stream_k/gemm stream_k/cutlass.ptx 512 640 512 3
run 'CUTLASS, stream-K, K in two' stream_k/gemm stream_k/cutlass.ptx 512 640 512 3 2
