//! What a capture tells of itself, and captures into graphs that are there already.

use cudarc::driver::sys::{self, CUgraphNode, CUresult, CUstreamCaptureMode, CUstreamCaptureStatus as State};
use cudarc::driver::{CudaStream, DevicePtr};

use crate::client::{Module, context, launch};

const THREAD: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const N: u32 = 33;

/// State, number, graph and dependencies of a stream's capture.
fn info(stream: &CudaStream) -> Result<(State, u64, sys::CUgraph, Vec<CUgraphNode>), CUresult> {
    let (mut state, mut number) = (State::CU_STREAM_CAPTURE_STATUS_NONE, 0);
    let (mut graph, mut nodes, mut count) = (std::ptr::null_mut(), std::ptr::null(), 0);
    // SAFETY: live locals; the list lasts until the stream's next call.
    unsafe {
        let stream = stream.cu_stream();
        let second = sys::cuStreamGetCaptureInfo_v3(
            stream,
            &mut state,
            &mut number,
            &mut graph,
            &mut nodes,
            std::ptr::null_mut(),
            &mut count,
        );
        match second {
            CUresult::CUDA_SUCCESS if count > 0 => {
                Ok((state, number, graph, std::slice::from_raw_parts(nodes, count).to_vec()))
            }
            CUresult::CUDA_SUCCESS => Ok((state, number, graph, Vec::new())),
            error => Err(error),
        }
    }
}

#[test]
fn a_capture_goes_on_with_a_graph() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let data = stream.alloc_zeros::<u32>(N as usize).unwrap();
    let (mut at, mut n) = (data.device_ptr(&stream).0, N);
    let (mut add, mut scale) = (3u32, 5u32);
    let (mut graph, mut ended, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    let [mut fill, mut side, mut foreign] = [std::ptr::null_mut(); 3];
    let (none, raw) = (std::ptr::null_mut(), stream.cu_stream());
    let kernel = |name: &str, k: &mut u32, at: &mut u64, n: &mut u32| {
        launch(module.function(name), 2, 32, raw, &mut [at, n, k]).unwrap();
    };
    // SAFETY: live locals and handles throughout.
    unsafe {
        sys::cuGraphCreate(&mut graph, 0).result().unwrap();
        let mut params: sys::CUDA_MEMSET_NODE_PARAMS = std::mem::zeroed();
        (params.dst, params.value, params.elementSize, params.width, params.height) =
            (at, 2, 4, N as usize, 1);
        sys::cuGraphAddMemsetNode(&mut fill, graph, std::ptr::null(), 0, &params, none).result().unwrap();
        sys::cuGraphAddEmptyNode(&mut side, graph, std::ptr::null(), 0).result().unwrap();
        let mut other = std::ptr::null_mut();
        sys::cuGraphCreate(&mut other, 0).result().unwrap();
        sys::cuGraphAddEmptyNode(&mut foreign, other, std::ptr::null(), 0).result().unwrap();

        assert_eq!(info(&stream), Ok((State::CU_STREAM_CAPTURE_STATUS_NONE, 0, none.cast(), vec![])));
        let edges = std::ptr::null();
        let into = |node: CUgraphNode| sys::cuStreamBeginCaptureToGraph(raw, graph, &node, edges, 1, THREAD);
        assert_eq!(into(foreign), INVALID);
        into(fill).result().unwrap();
        let (state, number, found, after) = info(&stream).unwrap();
        assert_eq!((state, found, after), (State::CU_STREAM_CAPTURE_STATUS_ACTIVE, graph, vec![fill]));
        assert_ne!(number, 0);
        kernel("add", &mut add, &mut at, &mut n);
        let (_, same, _, after) = info(&stream).unwrap();
        assert_eq!((same, after.len()), (number, 1));
        assert_ne!(after[0], fill);

        // More to come after, and then that alone.
        let update = |mut node: CUgraphNode, flags| {
            sys::cuStreamUpdateCaptureDependencies_v2(raw, &mut node, edges, 1, flags)
        };
        update(side, 0).result().unwrap();
        assert_eq!(info(&stream).unwrap().3.len(), 2);
        assert_eq!((update(foreign, 0), update(side, 2)), (INVALID, INVALID));
        update(after[0], 1).result().unwrap();
        assert_eq!(info(&stream).unwrap().3, after);
        kernel("scale", &mut scale, &mut at, &mut n);
        sys::cuStreamEndCapture(raw, &mut ended).result().unwrap();
        assert_eq!(ended, graph);
        assert_eq!(update(side, 0), CUresult::CUDA_ERROR_ILLEGAL_STATE);

        let mut count = 0;
        sys::cuGraphGetNodes(graph, none.cast(), &mut count).result().unwrap();
        assert_eq!(count, 4);
        sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result().unwrap();
        sys::cuGraphLaunch(exec, raw).result().unwrap();
        assert_eq!(stream.clone_dtoh(&data).unwrap(), [(2 + 3) * 5; N as usize]);
        sys::cuGraphExecDestroy(exec).result().unwrap();
        [graph, other].into_iter().for_each(|graph| sys::cuGraphDestroy(graph).result().unwrap());
    }
}

#[test]
fn a_broken_capture_tells_its_state_alone() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let mut graph = std::ptr::null_mut();
    // SAFETY: live handles and locals.
    unsafe {
        sys::cuStreamBeginCapture_v2(stream.cu_stream(), THREAD).result().unwrap();
        let broken = sys::cuStreamSynchronize(stream.cu_stream());
        assert_eq!(broken, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        let (state, _, found, after) = info(&stream).unwrap();
        assert_eq!((state, after.len()), (State::CU_STREAM_CAPTURE_STATUS_INVALIDATED, 0));
        assert!(found.is_null());
        let update = sys::cuStreamUpdateCaptureDependencies_v2(
            stream.cu_stream(),
            std::ptr::null_mut(),
            std::ptr::null(),
            0,
            0,
        );
        assert_eq!(update, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        let ended = sys::cuStreamEndCapture(stream.cu_stream(), &mut graph);
        assert_eq!(ended, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        // The client's graph is the client's still.
        sys::cuGraphCreate(&mut graph, 0).result().unwrap();
        let (none, edges) = (std::ptr::null(), std::ptr::null());
        sys::cuStreamBeginCaptureToGraph(stream.cu_stream(), graph, none, edges, 0, THREAD).result().unwrap();
        let broken = sys::cuStreamSynchronize(stream.cu_stream());
        assert_eq!(broken, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        let mut ended = std::ptr::null_mut();
        let refused = sys::cuStreamEndCapture(stream.cu_stream(), &mut ended);
        assert_eq!(refused, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        sys::cuGraphDestroy(graph).result().unwrap();
    }
}
