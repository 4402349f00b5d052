//! Memory that graphs allocate and free.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUgraphNode, CUresult};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};

use crate::client::{Module, Param, context, in_child, launch};

const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const N: u32 = 100;

fn new_graph() -> CUgraph {
    let mut graph = std::ptr::null_mut();
    // SAFETY: a live local.
    unsafe { sys::cuGraphCreate(&mut graph, 0) }.result().unwrap();
    graph
}

fn alloc_params(bytes: usize) -> sys::CUDA_MEM_ALLOC_NODE_PARAMS {
    // SAFETY: zeros are a value of this structure once its enums have theirs.
    unsafe {
        let mut params = std::mem::MaybeUninit::<sys::CUDA_MEM_ALLOC_NODE_PARAMS>::zeroed();
        let pool = &raw mut (*params.as_mut_ptr()).poolProps;
        (*pool).allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        (*pool).handleTypes = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
        (*pool).location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        let mut params = params.assume_init();
        params.bytesize = bytes;
        params
    }
}

/// An allocation's node and address.
fn alloc(graph: CUgraph, bytes: usize) -> (CUgraphNode, u64) {
    let (mut node, mut params) = (std::ptr::null_mut(), alloc_params(bytes));
    // SAFETY: a live graph and live locals.
    unsafe { sys::cuGraphAddMemAllocNode(&mut node, graph, std::ptr::null(), 0, &mut params) }
        .result()
        .unwrap();
    (node, params.dptr)
}

fn free(graph: CUgraph, after: CUgraphNode, address: u64) -> CUresult {
    let mut node = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe { sys::cuGraphAddMemFreeNode(&mut node, graph, &after, 1, address) }
}

fn instantiate(graph: CUgraph, flags: u64) -> Result<CUgraphExec, CUresult> {
    let mut exec = std::ptr::null_mut();
    // SAFETY: as above.
    match unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, flags) } {
        CUresult::CUDA_SUCCESS => Ok(exec),
        error => Err(error),
    }
}

fn run(exec: CUgraphExec, stream: &CudaStream) -> CUresult {
    // SAFETY: a live instance and stream.
    unsafe { sys::cuGraphLaunch(exec, stream.cu_stream()) }
}

fn destroy(graph: CUgraph, exec: CUgraphExec) {
    // SAFETY: each once.
    unsafe {
        sys::cuGraphExecDestroy(exec).result().unwrap();
        sys::cuGraphDestroy(graph).result().unwrap();
    }
}

/// Whether device memory is there.
fn is_there(address: u64) -> bool {
    let mut byte = 0u8;
    // SAFETY: a live local.
    unsafe { sys::cuMemcpyDtoH_v2((&raw mut byte).cast(), address, 1) == CUresult::CUDA_SUCCESS }
}

/// Nodes after `after` that fill `at` with 2, add 3 to it, and copy it to `out`; the last of them.
fn compute(graph: CUgraph, module: &Module, after: CUgraphNode, mut at: u64, out: u64) -> CUgraphNode {
    let [mut fill, mut add, mut copy] = [std::ptr::null_mut(); 3];
    // SAFETY: zeros are values of these plain structures; live locals and handles.
    unsafe {
        let mut params: sys::CUDA_MEMSET_NODE_PARAMS = std::mem::zeroed();
        (params.dst, params.value, params.elementSize) = (at, 2, 4);
        (params.width, params.height) = (N as usize, 1);
        let none = std::ptr::null_mut();
        sys::cuGraphAddMemsetNode(&mut fill, graph, &after, 1, &params, none).result().unwrap();
        let (mut n, mut k) = (N, 3u32);
        let mut pointers = [at.pointer(), n.pointer(), k.pointer()];
        let mut params: sys::CUDA_KERNEL_NODE_PARAMS = std::mem::zeroed();
        (params.func, params.kernelParams) = (module.function("add"), pointers.as_mut_ptr());
        (params.gridDimX, params.gridDimY, params.gridDimZ) = (4, 1, 1);
        (params.blockDimX, params.blockDimY, params.blockDimZ) = (32, 1, 1);
        sys::cuGraphAddKernelNode_v2(&mut add, graph, &fill, 1, &params).result().unwrap();
        let mut params = std::mem::MaybeUninit::<sys::CUDA_MEMCPY3D>::zeroed();
        (*params.as_mut_ptr()).srcMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        (*params.as_mut_ptr()).dstMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        let mut params = params.assume_init();
        (params.srcDevice, params.dstDevice) = (at, out);
        (params.WidthInBytes, params.Height, params.Depth) = (4 * N as usize, 1, 1);
        sys::cuGraphAddMemcpyNode(&mut copy, graph, &add, 1, &params, none).result().unwrap();
    }
    copy
}

