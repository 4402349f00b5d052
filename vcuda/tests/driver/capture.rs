//! Capturing streams: the same results as without, and the right errors.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode as Mode, CUstreamCaptureStatus as State};
use cudarc::driver::{CudaStream, DevicePtr};

use crate::client::{Module, context, launch};

const THREAD: Mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const NO_FLAGS: sys::CUgraphInstantiate_flags = sys::CUgraphInstantiate_flags(0);
const N: u32 = 70;

fn begin(stream: &CudaStream, mode: Mode) -> CUresult {
    // SAFETY: a live stream.
    unsafe { sys::cuStreamBeginCapture_v2(stream.cu_stream(), mode) }
}

/// Ends a capture, and gives its graph back at once.
fn end(stream: &CudaStream) -> CUresult {
    let mut graph = std::ptr::null_mut();
    // SAFETY: a live stream; the graph is destroyed once.
    unsafe {
        let ended = sys::cuStreamEndCapture(stream.cu_stream(), &mut graph);
        assert_eq!(graph.is_null(), ended != CUresult::CUDA_SUCCESS);
        if !graph.is_null() {
            sys::cuGraphDestroy(graph).result().unwrap();
        }
        ended
    }
}

unsafe extern "C" fn count(counter: *mut c_void) {
    // SAFETY: the counter of the test, which outlives its graph.
    unsafe { &*counter.cast::<AtomicU32>() }.fetch_add(1, Ordering::Relaxed);
}

/// Copies in, two kernels on two streams that fork and join, a fill, a host function, a copy out.
fn work(
    stream: &Arc<CudaStream>,
    side: &Arc<CudaStream>,
    at: u64,
    inp: &[u32],
    out: &mut [u32],
    calls: &AtomicU32,
) {
    let module = MODULE.get_or_init(Module::load);
    let (add, scale) = (module.function("add"), module.function("scale"));
    let context = stream.context();
    let (mut data, mut other, mut n) = (at, at + 4 * u64::from(N), N);
    let (mut three, mut five) = (3u32, 5u32);
    let (main, bytes) = (stream.cu_stream(), size_of_val(inp));
    // SAFETY: ranges inside the allocation, buffers that outlive the graph.
    unsafe {
        sys::cuMemcpyHtoDAsync_v2(at, inp.as_ptr().cast(), bytes, main).result().unwrap();
        sys::cuMemsetD32Async(at + 4, 100, 2, main).result().unwrap();
        let forked = context.new_event(None).unwrap();
        forked.record(stream).unwrap();
        side.wait(&forked).unwrap();
        launch(add, 3, 32, main, &mut [&mut data, &mut n, &mut three]).unwrap();
        launch(scale, 3, 32, side.cu_stream(), &mut [&mut other, &mut n, &mut five]).unwrap();
        let joined = context.new_event(None).unwrap();
        joined.record(side).unwrap();
        stream.wait(&joined).unwrap();
        launch(scale, 3, 32, main, &mut [&mut data, &mut n, &mut five]).unwrap();
        let counter = std::ptr::from_ref(calls).cast_mut().cast();
        sys::cuLaunchHostFunc(main, Some(count), counter).result().unwrap();
        sys::cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), at, bytes, main).result().unwrap();
    }
}

static MODULE: std::sync::OnceLock<Module> = std::sync::OnceLock::new();

