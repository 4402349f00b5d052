//! Nodes that are added by hand, each kind read back and changed; graphs in graphs; launch attributes.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::DevicePtr;
use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUgraphNode, CUresult};

use crate::client::{Module, Param, context};
use crate::cooperative::{meet, met, words};

const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const N: u32 = 40;

fn new_graph() -> CUgraph {
    let mut graph = std::ptr::null_mut();
    // SAFETY: a live local.
    unsafe { sys::cuGraphCreate(&mut graph, 0) }.result().unwrap();
    graph
}

fn instantiate(graph: CUgraph) -> Result<CUgraphExec, CUresult> {
    let mut exec = std::ptr::null_mut();
    // SAFETY: a live graph and local.
    match unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0) } {
        CUresult::CUDA_SUCCESS => Ok(exec),
        error => Err(error),
    }
}

/// A kernel's parameters on `ctas` CTAs of 32 threads.
fn params(
    function: sys::CUfunction,
    ctas: u32,
    pointers: &mut [*mut c_void],
) -> sys::CUDA_KERNEL_NODE_PARAMS {
    // SAFETY: all zeros is a value of this plain structure.
    let mut params: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
    (params.func, params.kernelParams) = (function, pointers.as_mut_ptr());
    (params.gridDimX, params.gridDimY, params.gridDimZ) = (ctas, 1, 1);
    (params.blockDimX, params.blockDimY, params.blockDimZ) = (32, 1, 1);
    params
}

/// (data + k) or (data * k), after `after`.
fn kernel(
    graph: CUgraph,
    function: sys::CUfunction,
    mut at: u64,
    mut k: u32,
    after: &[CUgraphNode],
) -> CUgraphNode {
    let (mut n, mut node) = (N, std::ptr::null_mut());
    let mut pointers = [at.pointer(), n.pointer(), k.pointer()];
    let params = params(function, 2, &mut pointers);
    // SAFETY: live locals, and a live graph.
    unsafe { sys::cuGraphAddKernelNode_v2(&mut node, graph, after.as_ptr(), after.len(), &params) }
        .result()
        .unwrap();
    node
}

fn fill_params(at: u64, value: u32) -> sys::CUDA_MEMSET_NODE_PARAMS {
    // SAFETY: all zeros is a value of this plain structure.
    let mut params: sys::CUDA_MEMSET_NODE_PARAMS = unsafe { std::mem::zeroed() };
    (params.dst, params.value, params.elementSize) = (at, value, 4);
    (params.width, params.height) = (N as usize, 1);
    params
}

fn fill(graph: CUgraph, at: u64, value: u32) -> CUgraphNode {
    let (mut node, params, none) = (std::ptr::null_mut(), fill_params(at, value), std::ptr::null_mut());
    // SAFETY: live locals, and a live graph.
    unsafe { sys::cuGraphAddMemsetNode(&mut node, graph, std::ptr::null(), 0, &params, none) }
        .result()
        .unwrap();
    node
}

