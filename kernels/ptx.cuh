// PTX in functions, one instruction each, for what C++ has no words for. Addresses of shared memory are 32 bits.

#pragma once

#include "prelude.cuh"

// `CUtensorMap`: a tensor in global memory, and the box of it that one copy brings.
struct alignas(64) TensorMap {
    u64 words[16];
};

// ---------------------------------------------------------------------------------------------------
// Bytes of a word

// Four of the eight of a and b.
template <u32 selector>
__device__ __forceinline__ u32 permuted(u32 a, u32 b) {
    u32 d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "n"(selector));
    return d;
}

// The byte from bit `first` on.
template <int first>
__device__ __forceinline__ u32 byte_of(u32 p) {
    u32 byte;
    asm("bfe.u32 %0, %1, %2, 8;" : "=r"(byte) : "r"(p), "n"(first));
    return byte;
}

// Where in shared memory the word of that number is, of a table.
template <int first>
__device__ __forceinline__ u32 word_of(u32 table, u32 p) {
    u32 address;
    asm("mad.lo.u32 %0, %1, 4, %2;" : "=r"(address) : "r"(byte_of<first>(p)), "r"(table));
    return address;
}

template <int bytes>
__device__ __forceinline__ float shared_float(u32 address) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1+%2];" : "=f"(x) : "r"(address), "n"(bytes));
    return x;
}

template <int bytes>
__device__ __forceinline__ u32 shared_byte(u32 address) {
    u32 x;
    asm volatile("ld.shared.u8 %0, [%1+%2];" : "=r"(x) : "r"(address), "n"(bytes));
    return x;
}

template <int bytes>
__device__ __forceinline__ void count_one(u32 address) {
    asm volatile("red.shared.add.u32 [%0+%1], 1;" ::"r"(address), "n"(bytes) : "memory");
}

// ---------------------------------------------------------------------------------------------------
// Barriers in shared memory (mbarrier), 8 bytes each

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Those of the cluster, and copies, see the barriers initialised once the CTAs have met.
__device__ __forceinline__ void barriers_are_set_up() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Waits for the other warps of this warpgroup, at a barrier of the CTA that is theirs alone.
__device__ __forceinline__ void warpgroup_sync(u32 own) { asm volatile("bar.sync %0, 128;" ::"r"(own) : "memory"); }

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// At the barrier in the same place of another CTA of the cluster, or of this one.
__device__ __forceinline__ void barrier_arrive_at(u32 barrier, u32 cta) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(cta) : "memory");
}

// An arrival, and bytes that copies have yet to bring.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Until the phase of this parity is over.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni DONE;\nbra.uni AGAIN;\nDONE:\n}" ::"r"(barrier), "r"(parity) : "memory");
}

// ---------------------------------------------------------------------------------------------------
// Threads together

// Registers of a thread from here on; all warps of a warpgroup.
template <int REGISTERS>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// The lane, asked for where it is used: what is computed from it is not kept from before.
__device__ __forceinline__ int lane_here() {
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// All threads of the cluster that are left; what they have written before is seen after it.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// ---------------------------------------------------------------------------------------------------
// Shared memory by its own address

__device__ __forceinline__ void store_shared(u32 to, float x, float y) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}

__device__ __forceinline__ void load_shared(float* to, u32 from) {
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3]) : "r"(from) : "memory");
}

// ---------------------------------------------------------------------------------------------------
// Copies by tensor maps (TMA)

__device__ __forceinline__ void prefetch_map(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// The box at (x, y, z), of which what is outside the tensor is zero, to shared memory; the barrier is told of its bytes.
__device__ __forceinline__ void load_box(u32 to, const TensorMap* map, u32 barrier, int x, int y, int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z) : "memory");
}

// The same to each CTA of the cluster that has its bit in `ctas`, whose barriers are told.
__device__ __forceinline__ void load_box_to(unsigned short ctas, u32 to, const TensorMap* map, u32 barrier, int x, int y, int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(ctas) : "memory");
}

// ---------------------------------------------------------------------------------------------------
// Products of a warpgroup (wgmma)

#if __CUDA_ARCH_FEAT_SM90_ALL

// An operand in shared memory with a swizzle of 128 bytes: groups of eight rows of 64 float16, one behind the other; where M
// or N is along its rows, `across` bytes from 64 of them to the next.
__device__ __forceinline__ u64 matrix(u32 address, u32 across) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(across >> 4) << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}

#define F8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define F32(d, i) F8(d, i), F8(d, i + 8), F8(d, i + 16), F8(d, i + 24)

// d (64, N) = or += A (64, 16) · B (16, N) for N 64, 128 and 256, float16 operands. TA, TB: M, N along the rows in shared memory.
template <int TA, int TB>
__device__ __forceinline__ void wgmma(float (&d)[32], u64 a, u64 b, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
        "}, %32, %33, p, 1, 1, %35, %36;\n}"
        : F32(d, 0)
        : "l"(a), "l"(b), "r"(accumulate), "n"(TA), "n"(TB));
}

template <int TA, int TB>
__device__ __forceinline__ void wgmma(float (&d)[64], u64 a, u64 b, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
        "}, %64, %65, p, 1, 1, %67, %68;\n}"
        : F32(d, 0), F32(d, 32)
        : "l"(a), "l"(b), "r"(accumulate), "n"(TA), "n"(TB));
}

template <int TA, int TB>
__device__ __forceinline__ void wgmma(float (&d)[128], u64 a, u64 b, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
        "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
        "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
        "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
        "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
        "}, %128, %129, p, 1, 1, %131, %132;\n}"
        : F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96)
        : "l"(a), "l"(b), "r"(accumulate), "n"(TA), "n"(TB));
}

#undef F32
#undef F8

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all but the latest so many groups are done.
template <int GROUPS>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}

// Tells the compiler that the registers change here: nothing of them moves across.
template <int N>
__device__ __forceinline__ void pin(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#endif