#[test]
fn a_captured_graph_does_what_the_stream_does() {
    let context = context();
    let (stream, side) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let data = stream.alloc_zeros::<u32>(2 * N as usize).unwrap();
    let at = data.device_ptr(&stream).0;
    let mut inp: Vec<u32> = (0..2 * N).map(|i| i * i).collect();
    let (mut direct, mut captured) = (vec![0; inp.len()], vec![0; inp.len()]);
    let calls = AtomicU32::new(0);
    MODULE.get_or_init(Module::load);
    stream.synchronize().unwrap();
    work(&stream, &side, at, &inp, &mut direct, &calls);
    let expected: Vec<u32> = (0..2 * N)
        .map(|i| if i == 1 || i == 2 { 100 } else { i * i })
        .enumerate()
        .map(|(i, x)| if i < N as usize { (x + 3) * 5 } else { x * 5 })
        .collect();
    assert_eq!(direct, expected);
    assert_eq!(calls.swap(0, Ordering::Relaxed), 1);

    stream.begin_capture(THREAD).unwrap();
    assert_eq!(stream.capture_status().unwrap(), State::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    work(&stream, &side, at, &inp, &mut captured, &calls);
    let graph = stream.end_capture(NO_FLAGS).unwrap().expect("a graph");
    assert_eq!(stream.capture_status().unwrap(), State::CU_STREAM_CAPTURE_STATUS_NONE);
    assert!(captured.iter().all(|&x| x == 0) && calls.load(Ordering::Relaxed) == 0, "it ran in the capture");
    let mut count = 0;
    // SAFETY: a live graph and a live local.
    unsafe { sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &mut count) }.result().unwrap();
    assert_eq!(count, 7);
    graph.upload().unwrap();
    graph.launch().unwrap();
    assert_eq!(captured, expected);
    // Copies read their source when they run.
    inp[0] = 7;
    graph.launch().unwrap();
    assert_eq!((captured[0], calls.load(Ordering::Relaxed)), (50, 2));
}