fn output(stream: &Arc<CudaStream>) -> (CudaSlice<u32>, u64) {
    let out = stream.alloc_zeros::<u32>(N as usize).unwrap();
    let address = out.device_ptr(stream).0;
    (out, address)
}

fn is_computed(stream: &Arc<CudaStream>, out: &mut CudaSlice<u32>) -> bool {
    let got = stream.clone_dtoh(out).unwrap();
    stream.memset_zeros(out).unwrap();
    got == [5; N as usize]
}

#[test]
fn a_graph_allocates_and_frees() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let (mut out, out_at) = output(&stream);
    let graph = new_graph();
    let (node, at) = alloc(graph, 4 * N as usize);
    assert!(!is_there(at), "before the first launch");
    let last = compute(graph, &module, node, at, out_at);
    free(graph, last, at).result().unwrap();
    // SAFETY: live locals; a node of its kind.
    unsafe {
        let mut params = alloc_params(0);
        sys::cuGraphMemAllocNodeGetParams(node, &mut params).result().unwrap();
        assert_eq!((params.dptr, params.bytesize), (at, 4 * N as usize));
        assert_eq!(sys::cuGraphMemAllocNodeGetParams(last, &mut params), INVALID);
    }
    let exec = instantiate(graph, 0).unwrap();
    for _ in 0..3 {
        run(exec, &stream).result().unwrap();
        assert!(is_computed(&stream, &mut out) && !is_there(at));
    }
    destroy(graph, exec);
}

#[test]
fn what_a_graph_has_not_freed_is_the_clients() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let (mut out, out_at) = output(&stream);
    let graph = new_graph();
    let (node, at) = alloc(graph, 4 * N as usize);
    compute(graph, &module, node, at, out_at);
    let exec = instantiate(graph, 0).unwrap();
    // SAFETY: addresses of live allocations.
    let frees: [&dyn Fn(); 2] = unsafe {
        [&|| sys::cuMemFree_v2(at).result().unwrap(), &|| {
            sys::cuMemFreeAsync(at, stream.cu_stream()).result().unwrap();
        }]
    };
    for free in frees {
        run(exec, &stream).result().unwrap();
        assert!(is_computed(&stream, &mut out) && is_there(at));
        assert_eq!(run(exec, &stream), INVALID, "its memory is not freed");
        assert!(stream.clone_dtoh(&out).unwrap().iter().all(|&x| x == 0), "it ran");
        free();
        assert!(!is_there(at));
    }
    // Another graph may free it.
    let other = new_graph();
    let (mut empty, none) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: a live graph.
    unsafe { sys::cuGraphAddEmptyNode(&mut empty, other, none, 0) }.result().unwrap();
    free(other, empty, at).result().unwrap();
    let freeing = instantiate(other, 0).unwrap();
    run(exec, &stream).result().unwrap();
    run(freeing, &stream).result().unwrap();
    assert!(!is_there(at));
    assert_eq!(run(freeing, &stream), INVALID, "it is freed already");
    destroy(other, freeing);
    // SAFETY: once.
    unsafe { sys::cuGraphExecDestroy(exec) }.result().unwrap();

    // CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH
    let exec = instantiate(graph, 1).unwrap();
    for _ in 0..3 {
        run(exec, &stream).result().unwrap();
        assert!(is_computed(&stream, &mut out) && is_there(at));
    }
    // The memory outlives its graph, and nobody else gets its addresses.
    destroy(graph, exec);
    assert!(is_there(at));
    let next = new_graph();
    assert_ne!(alloc(next, 4 * N as usize).1, at);
    // SAFETY: live.
    unsafe {
        sys::cuMemFree_v2(at).result().unwrap();
        assert_eq!(sys::cuMemFree_v2(at), INVALID);
        sys::cuGraphDestroy(next).result().unwrap();
    }
}

