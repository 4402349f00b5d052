//! CTAs that wait for each other, in cooperative launches and in ordinary ones.

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};

use crate::client::{Module, Param, context, in_child};

/// `meet(words, n)`: CTA `i` of `n` writes `i + 1` to word `i`, counts itself at word `n`, waits until all have, and
/// reads its right neighbour's into word `n + 1 + i`. FENCE stands before the count.
const MEET: &str = "\
.version 8.0
.target sm_90
.address_size 64
.visible .entry meet(.param .u64 words, .param .u32 n)
{
    .reg .pred %p;
    .reg .b32 %i, %n, %x, %right;
    .reg .b64 %words, %counter, %at, %offset;
    mov.u32 %x, %tid.x;
    setp.ne.u32 %p, %x, 0;
    @%p bra DONE;
    ld.param.u64 %words, [words];
    ld.param.u32 %n, [n];
    mov.u32 %i, %ctaid.x;
    mul.wide.u32 %offset, %i, 4;
    add.u64 %at, %words, %offset;
    mul.wide.u32 %offset, %n, 4;
    add.u64 %counter, %words, %offset;
    add.u32 %x, %i, 1;
    st.global.u32 [%at], %x;
    FENCE
    red.relaxed.gpu.global.add.u32 [%counter], 1;
WAIT:
    ld.acquire.gpu.global.u32 %x, [%counter];
    setp.lt.u32 %p, %x, %n;
    @%p bra WAIT;
    add.u32 %right, %i, 1;
    rem.u32 %right, %right, %n;
    mul.wide.u32 %offset, %right, 4;
    add.u64 %at, %words, %offset;
    ld.global.u32 %x, [%at];
    mul.wide.u32 %offset, %i, 4;
    add.u64 %at, %counter, %offset;
    st.global.u32 [%at+4], %x;
DONE:
    ret;
}
";

pub fn meet() -> Module {
    Module::of(&MEET.replace("FENCE", "fence.acq_rel.gpu;"))
}

fn launch(
    function: sys::CUfunction,
    [grid, block]: [u32; 2],
    stream: &CudaStream,
    params: &mut [&mut dyn Param],
) -> CUresult {
    let mut pointers: Vec<_> = params.iter_mut().map(|param| param.pointer()).collect();
    let (params, stream) = (pointers.as_mut_ptr(), stream.cu_stream());
    // SAFETY: pointers to as many parameters as the kernel has, of its types.
    unsafe { sys::cuLaunchCooperativeKernel(function, grid, 1, 1, block, 1, 1, 0, stream, params) }
}

/// Zeroed words for `n` CTAs of `meet`, and their address.
pub fn words(stream: &std::sync::Arc<CudaStream>, n: u32) -> (CudaSlice<u32>, u64) {
    let words = stream.alloc_zeros(2 * n as usize + 1).unwrap();
    let address = words.device_ptr(stream).0;
    (words, address)
}

pub fn met(stream: &std::sync::Arc<CudaStream>, words: &CudaSlice<u32>, n: u32) -> bool {
    let neighbours: Vec<u32> = (0..n).map(|i| (i + 1) % n + 1).collect();
    stream.clone_dtoh(words).unwrap()[n as usize + 1..] == neighbours
}

#[test]
fn every_cta_is_there_at_once() {
    let context = context();
    let (module, stream) = (meet(), context.new_stream().unwrap());
    let function = module.function("meet");
    // 32 CTAs on each of 132 multiprocessors are the most.
    for (mut n, block) in [(1, 32), (2, 64), (37, 256), (32 * 132, 32)] {
        let (words, mut address) = words(&stream, n);
        let done = launch(function, [n, block], &stream, &mut [&mut address, &mut n]);
        assert_eq!(done, CUresult::CUDA_SUCCESS, "{n}");
        assert!(met(&stream, &words, n), "{n}");
    }
    let large = CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    let (_words, mut address) = words(&stream, 1);
    for (ctas, block) in [(32 * 132 + 1, 32), (2 * 132 + 1, 1024)] {
        assert_eq!(launch(function, [ctas, block], &stream, &mut [&mut address, &mut 1u32]), large, "{ctas}");
    }
}