#[test]
fn what_would_wait_for_a_capture_breaks_it() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let unsupported = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    let event = context.new_event(None).unwrap();
    let mut address = 0;
    // SAFETY: live handles.
    let mut waits: [(&str, &mut dyn FnMut() -> CUresult, CUresult); 5] = unsafe {
        [
            ("stream", &mut || sys::cuStreamSynchronize(stream.cu_stream()), unsupported),
            ("query", &mut || sys::cuStreamQuery(stream.cu_stream()), unsupported),
            ("context", &mut || sys::cuCtxSynchronize(), unsupported),
            ("allocation", &mut || sys::cuMemAlloc_v2(&mut address, 16), unsupported),
            (
                "event",
                &mut || {
                    sys::cuEventRecord(event.cu_event(), stream.cu_stream()).result().unwrap();
                    sys::cuEventSynchronize(event.cu_event())
                },
                CUresult::CUDA_ERROR_CAPTURED_EVENT,
            ),
        ]
    };
    for (name, wait, expected) in &mut waits {
        assert_eq!(begin(&stream, THREAD), CUresult::CUDA_SUCCESS);
        assert_eq!(wait(), *expected, "{name}");
        let status = stream.capture_status().unwrap();
        assert_eq!(status, State::CU_STREAM_CAPTURE_STATUS_INVALIDATED, "{name}");
        // SAFETY: a live stream.
        let more = unsafe { sys::cuLaunchHostFunc(stream.cu_stream(), Some(count), std::ptr::null_mut()) };
        assert_eq!(more, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{name}");
        assert_eq!(end(&stream), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{name}");
        stream.synchronize().unwrap();
    }
    // In relaxed mode allocation is the client's risk.
    let mut mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: live locals.
    unsafe {
        sys::cuThreadExchangeStreamCaptureMode(&mut mode).result().unwrap();
        assert_eq!(mode, Mode::CU_STREAM_CAPTURE_MODE_GLOBAL);
        assert_eq!(begin(&stream, THREAD), CUresult::CUDA_SUCCESS);
        let mut address = 0;
        sys::cuMemAlloc_v2(&mut address, 16).result().unwrap();
        sys::cuMemFree_v2(address).result().unwrap();
        assert_eq!(end(&stream), CUresult::CUDA_SUCCESS);
        sys::cuThreadExchangeStreamCaptureMode(&mut mode).result().unwrap();
    }
}

#[test]
fn captures_have_borders() {
    let context = context();
    let [a, b] = [(); 2].map(|()| context.new_stream().unwrap());
    let [first, second] = [(); 2].map(|()| context.new_event(None).unwrap());
    let ok = CUresult::CUDA_SUCCESS;
    // SAFETY: live handles, here and below.
    let record =
        |event: sys::CUevent, stream: &CudaStream| unsafe { sys::cuEventRecord(event, stream.cu_stream()) };
    // SAFETY: as above.
    let wait = |stream: &CudaStream, event: sys::CUevent| unsafe {
        sys::cuStreamWaitEvent(stream.cu_stream(), event, 0)
    };
    let host = |stream: &CudaStream| {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        // SAFETY: a function of a static counter.
        unsafe {
            sys::cuLaunchHostFunc(stream.cu_stream(), Some(count), (&raw const CALLS).cast_mut().cast())
        }
    };

    // Not the default stream; not twice; not the end before the beginning.
    // SAFETY: the default stream is null.
    let legacy = unsafe { sys::cuStreamBeginCapture_v2(std::ptr::null_mut(), THREAD) };
    assert_eq!(legacy, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(end(&a), CUresult::CUDA_ERROR_ILLEGAL_STATE);
    assert_eq!(begin(&a, THREAD), ok);
    assert_eq!(begin(&a, THREAD), CUresult::CUDA_ERROR_ILLEGAL_STATE);

    // Another thread may not end it, and this one still can.
    let (stream, shared) = (a.clone(), context.clone());
    let elsewhere = std::thread::spawn(move || {
        shared.bind_to_thread().unwrap();
        end(&stream)
    });
    assert_eq!(elsewhere.join().unwrap(), CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    assert_eq!(end(&a), ok);

    // An event of the time before.
    assert_eq!(record(first.cu_event(), &b), ok);
    assert_eq!(begin(&a, THREAD), ok);
    assert_eq!(wait(&a, first.cu_event()), CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assert_eq!(end(&a), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    // Two captures cannot be one.
    assert_eq!((begin(&a, THREAD), begin(&b, THREAD)), (ok, ok));
    assert_eq!(record(second.cu_event(), &b), ok);
    assert_eq!(wait(&a, second.cu_event()), CUresult::CUDA_ERROR_STREAM_CAPTURE_MERGE);
    let invalid = CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    assert_eq!((end(&a), end(&b)), (invalid, invalid));

    // A fork that is not joined, and an end on the fork.
    assert_eq!(begin(&a, THREAD), ok);
    assert_eq!((record(first.cu_event(), &a), wait(&b, first.cu_event()), host(&b)), (ok, ok, ok));
    assert_eq!(end(&a), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    assert_eq!(begin(&a, THREAD), ok);
    assert_eq!((record(first.cu_event(), &a), wait(&b, first.cu_event())), (ok, ok));
    assert_eq!(end(&b), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    assert_eq!(end(&a), invalid);
}

#[test]
fn the_default_stream_does_not_wait_for_a_capture() {
    let name = "capture::the_default_stream_does_not_wait_for_a_capture";
    // Any thread's work on the default stream would break this capture.
    if crate::client::in_child(name, &[]).is_some() {
        return;
    }
    let context = context();
    let (mut stream, mut graph, mut address) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: live locals; handles from the driver.
    unsafe {
        sys::cuMemAlloc_v2(&mut address, 16).result().unwrap();
        sys::cuStreamCreate(&mut stream, 0).result().unwrap();
        for global in [false, true] {
            let mode = if global {
                Mode::CU_STREAM_CAPTURE_MODE_GLOBAL
            } else {
                Mode::CU_STREAM_CAPTURE_MODE_RELAXED
            };
            sys::cuStreamBeginCapture_v2(stream, mode).result().unwrap();
            let fill = sys::cuMemsetD8Async(address, 1, 16, std::ptr::null_mut());
            assert_eq!(fill, CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
            let ended = sys::cuStreamEndCapture(stream, &mut graph);
            assert_eq!(ended, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            let fill = sys::cuMemsetD8Async(address, 1, 16, std::ptr::null_mut());
            assert_eq!(fill, CUresult::CUDA_SUCCESS);
        }
        // A global capture forbids other threads, too.
        sys::cuStreamBeginCapture_v2(stream, Mode::CU_STREAM_CAPTURE_MODE_GLOBAL).result().unwrap();
        let shared = context.clone();
        let elsewhere = std::thread::spawn(move || {
            shared.bind_to_thread().unwrap();
            sys::cuMemFree_v2(address)
        });
        assert_eq!(elsewhere.join().unwrap(), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(
            sys::cuStreamEndCapture(stream, &mut graph),
            CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        );
        sys::cuMemFree_v2(address).result().unwrap();
    }
}