#[test]
fn a_captured_stream_allocates_in_its_graph() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let (mut out, out_at) = output(&stream);
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    let (main, mut at, mut n, mut k) = (stream.cu_stream(), 0u64, N, 3u32);
    // SAFETY: live locals and handles; memory of the graph's.
    let graph = unsafe {
        sys::cuMemAllocAsync(&mut at, 4 * N as usize, main).result().unwrap();
        sys::cuMemsetD32Async(at, 2, N as usize, main).result().unwrap();
        launch(module.function("add"), 4, 32, main, &mut [&mut at, &mut n, &mut k]).unwrap();
        sys::cuMemcpyDtoDAsync_v2(out_at, at, 4 * N as usize, main).result().unwrap();
        assert_eq!(sys::cuMemFreeAsync(out_at, main), INVALID, "no graph has allocated this");
        sys::cuMemFreeAsync(at, main).result().unwrap();
        assert_eq!(sys::cuMemFreeAsync(at, main), INVALID, "freed already");
        let mut graph = std::ptr::null_mut();
        sys::cuStreamEndCapture(main, &mut graph).result().unwrap();
        graph
    };
    assert!(!is_there(at));
    let exec = instantiate(graph, 0).unwrap();
    for _ in 0..2 {
        run(exec, &stream).result().unwrap();
        assert!(is_computed(&stream, &mut out) && !is_there(at));
    }
    destroy(graph, exec);
}

#[test]
fn graphs_with_memory_stay_as_they_are() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let graph = new_graph();
    let (node, at) = alloc(graph, 1000);
    let (mut other, mut edge) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: live locals and handles throughout.
    unsafe {
        sys::cuGraphAddEmptyNode(&mut edge, graph, &node, 1).result().unwrap();
        assert_eq!(sys::cuGraphClone(&mut other, graph), INVALID);
        assert_eq!(sys::cuGraphDestroyNode(edge), INVALID);
        assert_eq!(sys::cuGraphRemoveDependencies_v2(graph, &node, &edge, std::ptr::null(), 1), INVALID);
        let parent = new_graph();
        let mut child = std::ptr::null_mut();
        assert_eq!(sys::cuGraphAddChildGraphNode(&mut child, parent, std::ptr::null(), 0, graph), INVALID);
        assert_eq!(free(graph, edge, at + 256), INVALID, "no allocation begins there");
        free(graph, edge, at).result().unwrap();
        assert_eq!(free(graph, edge, at), INVALID, "twice");
        let mut params = alloc_params(0);
        assert_eq!(sys::cuGraphAddMemAllocNode(&mut child, graph, std::ptr::null(), 0, &mut params), INVALID);
        params.bytesize = 16;
        params.poolProps.location.id = 1;
        assert_eq!(sys::cuGraphAddMemAllocNode(&mut child, graph, std::ptr::null(), 0, &mut params), INVALID);

        let exec = instantiate(graph, 0).unwrap();
        assert_eq!(instantiate(graph, 0), Err(INVALID), "one instance at a time");
        let mut info: sys::CUgraphExecUpdateResultInfo = std::mem::zeroed();
        sys::cuGraphExecUpdate_v2(exec, graph, &mut info).result().unwrap();
        let others = new_graph();
        let (other_node, other_at) = alloc(others, 1000);
        sys::cuGraphAddEmptyNode(&mut edge, others, &other_node, 1).result().unwrap();
        free(others, edge, other_at).result().unwrap();
        let refused = sys::cuGraphExecUpdate_v2(exec, others, &mut info);
        assert_eq!((refused, info.result as u32), (CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, 5));
        run(exec, &stream).result().unwrap();
        sys::cuGraphExecDestroy(exec).result().unwrap();
        let again = instantiate(graph, 0).unwrap();
        destroy(graph, again);
        sys::cuGraphDestroy(parent).result().unwrap();
        sys::cuGraphDestroy(others).result().unwrap();
    }
}