#[test]
fn a_graph_is_a_node_of_another() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let data = stream.alloc_zeros::<u32>(N as usize).unwrap();
    let at = data.device_ptr(&stream).0;
    let (add, scale) = (module.function("add"), module.function("scale"));
    // (x + k) * 5
    let child_of = |k: u32| {
        let graph = new_graph();
        let first = kernel(graph, add, at, k, &[]);
        kernel(graph, scale, at, 5, &[first]);
        graph
    };
    let (graph, child, mut node) = (new_graph(), child_of(3), std::ptr::null_mut());
    let before = fill(graph, at, 2);
    // SAFETY: live locals and handles throughout.
    unsafe {
        sys::cuGraphAddChildGraphNode(&mut node, graph, &before, 1, child).result().unwrap();
        kernel(graph, add, at, 1, &[node]);
        // The node has a clone: what becomes of the original is no matter.
        sys::cuGraphDestroy(child).result().unwrap();
        let run = |exec, expected: u32| {
            sys::cuGraphLaunch(exec, stream.cu_stream()).result().unwrap();
            assert_eq!(stream.clone_dtoh(&data).unwrap(), vec![expected; N as usize]);
        };
        let exec = instantiate(graph).unwrap();
        run(exec, (2 + 3) * 5 + 1);

        let mut inner = std::ptr::null_mut();
        sys::cuGraphChildGraphNodeGetGraph(node, &mut inner).result().unwrap();
        assert_eq!(sys::cuGraphChildGraphNodeGetGraph(before, &mut inner), INVALID);
        let (mut nodes, mut count) = ([std::ptr::null_mut(); 3], 3);
        sys::cuGraphGetNodes(inner, nodes.as_mut_ptr(), &mut count).result().unwrap();
        assert_eq!(count, 2);
        let (mut address, mut n, mut k) = (at, N, 4u32);
        let mut pointers = [address.pointer(), n.pointer(), k.pointer()];
        let changed = params(add, 2, &mut pointers);
        sys::cuGraphKernelNodeSetParams_v2(nodes[0], &changed).result().unwrap();
        run(exec, (2 + 3) * 5 + 1);
        let other = instantiate(graph).unwrap();
        run(other, (2 + 4) * 5 + 1);

        let (same, longer) = (child_of(10), child_of(10));
        sys::cuGraphExecChildGraphNodeSetParams(other, node, same).result().unwrap();
        run(other, (2 + 10) * 5 + 1);
        kernel(longer, add, at, 1, &[]);
        assert_eq!(sys::cuGraphExecChildGraphNodeSetParams(other, node, longer), INVALID);
        assert_eq!(sys::cuGraphExecChildGraphNodeSetParams(other, before, same), INVALID);

        // A graph that goes in a circle is no child, and an inner one stops its outer one.
        let edge = std::ptr::null();
        sys::cuGraphAddDependencies_v2(inner, &nodes[1], &nodes[0], edge, 1).result().unwrap();
        assert_eq!(instantiate(graph), Err(INVALID));
        let mut none = std::ptr::null_mut();
        assert_eq!(sys::cuGraphAddChildGraphNode(&mut none, same, std::ptr::null(), 0, inner), INVALID);

        // A launch in a capture is a child, too.
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        sys::cuGraphLaunch(exec, stream.cu_stream()).result().unwrap();
        let captured = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().expect("a graph");
        stream.memset_zeros(&mut stream.clone_htod(&[0u32]).unwrap()).unwrap();
        captured.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&data).unwrap()[0], (2 + 3) * 5 + 1);

        let path = std::env::temp_dir().join(format!("vcuda-graph-{}.dot", std::process::id()));
        let name = CString::new(path.to_str().unwrap()).unwrap();
        sys::cuGraphDebugDotPrint(graph, name.as_ptr(), 0).result().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.starts_with("digraph {") && text.contains("subgraph cluster_"), "{text}");
        assert!(text.contains("scale\\ngrid [2, 1, 1]") && text.matches(" -> ").count() == 4, "{text}");
        assert_eq!(sys::cuGraphDebugDotPrint(graph, c"/no/such/folder/x.dot".as_ptr(), 0), INVALID);
        [exec, other].into_iter().for_each(|exec| sys::cuGraphExecDestroy(exec).result().unwrap());
        [graph, same, longer].into_iter().for_each(|graph| sys::cuGraphDestroy(graph).result().unwrap());
    }
}

unsafe extern "C" fn count(counter: *mut c_void) {
    // SAFETY: a counter that outlives its graph.
    unsafe { &*counter.cast::<AtomicU32>() }.fetch_add(1, Ordering::Relaxed);
}

/// A copy of all words from one device place to another.
fn copy_params(to: u64, from: u64) -> sys::CUDA_MEMCPY3D {
    // SAFETY: zeros are values of this structure once its enums have theirs.
    let mut params = unsafe {
        let mut params = std::mem::MaybeUninit::<sys::CUDA_MEMCPY3D>::zeroed();
        (*params.as_mut_ptr()).srcMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        (*params.as_mut_ptr()).dstMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        params.assume_init()
    };
    (params.dstDevice, params.srcDevice) = (to, from);
    (params.WidthInBytes, params.Height, params.Depth) = (4 * N as usize, 1, 1);
    params
}

