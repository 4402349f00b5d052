// A Hopper GEMM of CUTLASS, D = A Bᵀ of float16 with float32 sums, held against float64.
// -DSCHEDULE=0 cooperative, 1 ping-pong, 2 stream-K; -DCLUSTER=n CTAs a cluster. usage: cutlass PTX M N K SMS [SPLITS]
#include <cuda.h>

#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "cute/tensor.hpp"
#include "cutlass/cutlass.h"
#include "cutlass/epilogue/collective/collective_builder.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/kernel/gemm_universal.hpp"
#include "cutlass/util/packed_stride.hpp"

namespace gemm = cutlass::gemm;
namespace epilogue = cutlass::epilogue;
using cute::_1, cute::_64, cute::_128, cute::Int, cute::Shape;
using Half = cutlass::half_t;
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;

constexpr bool PINGPONG = SCHEDULE == 1, STREAM_K = SCHEDULE == 2;
using TileShape = Shape<Int<PINGPONG ? 64 : 128>, _128, _64>;
using ClusterShape = Shape<Int<CLUSTER>, _1, _1>;
using MainloopSchedule = std::conditional_t<PINGPONG, gemm::KernelTmaWarpSpecializedPingpong,
                                            gemm::KernelTmaWarpSpecializedCooperative>;
using EpilogueSchedule = std::conditional_t<PINGPONG, epilogue::TmaWarpSpecialized,
                                            epilogue::TmaWarpSpecializedCooperative>;
using Epilogue = typename epilogue::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, TileShape, ClusterShape,
    epilogue::collective::EpilogueTileAuto, float, float, float, RowMajor, 4, float, RowMajor, 4,
    EpilogueSchedule>::CollectiveOp;
using Stages = gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>;
using Mainloop = typename gemm::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Half, RowMajor, 8, Half, ColumnMajor, 8, float, TileShape,
    ClusterShape, Stages, MainloopSchedule>::CollectiveOp;
using Scheduler = std::conditional_t<STREAM_K, gemm::StreamKScheduler, gemm::PersistentScheduler>;
using Kernel = gemm::kernel::GemmUniversal<Shape<int, int, int, int>, Mainloop, Epilogue, Scheduler>;

// Nobody calls it; it makes the compiler write the kernel, which is then launched from its PTX.
void* instantiate() { return reinterpret_cast<void*>(&cutlass::device_kernel<Kernel>); }

#define CHECK(call)                                        \
  do {                                                     \
    CUresult error = (call);                               \
    if (error != CUDA_SUCCESS) {                           \
      std::printf("%s: CUDA error %d\n", #call, error);    \
      std::exit(1);                                        \
    }                                                      \
  } while (0)

CUfunction load(const char* path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  std::string ptx = text.str();
  size_t start = ptx.find(".entry ") + 7, end = ptx.find('(', start);
  std::string name = ptx.substr(start, end - start);
  while (std::isspace(name.back())) name.pop_back();

  static char log[8192];
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  CUmodule module;
  if (cuModuleLoadDataEx(&module, ptx.c_str(), 2, options, values) != CUDA_SUCCESS) {
    std::printf("%s is refused: %s\n", path, log);
    std::exit(1);
  }
  CUfunction function;
  CHECK(cuModuleGetFunction(&function, module, name.c_str()));
  return function;
}

// Eighths between -1 and 1: sums of their products are exact in float32, so the result must be exact.
std::vector<Half> eighths(size_t count, unsigned seed) {
  std::vector<Half> values(count);
  for (Half& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = Half(static_cast<float>(static_cast<int>(seed >> 16) % 17 - 8) / 8);
  }
  return values;
}

template <class T>
CUdeviceptr buffer(const std::vector<T>& values) {
  CUdeviceptr address;
  CHECK(cuMemAlloc(&address, values.size() * sizeof(T)));
  CHECK(cuMemcpyHtoD(address, values.data(), values.size() * sizeof(T)));
  return address;
}

void launch(CUfunction function, Kernel::Params& params) {
  dim3 grid = Kernel::get_grid_shape(params), block = Kernel::get_block_shape();
  CHECK(cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, Kernel::SharedStorageSize));
  CUlaunchAttribute cluster{};
  cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  cluster.value.clusterDim = {CLUSTER, 1, 1};
  CUlaunchConfig config{};
  config.gridDimX = grid.x, config.gridDimY = grid.y, config.gridDimZ = grid.z;
  config.blockDimX = block.x, config.blockDimY = block.y, config.blockDimZ = block.z;
  config.sharedMemBytes = Kernel::SharedStorageSize;
  config.attrs = &cluster, config.numAttrs = 1;
  void* arguments[] = {&params};
  CHECK(cuLaunchKernelEx(&config, function, arguments, nullptr));
  CHECK(cuCtxSynchronize());
}

