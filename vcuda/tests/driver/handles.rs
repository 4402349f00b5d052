//! Events and streams that are destroyed, or never were.

use cudarc::driver::sys::{self, CUevent, CUresult, CUstream};

use crate::client::{Module, context, launch};

const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_HANDLE;

#[test]
fn a_destroyed_stream_is_refused() {
    let _context = context();
    let module = Module::load();
    let mut stream: CUstream = std::ptr::null_mut();
    let (mut address, mut word, mut graph) = (0u64, 0u32, std::ptr::null_mut());
    // SAFETY: live locals; streams that are refused.
    unsafe {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        sys::cuStreamCreate(&mut stream, 0).result().unwrap();
        sys::cuStreamDestroy_v2(stream).result().unwrap();
        for gone in [stream, 0x77 as CUstream, 0x1234_5678_9abc as CUstream] {
            assert_eq!(launch(module.function("empty"), 1, 32, gone, &mut []), Err(INVALID));
            let mut event = std::ptr::null_mut();
            sys::cuEventCreate(&mut event, 0).result().unwrap();
            let refused = [
                sys::cuStreamSynchronize(gone),
                sys::cuStreamQuery(gone),
                sys::cuStreamDestroy_v2(gone),
                sys::cuStreamGetFlags(gone, &mut word),
                sys::cuStreamWaitEvent(gone, event, 0),
                sys::cuEventRecord(event, gone),
                sys::cuMemAllocAsync(&mut address, 16, gone),
                sys::cuMemFreeAsync(address, gone),
                sys::cuMemsetD8Async(address, 0, 0, gone),
                sys::cuStreamBeginCapture_v2(gone, mode),
                sys::cuStreamEndCapture(gone, &mut graph),
            ];
            assert_eq!(refused, [INVALID; 11]);
            sys::cuEventDestroy_v2(event).result().unwrap();
        }
        // A new one is another one.
        let mut next = std::ptr::null_mut();
        sys::cuStreamCreate(&mut next, 0).result().unwrap();
        assert_ne!(next, stream);
        sys::cuStreamDestroy_v2(next).result().unwrap();
    }
}

#[test]
fn a_destroyed_event_is_refused() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let (mut event, mut other): (CUevent, CUevent) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (mut milliseconds, mut graph, mut node) = (0f32, std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: live locals; events that are refused.
    unsafe {
        sys::cuEventCreate(&mut event, 0).result().unwrap();
        sys::cuEventCreate(&mut other, 0).result().unwrap();
        sys::cuEventRecord(other, stream.cu_stream()).result().unwrap();
        sys::cuGraphCreate(&mut graph, 0).result().unwrap();
        let after = std::ptr::null();
        sys::cuGraphAddEventRecordNode(&mut node, graph, after, 0, event).result().unwrap();
        sys::cuEventDestroy_v2(event).result().unwrap();
        for gone in [event, std::ptr::null_mut(), stream.cu_stream().cast(), 0x77 as CUevent] {
            let refused = [
                sys::cuEventRecord(gone, stream.cu_stream()),
                sys::cuEventQuery(gone),
                sys::cuEventSynchronize(gone),
                sys::cuEventElapsedTime_v2(&mut milliseconds, gone, other),
                sys::cuStreamWaitEvent(stream.cu_stream(), gone, 0),
                sys::cuEventDestroy_v2(gone),
                sys::cuGraphAddEventWaitNode(&mut node, graph, after, 0, gone),
            ];
            assert_eq!(refused, [INVALID; 7]);
        }
        // A graph that records it still knows when it runs.
        let mut exec = std::ptr::null_mut();
        sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result().unwrap();
        assert_eq!(sys::cuGraphLaunch(exec, stream.cu_stream()), INVALID);
        sys::cuGraphExecDestroy(exec).result().unwrap();
        sys::cuGraphDestroy(graph).result().unwrap();
        sys::cuEventDestroy_v2(other).result().unwrap();
    }
}
