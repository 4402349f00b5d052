//! Work on streams where a check or a seed is asked for: it waits, runs in any order that the API leaves open, and the race
//! check says what nothing orders.

use std::ffi::c_void;
use std::process::Output;

use cudarc::driver::sys::{self, CUevent, CUresult, CUstream};

use crate::client::{Module, context, in_child, launch};

const FAILED: CUresult = CUresult::CUDA_ERROR_LAUNCH_FAILED;
const NOT_READY: CUresult = CUresult::CUDA_ERROR_NOT_READY;
const BLOCKING: u32 = 0;
const NON_BLOCKING: u32 = 1;

/// The primary context, its kernels, and two streams.
struct Client {
    _context: std::sync::Arc<cudarc::driver::CudaContext>,
    module: Module,
    streams: [CUstream; 2],
}

impl Client {
    fn new(flags: u32) -> Client {
        let (context, mut streams) = (context(), [std::ptr::null_mut(); 2]);
        for stream in &mut streams {
            // SAFETY: a live local.
            unsafe { sys::cuStreamCreate(stream, flags) }.result().unwrap();
        }
        Client { _context: context, module: Module::load(), streams }
    }

    /// The word there becomes word + k or word * k.
    fn queue(&self, name: &str, stream: CUstream, mut at: u64, mut k: u32) {
        let function = self.module.function(name);
        launch(function, 1, 32, stream, &mut [&mut at, &mut 1u32, &mut k]).unwrap();
    }
}

fn synchronize() -> CUresult {
    // SAFETY: nothing is passed.
    unsafe { sys::cuCtxSynchronize() }
}

/// A word of the device's.
fn word(value: u32) -> u64 {
    let mut address = 0;
    // SAFETY: a live local, and as many bytes.
    unsafe {
        sys::cuMemAlloc_v2(&mut address, 4).result().unwrap();
        sys::cuMemsetD32_v2(address, value, 1).result().unwrap();
    }
    assert_eq!(synchronize(), CUresult::CUDA_SUCCESS);
    address
}

fn read(address: u64) -> u32 {
    let mut word = 0u32;
    // SAFETY: as many bytes.
    unsafe { sys::cuMemcpyDtoH_v2((&raw mut word).cast(), address, 4) }.result().unwrap();
    word
}

fn event() -> CUevent {
    let mut event = std::ptr::null_mut();
    // SAFETY: a live local.
    unsafe { sys::cuEventCreate(&mut event, 0) }.result().unwrap();
    event
}

/// What is asked of the second stream later comes after all that the first has been asked for.
fn order(first: CUstream, second: CUstream) {
    let event = event();
    // SAFETY: live handles.
    unsafe {
        sys::cuEventRecord(event, first).result().unwrap();
        sys::cuStreamWaitEvent(second, event, 0).result().unwrap();
        sys::cuEventDestroy_v2(event).result().unwrap();
    }
}

/// Page-locked memory of one word.
fn pinned(value: u32) -> *mut u32 {
    let mut host = std::ptr::null_mut();
    // SAFETY: a live local; as many bytes.
    unsafe {
        sys::cuMemHostAlloc(&mut host, 4, 0).result().unwrap();
        host.cast::<u32>().write(value);
    }
    host.cast()
}