/// A kernel that holds 100 values at once, with a bound.
fn crowded(bound: &str) -> Module {
    let each = |line: &dyn Fn(u32) -> String| (0..100).map(line).collect::<String>();
    let loads = each(&|i| format!("ld.global.u32 %r{i}, [%at+{}];\n", 4 * i));
    let sums = each(&|i| format!("add.u32 %sum, %sum, %r{i};\nst.global.u32 [%at+{}], %sum;\n", 4 * i));
    Module::of(&format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 words) {bound}\n{{
        .reg .b32 %r<100>, %sum; .reg .b64 %at;\nld.param.u64 %at, [words];\nmov.u32 %sum, %tid.x;\n{loads}{sums}ret;\n}}\n"
    ))
}

/// `ptxas` gives a kernel no more registers than its bounds leave, so a CTA of as many threads always fits.
#[test]
fn bounds_leave_room_for_their_threads() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let (large, ok) = (CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, CUresult::CUDA_SUCCESS);
    for (bound, registers, block, per_sm) in [
        (".maxntid 1024", 64, 1024, 1),
        (".reqntid 1024", 64, 1024, 1),
        (".maxntid 512 .minnctapersm 3", 40, 512, 3),
        (".maxntid 256", 117, 256, 2),
        (".maxntid 256 .maxnreg 32", 32, 256, 8),
        (".maxnreg 4", 24, 128, 16),
        ("", 117, 128, 4),
    ] {
        let module = crowded(bound);
        let function = module.function("k");
        let (mut found, mut ctas) = (-1, -1);
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS;
        // SAFETY: live locals and a loaded kernel.
        unsafe {
            sys::cuFuncGetAttribute(&mut found, attribute, function).result().unwrap();
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut ctas, function, block as i32, 0)
                .result()
                .unwrap();
        }
        assert_eq!((found, ctas), (registers, per_sm), "{bound}");
        let (_words, mut address) = words(&stream, 100);
        for (grid, wanted) in [(132 * per_sm as u32, ok), (132 * per_sm as u32 + 1, large)] {
            assert_eq!(
                launch(function, [grid, block], &stream, &mut [&mut address]),
                wanted,
                "{bound} {grid}"
            );
        }
    }
}