#[test]
fn nodes_are_read_back_and_changed() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let data = stream.alloc_zeros::<u32>(3 * N as usize).unwrap();
    let [first, second, third] = [0, 1, 2].map(|i| data.device_ptr(&stream).0 + 4 * u64::from(i * N));
    let graph = new_graph();
    let [mut copy, mut host, mut record, mut wait] = [std::ptr::null_mut(); 4];
    let (calls, others) = (AtomicU32::new(0), AtomicU32::new(0));
    let host_params = |counter: &AtomicU32| sys::CUDA_HOST_NODE_PARAMS {
        fn_: Some(count),
        userData: std::ptr::from_ref(counter).cast_mut().cast(),
    };
    let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let [a, b] = [(); 2].map(|()| context.new_event(flags).unwrap());
    let start = context.new_event(flags).unwrap();
    start.record(&stream).unwrap();
    let none = std::ptr::null_mut();
    // SAFETY: live locals, handles and counters throughout.
    unsafe {
        let set = fill(graph, first, 7);
        let given = copy_params(second, first);
        sys::cuGraphAddMemcpyNode(&mut copy, graph, &set, 1, &given, none).result().unwrap();
        sys::cuGraphAddHostNode(&mut host, graph, &copy, 1, &host_params(&calls)).result().unwrap();
        sys::cuGraphAddEventWaitNode(&mut wait, graph, &host, 1, a.cu_event()).result().unwrap();
        sys::cuGraphAddEventRecordNode(&mut record, graph, &wait, 1, a.cu_event()).result().unwrap();
        let kinds = [set, copy, host, wait, record].map(|node| {
            let mut kind = sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
            sys::cuGraphNodeGetType(node, &mut kind).result().unwrap();
            kind as u32
        });
        assert_eq!(kinds, [2, 1, 3, 6, 7]);

        let mut read = copy_params(0, 0);
        sys::cuGraphMemcpyNodeGetParams(copy, &mut read).result().unwrap();
        assert_eq!((read.dstDevice, read.srcDevice, read.WidthInBytes), (second, first, 4 * N as usize));
        assert_eq!((read.Height, read.Depth), (1, 1));
        let mut read = fill_params(0, 0);
        sys::cuGraphMemsetNodeGetParams(set, &mut read).result().unwrap();
        assert_eq!((read.dst, read.value, read.elementSize, read.width), (first, 7, 4, N as usize));
        let mut read = host_params(&others);
        sys::cuGraphHostNodeGetParams(host, &mut read).result().unwrap();
        assert_eq!(read.userData, host_params(&calls).userData);
        let mut event = std::ptr::null_mut();
        sys::cuGraphEventRecordNodeGetEvent(record, &mut event).result().unwrap();
        assert_eq!(event, a.cu_event());
        assert_eq!(sys::cuGraphEventRecordNodeGetEvent(wait, &mut event), INVALID);
        assert_eq!(sys::cuGraphHostNodeGetParams(set, &mut read), INVALID);

        let exec = instantiate(graph).unwrap();
        let run = |expected: [u32; 3], called: [u32; 2]| {
            sys::cuGraphLaunch(exec, stream.cu_stream()).result().unwrap();
            let got = stream.clone_dtoh(&data).unwrap();
            assert_eq!(
                [0, 1, 2].map(|i| got[(i * N) as usize..][..N as usize].to_vec()),
                expected.map(|x| vec![x; N as usize])
            );
            assert_eq!([&calls, &others].map(|calls| calls.swap(0, Ordering::Relaxed)), called);
        };
        run([7, 7, 0], [1, 0]);
        assert!(start.elapsed_ms(&a).is_ok() && start.elapsed_ms(&b).is_err());

        // The graph's nodes change for later instances, the instance's for itself.
        sys::cuGraphMemcpyNodeSetParams(copy, &copy_params(third, first)).result().unwrap();
        sys::cuGraphMemsetNodeSetParams(set, &fill_params(first, 1)).result().unwrap();
        sys::cuGraphHostNodeSetParams(host, &host_params(&others)).result().unwrap();
        sys::cuGraphEventWaitNodeSetEvent(wait, b.cu_event()).result().unwrap();
        sys::cuGraphEventRecordNodeSetEvent(record, b.cu_event()).result().unwrap();
        run([7, 7, 0], [1, 0]);
        assert!(start.elapsed_ms(&b).is_err());
        let context = std::ptr::null_mut();
        sys::cuGraphExecMemcpyNodeSetParams(exec, copy, &copy_params(third, first), context)
            .result()
            .unwrap();
        sys::cuGraphExecMemsetNodeSetParams(exec, set, &fill_params(first, 9), context).result().unwrap();
        sys::cuGraphExecHostNodeSetParams(exec, host, &host_params(&others)).result().unwrap();
        sys::cuGraphExecEventWaitNodeSetEvent(exec, wait, b.cu_event()).result().unwrap();
        sys::cuGraphExecEventRecordNodeSetEvent(exec, record, b.cu_event()).result().unwrap();
        run([9, 7, 9], [0, 1]);
        assert!(start.elapsed_ms(&b).is_ok());
        assert_eq!(sys::cuGraphExecHostNodeSetParams(exec, set, &host_params(&others)), INVALID);
        let wide = sys::CUDA_MEMSET_NODE_PARAMS { elementSize: 3, ..fill_params(first, 0) };
        assert_eq!(sys::cuGraphMemsetNodeSetParams(set, &wide), INVALID);
        sys::cuGraphExecDestroy(exec).result().unwrap();
        let next = instantiate(graph).unwrap();
        sys::cuGraphLaunch(next, stream.cu_stream()).result().unwrap();
        assert_eq!(stream.clone_dtoh(&data).unwrap()[2 * N as usize], 1);
        sys::cuGraphExecDestroy(next).result().unwrap();
        sys::cuGraphDestroy(graph).result().unwrap();
    }
}