// In how many parts stream-K takes K; other schedulers know none.
template <class SchedulerArguments>
void split(SchedulerArguments& scheduler, int splits) {
  if constexpr (STREAM_K) scheduler.splits = splits;
}

int main(int count, char** words) {
  int M = std::atoi(words[2]), N = std::atoi(words[3]), K = std::atoi(words[4]), sms = std::atoi(words[5]);
  CUdevice device;
  CUcontext context;
  CHECK(cuInit(0));
  CHECK(cuDeviceGet(&device, 0));
  CHECK(cuDevicePrimaryCtxRetain(&context, device));
  CHECK(cuCtxSetCurrent(context));
  CUfunction function = load(words[1]);

  std::vector<Half> a = eighths(size_t(M) * K, 1), b = eighths(size_t(N) * K, 2);
  std::vector<float> d(size_t(M) * N, NAN);
  CUdeviceptr a_address = buffer(a), b_address = buffer(b), d_address = buffer(d), workspace = 0;

  auto a_stride = cutlass::make_cute_packed_stride(typename Kernel::StrideA{}, {M, K, 1});
  auto b_stride = cutlass::make_cute_packed_stride(typename Kernel::StrideB{}, {N, K, 1});
  auto d_stride = cutlass::make_cute_packed_stride(typename Kernel::StrideD{}, {M, N, 1});
  cutlass::KernelHardwareInfo hardware;
  hardware.sm_count = sms;
  hardware.cluster_shape = hardware.cluster_shape_fallback = dim3(CLUSTER, 1, 1);
  hardware.max_active_clusters = sms / CLUSTER;
  float* d_pointer = reinterpret_cast<float*>(d_address);
  typename Kernel::Arguments arguments{
      gemm::GemmUniversalMode::kGemm,
      {M, N, K, 1},
      {reinterpret_cast<Half*>(a_address), a_stride, reinterpret_cast<Half*>(b_address), b_stride},
      {{1.f, 0.f}, d_pointer, d_stride, d_pointer, d_stride},
      hardware};
  split(arguments.scheduler, count > 6 ? std::atoi(words[6]) : 1);
  // Its flags must be zero; CUTLASS itself leaves the partial sums behind them as they are.
  if (size_t bytes = Kernel::get_workspace_size(arguments)) {
    CHECK(cuMemAlloc(&workspace, bytes));
    CHECK(cuMemsetD8(workspace, 0, bytes));
  }
  Kernel::Params params = Kernel::to_underlying_arguments(arguments, reinterpret_cast<void*>(workspace));
  launch(function, params);

  CHECK(cuMemcpyDtoH(d.data(), d_address, d.size() * sizeof(float)));
  size_t wrong = 0;
  for (int m = 0; m < M; m++) {
    for (int n = 0; n < N; n++) {
      double sum = 0;
      for (int k = 0; k < K; k++) sum += double(float(a[m * K + k])) * double(float(b[n * K + k]));
      wrong += !(d[m * N + n] == sum);
    }
  }
  for (CUdeviceptr address : {a_address, b_address, d_address}) CHECK(cuMemFree(address));
  if (workspace) CHECK(cuMemFree(workspace));
  if (wrong) std::printf("%zu of %zu elements are wrong\n", wrong, d.size());
  return wrong != 0;
}
