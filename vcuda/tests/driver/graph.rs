//! Graphs built by hand: order, changes, clones, updates.

use std::ffi::c_void;

use cudarc::driver::DevicePtr;
use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUgraphNode, CUresult};

use crate::client::{Module, Param, context};

const N: u32 = 40;

/// (data + k) or (data * k) as a node's parameters; what it points to must last for the call.
fn kernel(function: sys::CUfunction, pointers: &mut [*mut c_void; 3]) -> sys::CUDA_KERNEL_NODE_PARAMS {
    // SAFETY: all zeros is a value of this plain structure.
    let mut params: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
    (params.func, params.kernelParams) = (function, pointers.as_mut_ptr());
    (params.gridDimX, params.gridDimY, params.gridDimZ) = (2, 1, 1);
    (params.blockDimX, params.blockDimY, params.blockDimZ) = (32, 1, 1);
    params
}

struct Builder {
    graph: CUgraph,
    module: Module,
    at: u64,
}

impl Builder {
    fn pointers<'a>(at: &'a mut u64, n: &'a mut u32, k: &'a mut u32) -> [*mut c_void; 3] {
        [at.pointer(), n.pointer(), k.pointer()]
    }

    fn kernel(&self, name: &str, mut k: u32, after: &[CUgraphNode]) -> CUgraphNode {
        let (mut at, mut n, mut node) = (self.at, N, std::ptr::null_mut());
        let mut pointers = Builder::pointers(&mut at, &mut n, &mut k);
        let params = kernel(self.module.function(name), &mut pointers);
        // SAFETY: live locals, and a live graph.
        unsafe { sys::cuGraphAddKernelNode_v2(&mut node, self.graph, after.as_ptr(), after.len(), &params) }
            .result()
            .unwrap();
        node
    }

    fn fill(&self, value: u32) -> CUgraphNode {
        let mut node = std::ptr::null_mut();
        let (dst, width) = (self.at, N as usize);
        let params = sys::CUDA_MEMSET_NODE_PARAMS { dst, pitch: 0, value, elementSize: 4, width, height: 1 };
        let none = std::ptr::null();
        // SAFETY: as above.
        unsafe { sys::cuGraphAddMemsetNode(&mut node, self.graph, none, 0, &params, std::ptr::null_mut()) }
            .result()
            .unwrap();
        node
    }

    fn instantiate(&self, graph: CUgraph) -> Result<CUgraphExec, CUresult> {
        let mut exec = std::ptr::null_mut();
        // SAFETY: a live graph.
        match unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0) } {
            CUresult::CUDA_SUCCESS => Ok(exec),
            error => Err(error),
        }
    }
}