#[test]
fn kernel_nodes_have_launch_attributes() {
    use sys::CUlaunchAttributeID as Id;
    let context = context();
    let (module, stream) = (meet(), context.new_stream().unwrap());
    let mut n = 8;
    let (words, mut address) = words(&stream, n);
    let graph = new_graph();
    let [mut first, mut second] = [std::ptr::null_mut(); 2];
    let mut pointers = [address.pointer(), n.pointer()];
    let given = params(module.function("meet"), n, &mut pointers);
    // SAFETY: live locals and handles throughout; an attribute's value is a union of 64 bytes.
    unsafe {
        sys::cuGraphAddKernelNode_v2(&mut first, graph, std::ptr::null(), 0, &given).result().unwrap();
        let set = |node, id, value: [u32; 3]| {
            let mut all: sys::CUlaunchAttributeValue = std::mem::zeroed();
            (&raw mut all).cast::<[u32; 3]>().write(value);
            sys::cuGraphKernelNodeSetAttribute(node, id, &all)
        };
        let get = |node, id| {
            let mut all: sys::CUlaunchAttributeValue = std::mem::zeroed();
            sys::cuGraphKernelNodeGetAttribute(node, id, &mut all).result().unwrap();
            (&raw const all).cast::<[u32; 3]>().read()
        };
        let (cooperative, cluster) =
            (Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
        let priority = Id::CU_LAUNCH_ATTRIBUTE_PRIORITY;
        assert_eq!(
            (get(first, cooperative)[0], get(first, cluster), get(first, priority)[0]),
            (0, [1; 3], 0)
        );
        set(first, cooperative, [1, 0, 0]).result().unwrap();
        set(first, cluster, [2, 1, 1]).result().unwrap();
        set(first, priority, [3, 0, 0]).result().unwrap();
        assert_eq!(set(first, cluster, [3, 1, 1]), CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
        assert_eq!(set(first, Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT, [0; 3]), INVALID);
        assert_eq!(get(first, cluster), [2, 1, 1]);
        // Other parameters leave them alone.
        sys::cuGraphKernelNodeSetParams_v2(first, &given).result().unwrap();
        let exec = instantiate(graph).unwrap();
        sys::cuGraphLaunch(exec, stream.cu_stream()).result().unwrap();
        assert!(met(&stream, &words, n));

        let large = sys::CUDA_KERNEL_NODE_PARAMS { gridDimX: 32 * 132 + 2, ..given };
        sys::cuGraphAddKernelNode_v2(&mut second, graph, std::ptr::null(), 0, &large).result().unwrap();
        let too_large = CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
        assert_eq!(set(second, cooperative, [1, 0, 0]), too_large);
        sys::cuGraphKernelNodeSetParams_v2(second, &given).result().unwrap();
        sys::cuGraphKernelNodeCopyAttributes(second, first).result().unwrap();
        let copied = (get(second, cooperative)[0], get(second, cluster), get(second, priority)[0]);
        assert_eq!(copied, (1, [2, 1, 1], 3));
        sys::cuGraphExecDestroy(exec).result().unwrap();
        sys::cuGraphDestroy(graph).result().unwrap();
    }
}