#[test]
fn addresses_and_counts_come_back() {
    // Other tests would take addresses, and be counted.
    if in_child("graph_memory::addresses_and_counts_come_back", &[("VCUDA_CHECK", "memory")]).is_some() {
        return;
    }
    use sys::CUgraphMem_attribute as Attribute;
    let context = context();
    let stream = context.new_stream().unwrap();
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: a live local.
        unsafe { sys::cuDeviceGetGraphMemAttribute(0, attribute, (&raw mut value).cast()) }.result().unwrap();
        value
    };
    let (now, high) =
        (Attribute::CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, Attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH);
    let free_bytes = context.mem_get_info().unwrap().0;
    let mut first = 0;
    for round in 0..100 {
        let graph = new_graph();
        let (_, at) = alloc(graph, 10_000);
        if round == 0 {
            first = at;
        }
        assert_eq!(at, first, "round {round}");
        let exec = instantiate(graph, 0).unwrap();
        assert_eq!((get(now), context.mem_get_info().unwrap().0), (0, free_bytes));
        run(exec, &stream).result().unwrap();
        stream.synchronize().unwrap();
        assert_eq!((get(now), get(high)), (10_000, 10_000));
        assert!(context.mem_get_info().unwrap().0 < free_bytes);
        destroy(graph, exec);
        // SAFETY: live.
        unsafe { sys::cuMemFree_v2(at) }.result().unwrap();
    }
    // SAFETY: live locals.
    unsafe {
        let (mut zero, mut one) = (0u64, 1u64);
        let set = |attribute, value: &mut u64| {
            sys::cuDeviceSetGraphMemAttribute(0, attribute, std::ptr::from_mut(value).cast())
        };
        assert_eq!((set(high, &mut one), set(now, &mut zero)), (INVALID, INVALID));
        set(high, &mut zero).result().unwrap();
        assert_eq!(get(high), 0);
        sys::cuDeviceGraphMemTrim(0).result().unwrap();
    }
}

#[test]
fn work_before_the_allocation_finds_nothing() {
    let Some(child) = in_child("graph_memory::work_before_the_allocation_finds_nothing", &[]) else {
        let context = context();
        let (module, stream) = (Module::load(), context.new_stream().unwrap());
        let (_out, out_at) = output(&stream);
        let graph = new_graph();
        let mut empty = std::ptr::null_mut();
        let (node, at) = alloc(graph, 4 * N as usize);
        // SAFETY: a live graph and local.
        unsafe { sys::cuGraphAddEmptyNode(&mut empty, graph, std::ptr::null(), 0) }.result().unwrap();
        let (mut wild, mut add) = (at, std::ptr::null_mut());
        let mut pointers = [wild.pointer()];
        // SAFETY: zeros are a value; live locals and handles.
        unsafe {
            let mut params: sys::CUDA_KERNEL_NODE_PARAMS = std::mem::zeroed();
            (params.func, params.kernelParams) = (module.function("wild"), pointers.as_mut_ptr());
            (params.gridDimX, params.gridDimY, params.gridDimZ) = (1, 1, 1);
            (params.blockDimX, params.blockDimY, params.blockDimZ) = (1, 1, 1);
            sys::cuGraphAddKernelNode_v2(&mut add, graph, &empty, 1, &params).result().unwrap();
            sys::cuGraphAddDependencies_v2(graph, &add, &node, std::ptr::null(), 1).result().unwrap();
        }
        compute(graph, &module, node, at, out_at);
        let exec = instantiate(graph, 0).unwrap();
        assert_eq!(run(exec, &stream), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        return;
    };
    assert!(String::from_utf8_lossy(&child.stderr).contains("memory: wild"));
}