#[test]
fn graphs_run_in_the_order_of_their_edges() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let data = stream.alloc_zeros::<u32>(N as usize).unwrap();
    let at = data.device_ptr(&stream).0;
    let mut graph = std::ptr::null_mut();
    // SAFETY: live locals and handles throughout.
    unsafe {
        sys::cuGraphCreate(&mut graph, 0).result().unwrap();
        let builder = Builder { graph, module: Module::load(), at };
        // Added last to first: the edges alone say (2 + 3) * 5.
        let scale = builder.kernel("scale", 5, &[]);
        let add = builder.kernel("add", 3, &[]);
        let fill = builder.fill(2);
        let (from, to, edges) = ([fill, add], [add, scale], std::ptr::null());
        sys::cuGraphAddDependencies_v2(graph, from.as_ptr(), to.as_ptr(), edges, 2).result().unwrap();
        let again = sys::cuGraphAddDependencies_v2(graph, from.as_ptr(), to.as_ptr(), edges, 1);
        assert_eq!(again, CUresult::CUDA_ERROR_INVALID_VALUE);
        let mut count = 9;
        let (mut starts, mut ends) = ([std::ptr::null_mut(); 9], [std::ptr::null_mut(); 9]);
        let (a, b) = (starts.as_mut_ptr(), ends.as_mut_ptr());
        sys::cuGraphGetEdges_v2(graph, a, b, std::ptr::null_mut(), &mut count).result().unwrap();
        assert_eq!((count, starts[0], ends[0], starts[1], ends[1]), (2, add, scale, fill, add));

        let exec = builder.instantiate(graph).unwrap();
        let run = |exec, expected: u32| {
            sys::cuGraphLaunch(exec, stream.cu_stream()).result().unwrap();
            assert_eq!(stream.clone_dtoh(&data).unwrap(), vec![expected; N as usize]);
        };
        run(exec, 25);
        run(exec, 25);

        // A node's parameters as they were given, and others for the instance alone.
        let mut params: sys::CUDA_KERNEL_NODE_PARAMS = std::mem::zeroed();
        sys::cuGraphKernelNodeGetParams_v2(add, &mut params).result().unwrap();
        let given = [0, 1, 2].map(|i| (*params.kernelParams.add(i)).cast::<u32>().read_unaligned());
        assert_eq!((given, params.gridDimX, params.blockDimX), ([at as u32, N, 3], 2, 32));
        let (mut address, mut n, mut k) = (at, N, 4);
        let mut pointers = Builder::pointers(&mut address, &mut n, &mut k);
        let params = kernel(builder.module.function("add"), &mut pointers);
        sys::cuGraphExecKernelNodeSetParams_v2(exec, add, &params).result().unwrap();
        run(exec, 30);
        let wrong = sys::cuGraphExecKernelNodeSetParams_v2(exec, fill, &params);
        assert_eq!(wrong, CUresult::CUDA_ERROR_INVALID_VALUE);
        sys::cuGraphNodeSetEnabled(exec, scale, 0).result().unwrap();
        run(exec, 6);
        sys::cuGraphNodeSetEnabled(exec, scale, 1).result().unwrap();

        // A clone changes without its original; the instance takes its work over, not another shape.
        let (mut clone, mut twin) = (std::ptr::null_mut(), std::ptr::null_mut());
        sys::cuGraphClone(&mut clone, graph).result().unwrap();
        sys::cuGraphNodeFindInClone(&mut twin, fill, clone).result().unwrap();
        let mut fill_params: sys::CUDA_MEMSET_NODE_PARAMS = std::mem::zeroed();
        sys::cuGraphMemsetNodeGetParams(twin, &mut fill_params).result().unwrap();
        fill_params.value = 10;
        sys::cuGraphMemsetNodeSetParams(twin, &fill_params).result().unwrap();
        let mut info: sys::CUgraphExecUpdateResultInfo = std::mem::zeroed();
        sys::cuGraphExecUpdate_v2(exec, clone, &mut info).result().unwrap();
        run(exec, 65);
        sys::cuGraphAddEmptyNode(&mut twin, clone, std::ptr::null(), 0).result().unwrap();
        let changed = sys::cuGraphExecUpdate_v2(exec, clone, &mut info);
        assert_eq!(changed, CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
        assert_eq!(info.result as u32, 2);
        sys::cuGraphDestroy(clone).result().unwrap();

        // An instance outlives its graph; one that goes in a circle has no order.
        let (from, to) = ([scale], [fill]);
        sys::cuGraphAddDependencies_v2(graph, from.as_ptr(), to.as_ptr(), edges, 1).result().unwrap();
        assert_eq!(builder.instantiate(graph), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        sys::cuGraphDestroyNode(scale).result().unwrap();
        let shorter = builder.instantiate(graph).unwrap();
        run(shorter, 5);
        sys::cuGraphDestroy(graph).result().unwrap();
        run(exec, 65);
        sys::cuGraphExecDestroy(exec).result().unwrap();
        sys::cuGraphExecDestroy(shorter).result().unwrap();
    }
}

#[test]
fn events_in_graphs_and_streams_keep_time() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let [start, end] = [(); 2].map(|()| context.new_event(flags).unwrap());
    assert!(start.elapsed_ms(&end).is_err(), "neither is recorded");
    start.record(&stream).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(30));
    let (mut graph, mut node, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: live locals and handles.
    unsafe {
        sys::cuGraphCreate(&mut graph, 0).result().unwrap();
        let event = end.cu_event();
        sys::cuGraphAddEventRecordNode(&mut node, graph, std::ptr::null(), 0, event).result().unwrap();
        sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result().unwrap();
        sys::cuGraphLaunch(exec, stream.cu_stream()).result().unwrap();
        sys::cuGraphExecDestroy(exec).result().unwrap();
        sys::cuGraphDestroy(graph).result().unwrap();
    }
    let milliseconds = start.elapsed_ms(&end).unwrap();
    assert!((30.0..10_000.0).contains(&milliseconds), "{milliseconds}");
    let untimed = context.new_event(None).unwrap();
    untimed.record(&stream).unwrap();
    assert!(start.elapsed_ms(&untimed).is_err());
}