#[test]
fn an_attribute_and_a_capture_make_cooperative_launches_too() {
    use sys::CUlaunchAttributeID as Id;
    let context = context();
    let (module, stream) = (meet(), context.new_stream().unwrap());
    let mut n = 16;
    let (mut words, mut address) = words(&stream, n);
    // Clusters of four CTAs, which take turns with the other clusters.
    // SAFETY: all zeros is a value of these plain structures.
    let (mut config, mut attributes): (sys::CUlaunchConfig, [sys::CUlaunchAttribute; 2]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    for (attribute, (id, value)) in attributes.iter_mut().zip([
        (Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, [1u32, 0, 0]),
        (Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, [4, 1, 1]),
    ]) {
        attribute.id = id;
        // SAFETY: the value is a union of 64 bytes.
        unsafe { (&raw mut attribute.value).cast::<[u32; 3]>().write(value) };
    }
    (config.gridDimX, config.gridDimY, config.gridDimZ) = (n, 1, 1);
    (config.blockDimX, config.blockDimY, config.blockDimZ) = (32, 1, 1);
    (config.hStream, config.attrs, config.numAttrs) = (stream.cu_stream(), attributes.as_mut_ptr(), 2);
    let mut pointers = [address.pointer(), n.pointer()];
    let (function, none) = (module.function("meet"), std::ptr::null_mut());
    // SAFETY: pointers to the kernel's parameters.
    unsafe { sys::cuLaunchKernelEx(&config, function, pointers.as_mut_ptr(), none) }.result().unwrap();
    assert!(met(&stream, &words, n));

    stream.memset_zeros(&mut words).unwrap();
    let relaxed = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(relaxed).unwrap();
    launch(function, [n, 32], &stream, &mut [&mut address, &mut n]).result().unwrap();
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().expect("a graph");
    graph.launch().unwrap();
    assert!(met(&stream, &words, n));
}

const GRID_SYNC: &str = include_str!("../ptx/grid_sync.ptx");

fn rotate(context: &std::sync::Arc<CudaContext>, ctas: u32) {
    let (module, stream) = (Module::of(GRID_SYNC), context.new_stream().unwrap());
    let (mut n, mut rounds) = (1000u32, 5u32);
    let data = stream.clone_htod(&(0..n).collect::<Vec<u32>>()).unwrap();
    let scratch = stream.alloc_zeros::<u32>(n as usize).unwrap();
    let (mut from, mut to) = (data.device_ptr(&stream).0, scratch.device_ptr(&stream).0);
    let params: &mut [&mut dyn Param] = &mut [&mut from, &mut to, &mut n, &mut rounds];
    launch(module.function("rotate"), [ctas, 64], &stream, params).result().unwrap();
    let expected: Vec<u32> = (0..1000).map(|i| (i + 5) % 1000 + 5).collect();
    assert_eq!(stream.clone_dtoh(&data).unwrap(), expected);
}

#[test]
fn cooperative_groups_meet() {
    let context = context();
    [1, 2, 16, 200].into_iter().for_each(|ctas| rotate(&context, ctas));
}

#[test]
fn the_checks_know_what_orders_a_grid() {
    let name = "cooperative::the_checks_know_what_orders_a_grid";
    let (setting, seeds) = ("VCUDA_CHECK", ["1", "2", "3"]);
    if std::env::var_os("VCUDA_SEED").is_some() {
        let context = context();
        rotate(&context, 16);
        let stream = context.new_stream().unwrap();
        let mut n = 32;
        let (words, mut address) = words(&stream, n);
        let ordered = meet();
        launch(ordered.function("meet"), [n, 64], &stream, &mut [&mut address, &mut n]).result().unwrap();
        assert!(met(&stream, &words, n));
        let broken = Module::of(&MEET.replace("FENCE", ""));
        let found = launch(broken.function("meet"), [n, 64], &stream, &mut [&mut address, &mut n]);
        assert_eq!(found, CUresult::CUDA_SUCCESS);
        assert_eq!(stream.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_LAUNCH_FAILED);
        return;
    }
    for seed in seeds {
        let Some(child) = in_child(name, &[(setting, "all"), ("VCUDA_SEED", seed)]) else { return };
        let text = String::from_utf8_lossy(&child.stderr);
        let found = text.lines().find(|line| line.contains("a race")).expect("a finding");
        assert!(found.contains("meet: a race") && found.contains("of CTA ["), "{found}");
    }
}

#[test]
fn a_plain_launch_has_no_grid_to_wait_for() {
    let Some(child) = in_child("cooperative::a_plain_launch_has_no_grid_to_wait_for", &[]) else {
        let context = context();
        let (module, stream) = (Module::of(GRID_SYNC), context.new_stream().unwrap());
        let words = stream.alloc_zeros::<u32>(1).unwrap();
        let (mut at, mut to) = (words.device_ptr(&stream).0, words.device_ptr(&stream).0);
        let params: &mut [&mut dyn Param] = &mut [&mut at, &mut to, &mut 1u32, &mut 1u32];
        let trapped = crate::client::launch(module.function("rotate"), 2, 64, stream.cu_stream(), params);
        assert_eq!(trapped, Err(CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION));
        return;
    };
    assert!(String::from_utf8_lossy(&child.stderr).contains("rotate: trap"));
}

/// Without checks, and on several host threads.
#[test]
fn a_plain_launch_may_have_a_barrier_of_its_own() {
    let context = context();
    let (module, stream) = (meet(), context.new_stream().unwrap());
    for n in [2, 37, 500] {
        let (words, mut address) = words(&stream, n);
        let params: &mut [&mut dyn Param] = &mut [&mut address, &mut n.clone()];
        crate::client::launch(module.function("meet"), n, 64, stream.cu_stream(), params).unwrap();
        assert!(met(&stream, &words, n), "{n}");
    }
}

#[test]
fn a_plain_launch_that_does_not_fit_cannot_wait_for_all() {
    let name = "cooperative::a_plain_launch_that_does_not_fit_cannot_wait_for_all";
    let settings = [("VCUDA_CHECK", "init"), ("VCUDA_THREADS", "2")];
    let Some(child) = in_child(name, &settings) else {
        let context = context();
        let (module, stream) = (meet(), context.new_stream().unwrap());
        // Two CTAs of 1024 threads are the most on each of 132 multiprocessors.
        for (n, done) in [(264, Ok(())), (265, Err(CUresult::CUDA_ERROR_LAUNCH_TIMEOUT))] {
            let (_words, mut address) = words(&stream, n);
            let params: &mut [&mut dyn Param] = &mut [&mut address, &mut n.clone()];
            let queued = crate::client::launch(module.function("meet"), n, 1024, stream.cu_stream(), params);
            let found = queued.and_then(|()| stream.synchronize().map_err(|error| error.0));
            assert_eq!(found, done, "{n}");
        }
        return;
    };
    let text = String::from_utf8_lossy(&child.stderr);
    for words in
        ["meet: deadlock", "lanes 0x00000001 read global", "1 CTAs have not begun: there is room for 264"]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}