/// Runs a test in a process of its own for each of these seeds.
fn in_children(name: &str, check: &str, seeds: std::ops::Range<u32>) -> Option<Vec<Output>> {
    seeds.map(|seed| in_child(name, &[("VCUDA_CHECK", check), ("VCUDA_SEED", &seed.to_string())])).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_nothing_orders_runs_in_any_order() {
    let name = "streams::what_nothing_orders_runs_in_any_order";
    let Some(children) = in_children(name, "memory", 0..12) else {
        let client = Client::new(NON_BLOCKING);
        let at = word(1);
        client.queue("add", client.streams[0], at, 1);
        client.queue("scale", client.streams[1], at, 10);
        assert_eq!(synchronize(), CUresult::CUDA_SUCCESS);
        println!("result {}", read(at));
        return;
    };
    let results: std::collections::BTreeSet<String> = children
        .iter()
        .map(|child| {
            let text = String::from_utf8_lossy(&child.stdout).into_owned();
            text.lines().find_map(|line| Some(line.split_once("result ")?.1.to_string())).unwrap()
        })
        .collect();
    assert_eq!(results.into_iter().collect::<Vec<_>>(), ["11", "20"]);
}

#[test]
fn every_order_of_the_api_holds() {
    let name = "streams::every_order_of_the_api_holds";
    let Some(children) = in_children(name, "all", 0..6) else {
        // Blocking streams, and the default one among them; a check of races is on.
        let client = Client::new(BLOCKING);
        let [a, b] = client.streams;
        let (at, mut expected) = (word(1), 1u32);
        for round in 0..10 {
            client.queue("add", a, at, round);
            client.queue("scale", a, at, 3);
            order(a, b);
            client.queue("add", b, at, 7);
            client.queue("scale", std::ptr::null_mut(), at, 5);
            client.queue("add", a, at, 1);
            assert_eq!(wait(a), CUresult::CUDA_SUCCESS);
            client.queue("scale", b, at, 3);
            order(b, a);
            expected = ((expected + round) * 3 + 7).wrapping_mul(5).wrapping_add(1).wrapping_mul(3);
        }
        assert_eq!(read(at), expected);
        // Per-thread default streams are streams like others.
        let own = 2 as CUstream;
        client.queue("add", own, at, 1);
        order(own, a);
        client.queue("scale", a, at, 2);
        assert_eq!(read(at), expected.wrapping_add(1).wrapping_mul(2));
        // SAFETY: allocated above.
        unsafe { sys::cuMemFree_v2(at) }.result().unwrap();
        return;
    };
    children.iter().for_each(|child| assert!(!said(child).contains("vcuda:"), "{}", said(child)));
}

fn wait(stream: CUstream) -> CUresult {
    // SAFETY: a live stream.
    unsafe { sys::cuStreamSynchronize(stream) }
}

#[test]
fn a_missing_wait_is_a_race() {
    let name = "streams::a_missing_wait_is_a_race";
    let Some(children) = in_children(name, "race", 0..6) else {
        let client = Client::new(NON_BLOCKING);
        let at = word(1);
        client.queue("add", client.streams[0], at, 1);
        client.queue("scale", client.streams[1], at, 10);
        assert_eq!(synchronize(), FAILED);
        return;
    };
    for text in children.iter().map(said) {
        let finding = text.lines().find(|line| line.contains("vcuda: race: ")).unwrap_or_default();
        for part in ["kernel add", "kernel scale"] {
            let other = part.trim_start_matches("kernel ");
            assert!(finding.contains(part) || finding.contains(&format!("race: {other}:")), "{text}");
        }
        assert!(
            finding.matches("on stream 0x").count() == 2 && finding.matches("PTX line").count() == 2,
            "{text}"
        );
    }
}

#[test]
fn the_legacy_stream_does_not_wait_for_those_that_say_no() {
    let name = "streams::the_legacy_stream_does_not_wait_for_those_that_say_no";
    let Some(children) = in_children(name, "race", 0..4) else {
        let client = Client::new(NON_BLOCKING);
        let at = word(1);
        client.queue("add", client.streams[0], at, 1);
        // SAFETY: as many bytes. Fills do not wait for the host, nor it for them.
        unsafe { sys::cuMemsetD32_v2(at, 5, 1) }.result().unwrap();
        assert_eq!(synchronize(), FAILED);
        return;
    };
    for text in children.iter().map(said) {
        assert!(text.contains("a fill on the default stream") && text.contains("add"), "{text}");
    }
}

#[test]
fn copies_race_like_kernels() {
    let name = "streams::copies_race_like_kernels";
    let Some(children) = in_children(name, "race", 0..4) else {
        let client = Client::new(NON_BLOCKING);
        let [a, b] = client.streams;
        let (at, host) = (word(1), pinned(0));
        // SAFETY: as many bytes on both sides.
        unsafe {
            sys::cuMemcpyDtoHAsync_v2(host.cast(), at, 4, a).result().unwrap();
            client.queue("add", a, at, 1);
            order(a, b);
            // Two reads are no race.
            sys::cuMemcpyDtoHAsync_v2(host.cast(), at, 4, b).result().unwrap();
            client.queue("add", b, at, 1);
            assert_eq!(synchronize(), CUresult::CUDA_SUCCESS);
            assert_eq!(host.read(), 2);
            // Two copies to one place on the host are one.
            sys::cuMemcpyDtoHAsync_v2(host.cast(), at, 4, a).result().unwrap();
            sys::cuMemcpyDtoHAsync_v2(host.cast(), at, 4, b).result().unwrap();
        }
        assert_eq!(synchronize(), FAILED);
        return;
    };
    for text in children.iter().map(said) {
        assert_eq!(text.matches("a copy to the host on stream 0x").count(), 2, "{text}");
    }
}

#[test]
fn the_hosts_memory_is_read_when_the_api_says() {
    let name = "streams::the_hosts_memory_is_read_when_the_api_says";
    let Some(children) = in_children(name, "memory", 0..4) else {
        let client = Client::new(NON_BLOCKING);
        let [a, _] = client.streams;
        let [at, to] = [word(1), word(0)];
        let (host, mut pageable) = (pinned(5), 7u32);
        // SAFETY: as many bytes on both sides.
        unsafe {
            // Pageable memory is read before the call returns, and written before it does.
            sys::cuMemcpyHtoDAsync_v2(at, (&raw const pageable).cast(), 4, a).result().unwrap();
            (&raw mut pageable).write_volatile(8);
            client.queue("add", a, at, 1);
            sys::cuMemcpyDtoHAsync_v2((&raw mut pageable).cast(), at, 4, a).result().unwrap();
            assert_eq!((&raw const pageable).read_volatile(), 8);
            // Page-locked memory is read when the copy runs: here when the host waits.
            sys::cuMemcpyHtoDAsync_v2(to, host.cast(), 4, a).result().unwrap();
            host.write_volatile(6);
            assert_eq!(synchronize(), CUresult::CUDA_SUCCESS);
            assert_eq!(read(to), 6);
        }
        return;
    };
    drop(children);
}

#[test]
fn streams_and_events_can_be_asked() {
    let name = "streams::streams_and_events_can_be_asked";
    let Some(_) = in_children(name, "memory", 0..2) else {
        let client = Client::new(NON_BLOCKING);
        let [a, b] = client.streams;
        let (at, event, mut milliseconds) = (word(1), event(), 0f32);
        // SAFETY: live handles.
        unsafe {
            assert_eq!(sys::cuEventQuery(event), CUresult::CUDA_SUCCESS, "never recorded");
            sys::cuEventRecord(event, a).result().unwrap();
            let start = event;
            let end = self::event();
            for _ in 0..10 {
                client.queue("add", a, at, 1);
            }
            sys::cuEventRecord(end, a).result().unwrap();
            assert_eq!(sys::cuEventElapsedTime_v2(&mut milliseconds, start, end), NOT_READY);
            assert_eq!(sys::cuStreamQuery(b), CUresult::CUDA_SUCCESS);
            assert_eq!(sys::cuStreamQuery(a), NOT_READY);
            let mut asked = 0;
            while sys::cuEventQuery(end) == NOT_READY {
                asked += 1;
            }
            assert!((1..20).contains(&asked), "{asked} times");
            assert_eq!(sys::cuStreamQuery(a), CUresult::CUDA_SUCCESS);
            sys::cuEventElapsedTime_v2(&mut milliseconds, start, end).result().unwrap();
            assert!(milliseconds >= 0.0);
            assert_eq!(read(at), 11);
        }
        return;
    };
}

/// Marks a word of the host's.
unsafe extern "C" fn mark(data: *mut c_void) {
    // SAFETY: the word that was queued with it.
    unsafe { *data.cast::<u32>() += 1 };
}

#[test]
fn host_functions_have_their_turn() {
    let name = "streams::host_functions_have_their_turn";
    let Some(children) = in_children(name, "race", 0..4) else {
        let client = Client::new(NON_BLOCKING);
        let [a, _] = client.streams;
        let (at, host) = (word(1), pinned(4));
        // SAFETY: live locals, which last until the host has waited.
        unsafe {
            client.queue("add", a, at, 1);
            sys::cuLaunchHostFunc(a, Some(mark), host.cast()).result().unwrap();
            sys::cuMemcpyHtoDAsync_v2(at, host.cast(), 4, a).result().unwrap();
            assert_eq!(host.read_volatile(), 4, "not yet");
            assert_eq!(wait(a), CUresult::CUDA_SUCCESS);
            assert_eq!((host.read(), read(at)), (5, 5));
            // A host that waits for memory to change gets on, too.
            sys::cuLaunchHostFunc(a, Some(mark), host.cast()).result().unwrap();
            while host.read_volatile() == 5 {
                std::thread::yield_now();
            }
        }
        return;
    };
    children.iter().for_each(|child| assert!(!said(child).contains("race"), "{}", said(child)));
}

#[test]
fn a_fault_comes_out_where_the_host_waits() {
    let name = "streams::a_fault_comes_out_where_the_host_waits";
    let Some(_) = in_children(name, "memory", 0..2) else {
        let client = Client::new(NON_BLOCKING);
        let [a, b] = client.streams;
        let (mut wild, illegal) = (16u64, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        let empty = client.module.function("empty");
        launch(client.module.function("wild"), 1, 1, a, &mut [&mut wild]).unwrap();
        launch(empty, 1, 1, b, &mut []).unwrap();
        assert_eq!(wait(a), illegal);
        assert_eq!(launch(empty, 1, 1, b, &mut []), Err(illegal));
        return;
    };
}

#[test]
fn memory_comes_and_goes_in_stream_order() {
    let name = "streams::memory_comes_and_goes_in_stream_order";
    let Some(children) = in_children(name, "all", 0..4) else {
        let client = Client::new(NON_BLOCKING);
        let [a, b] = client.streams;
        for round in 0..20 {
            let mut at = 0;
            // SAFETY: a live local, and as many bytes.
            unsafe {
                sys::cuMemAllocAsync(&mut at, 4, a).result().unwrap();
                sys::cuMemsetD32Async(at, round, 1, a).result().unwrap();
                order(a, b);
                client.queue("add", b, at, 1);
                sys::cuMemFreeAsync(at, b).result().unwrap();
                assert_eq!(sys::cuMemFreeAsync(at, b), CUresult::CUDA_ERROR_INVALID_VALUE);
            }
            if round % 7 == 0 {
                assert_eq!(wait(b), CUresult::CUDA_SUCCESS);
            }
        }
        assert_eq!(synchronize(), CUresult::CUDA_SUCCESS);
        return;
    };
    for text in children.iter().map(said) {
        assert!(!text.contains("race") && !text.contains("leak"), "{text}");
    }
}

#[test]
fn a_graphs_branches_run_in_any_order_and_race() {
    let name = "streams::a_graphs_branches_run_in_any_order_and_race";
    let Some(children) = in_children(name, "race", 0..4) else {
        let client = Client::new(NON_BLOCKING);
        let [a, b] = client.streams;
        let (at, other) = (word(1), word(1));
        let capture = |fork: bool, last: u64| {
            let (mut graph, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut());
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            // SAFETY: live locals and handles.
            unsafe {
                sys::cuStreamBeginCapture_v2(a, mode).result().unwrap();
                client.queue("add", a, at, 1);
                order(a, b);
                client.queue("scale", b, last, 3);
                if !fork {
                    order(b, a);
                }
                client.queue("add", a, at, 2);
                order(b, a);
                client.queue("scale", a, at, 2);
                sys::cuStreamEndCapture(a, &mut graph).result().unwrap();
                sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result().unwrap();
                sys::cuGraphDestroy(graph).result().unwrap();
            }
            exec
        };
        let launch = |exec| {
            // SAFETY: an instance that lives.
            unsafe { sys::cuGraphLaunch(exec, a) }.result().unwrap();
            synchronize()
        };
        assert_eq!(launch(capture(true, other)), CUresult::CUDA_SUCCESS);
        assert_eq!(launch(capture(false, at)), CUresult::CUDA_SUCCESS);
        assert_eq!((read(at), read(other)), ((((1 + 1 + 2) * 2 + 1) * 3 + 2) * 2, 3));
        let racing = capture(true, at);
        assert_eq!(launch(racing), FAILED);
        return;
    };
    for text in children.iter().map(said) {
        assert!(text.contains("race: ") && text.contains("scale") && text.contains("add"), "{text}");
    }
}

#[test]
fn what_is_queued_to_be_freed_can_be_had_again() {
    let name = "streams::what_is_queued_to_be_freed_can_be_had_again";
    let settings = [("VCUDA_CHECK", "memory"), ("VCUDA_MEMORY_BYTES", "65536")];
    let Some(_) = in_child(name, &settings) else {
        let client = Client::new(NON_BLOCKING);
        let [a, b] = client.streams;
        let (mut at, mut wild) = (0, 16u64);
        // SAFETY: a live local.
        unsafe {
            for _ in 0..10 {
                sys::cuMemAllocAsync(&mut at, 40_000, a).result().unwrap();
                sys::cuMemFreeAsync(at, a).result().unwrap();
            }
            // Also where a fault comes before.
            sys::cuMemAllocAsync(&mut at, 40_000, b).result().unwrap();
            launch(client.module.function("wild"), 1, 1, b, &mut [&mut wild]).unwrap();
            sys::cuMemFreeAsync(at, b).result().unwrap();
            assert_eq!(synchronize(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
            sys::cuDevicePrimaryCtxReset_v2(0).result().unwrap();
            sys::cuMemAlloc_v2(&mut at, 40_000).result().unwrap();
        }
        return;
    };
}
