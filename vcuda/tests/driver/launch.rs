//! Launches: what is refused before they run, attributes, a profiler's attention, and the time of an empty one.

use cudarc::driver::DevicePtr;
use cudarc::driver::sys::{self, CUresult};

use crate::client::{Module, Param, context, launch};

#[test]
fn impossible_launches_are_refused() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let (empty, bounded) = (module.function("empty"), module.function("bounded"));
    let try_launch = |function, grid: [u32; 3], block: [u32; 3], shared_bytes| {
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        let (params, stream) = (std::ptr::null_mut(), stream.cu_stream());
        // SAFETY: kernels without parameters.
        unsafe { sys::cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared_bytes, stream, params, params) }
    };
    let invalid = CUresult::CUDA_ERROR_INVALID_VALUE;
    assert_eq!(try_launch(empty, [1, 1, 1], [1024, 1, 1], 0), CUresult::CUDA_SUCCESS);
    assert_eq!(try_launch(empty, [0, 1, 1], [32, 1, 1], 0), invalid);
    assert_eq!(try_launch(empty, [1, 1, 1], [0, 1, 1], 0), invalid);
    assert_eq!(try_launch(empty, [1, 65_536, 1], [32, 1, 1], 0), invalid);
    assert_eq!(try_launch(empty, [1, 1, 1], [1025, 1, 1], 0), invalid);
    assert_eq!(try_launch(empty, [1, 1, 1], [1, 1, 65], 0), invalid);
    assert_eq!(try_launch(empty, [1, 1, 1], [64, 64, 1], 0), invalid);
    assert_eq!(try_launch(empty, [1, 1, 1], [32, 1, 1], (48 << 10) + 1), invalid);
    assert_eq!(try_launch(bounded, [1, 1, 1], [65, 1, 1], 0), invalid);
    assert_eq!(
        try_launch(std::ptr::null_mut(), [1, 1, 1], [1, 1, 1], 0),
        CUresult::CUDA_ERROR_INVALID_HANDLE
    );
    // A kernel with parameters, and none given.
    assert_eq!(try_launch(module.function("add"), [1, 1, 1], [1, 1, 1], 0), invalid);
}

#[test]
fn launch_attributes_are_accepted_or_refused() {
    use sys::CUlaunchAttributeID as Id;
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let try_launch = |id: Id, value: [u32; 3]| {
        // SAFETY: all zeros is a value of these plain structures.
        let (mut config, mut attribute): (sys::CUlaunchConfig, sys::CUlaunchAttribute) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        attribute.id = id;
        // SAFETY: the value is a union of 64 bytes.
        unsafe { (&raw mut attribute.value).cast::<[u32; 3]>().write(value) };
        (config.gridDimX, config.gridDimY, config.gridDimZ) = (4, 1, 1);
        (config.blockDimX, config.blockDimY, config.blockDimZ) = (32, 1, 1);
        (config.hStream, config.attrs, config.numAttrs) = (stream.cu_stream(), &mut attribute, 1);
        let none = std::ptr::null_mut();
        // SAFETY: a kernel without parameters.
        unsafe { sys::cuLaunchKernelEx(&config, module.function("empty"), none, none) }
    };
    let cluster = Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    let cases = [
        (Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, [1, 0, 0], CUresult::CUDA_SUCCESS),
        (Id::CU_LAUNCH_ATTRIBUTE_PRIORITY, [1, 0, 0], CUresult::CUDA_SUCCESS),
        (Id::CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN, [1, 0, 0], CUresult::CUDA_SUCCESS),
        (Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, [0, 0, 0], CUresult::CUDA_SUCCESS),
        (Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, [1, 0, 0], CUresult::CUDA_SUCCESS),
        (cluster, [2, 1, 1], CUresult::CUDA_SUCCESS),
        (cluster, [3, 1, 1], CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE),
        (Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT, [0, 0, 0], CUresult::CUDA_ERROR_NOT_SUPPORTED),
    ];
    for (id, value, expected) in cases {
        assert_eq!(try_launch(id, value), expected, "{id:?} {value:?}");
    }
}

/// `counted`: clusters of two CTAs of 64 threads, in which a grid is counted; `named`: needs a cluster; `few`: four
/// CTAs at most. Each CTA counts itself.
const CLUSTERS: &str = "\
.version 9.0
.target sm_90
.address_size 64
.visible .entry counted(.param .u64 ctas) .reqntid 64 .reqnctapercluster 2 .blocksareclusters { BODY }
.visible .entry named(.param .u64 ctas) .explicitcluster { BODY }
.visible .entry few(.param .u64 ctas) .maxclusterrank 4 { BODY }
";
const BODY: &str = ".reg .pred %p; .reg .b32 %x; .reg .b64 %at; ld.param.u64 %at, [ctas]; mov.u32 %x, %tid.x;
    setp.ne.u32 %p, %x, 0; @%p ret; red.global.add.u32 [%at], 1; ret;";

#[test]
fn kernels_that_say_what_their_clusters_are() {
    use sys::CUfunction_attribute as Attribute;
    let context = context();
    let (module, stream) = (Module::of(&CLUSTERS.replace("BODY", BODY)), context.new_stream().unwrap());
    // The CTAs that a launch has run; a cluster of 0 says nothing of one.
    let run = |name: &str, grid: u32, block: u32, cluster: u32| {
        let ctas = stream.alloc_zeros::<u32>(1).unwrap();
        let mut address = ctas.device_ptr(&stream).0;
        let mut params = [address.pointer()];
        // SAFETY: all zeros is a value of these plain structures.
        let (mut config, mut attribute): (sys::CUlaunchConfig, sys::CUlaunchAttribute) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        // SAFETY: the value is a union of 64 bytes.
        unsafe { (&raw mut attribute.value).cast::<[u32; 3]>().write([cluster, 1, 1]) };
        (config.gridDimX, config.gridDimY, config.gridDimZ) = (grid, 1, 1);
        (config.blockDimX, config.blockDimY, config.blockDimZ) = (block, 1, 1);
        (config.hStream, config.attrs) = (stream.cu_stream(), &mut attribute);
        config.numAttrs = u32::from(cluster > 0);
        let (function, none) = (module.function(name), std::ptr::null_mut());
        // SAFETY: a pointer to the kernel's parameter.
        unsafe { sys::cuLaunchKernelEx(&config, function, params.as_mut_ptr(), none) }.result()?;
        Ok(stream.clone_dtoh(&ctas).unwrap()[0])
    };
    let size = Err(CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
    let invalid = Err(CUresult::CUDA_ERROR_INVALID_VALUE);
    let cases = [
        ("counted", 3, 64, 0, Ok(6)),
        ("counted", 3, 64, 2, Ok(6)),
        ("counted", 4, 64, 4, size),
        ("counted", 4, 64, 1, size),
        ("counted", 4, 32, 0, invalid),
        ("counted", (1 << 30) + 1, 64, 0, invalid),
        ("named", 4, 32, 0, size),
        ("named", 4, 32, 1, Ok(4)),
        ("named", 4, 32, 2, Ok(4)),
        ("few", 8, 32, 0, Ok(8)),
        ("few", 8, 32, 4, Ok(8)),
        ("few", 8, 32, 8, size),
        // More than are portable.
        ("named", 16, 32, 16, size),
    ];
    for (name, grid, block, cluster, wanted) in cases {
        let found = run(name, grid, block, cluster).map_err(|error: cudarc::driver::DriverError| error.0);
        assert_eq!(found, wanted, "{name} {grid} {block} {cluster}");
    }
    allow_large_clusters(module.function("named"));
    assert_eq!(run("named", 16, 32, 16).unwrap(), 16);

    let attribute = |name: &str, attribute| {
        let mut value = -1;
        // SAFETY: a live local, and a loaded kernel.
        unsafe { sys::cuFuncGetAttribute(&mut value, attribute, module.function(name)) }.result().unwrap();
        value
    };
    let must = Attribute::CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET;
    let width = Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH;
    let found = ["counted", "named", "few"].map(|name| (attribute(name, must), attribute(name, width)));
    assert_eq!(found, [(0, 2), (1, 0), (0, 0)]);
    // SAFETY: as above; the configuration is all zeros but for its block.
    let largest = ["counted", "named", "few"].map(|name| unsafe {
        let config = sys::CUlaunchConfig { blockDimX: 64, blockDimY: 1, blockDimZ: 1, ..std::mem::zeroed() };
        let mut ctas = -1;
        sys::cuOccupancyMaxPotentialClusterSize(&mut ctas, module.function(name), &config).result().unwrap();
        ctas
    });
    assert_eq!(largest, [2, 16, 4]);
}

fn allow_large_clusters(function: sys::CUfunction) {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
    // SAFETY: a loaded kernel.
    unsafe { sys::cuFuncSetAttribute(function, attribute, 1) }.result().unwrap();
}

#[test]
fn clusters_are_counted_by_what_fits() {
    let context = context();
    let module = Module::load();
    let count = |name: &str, cluster: u32, block: u32, shared_bytes: u32| {
        // SAFETY: all zeros is a value of these plain structures.
        let (mut config, mut attribute): (sys::CUlaunchConfig, sys::CUlaunchAttribute) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        // SAFETY: the value is a union of 64 bytes.
        unsafe { (&raw mut attribute.value).cast::<[u32; 3]>().write([cluster, 1, 1]) };
        (config.gridDimX, config.gridDimY, config.gridDimZ) = (48, 1, 1);
        (config.blockDimX, config.blockDimY, config.blockDimZ) = (block, 1, 1);
        (config.sharedMemBytes, config.attrs, config.numAttrs) = (shared_bytes, &mut attribute, 1);
        let mut count = -1;
        // SAFETY: live locals.
        let result = unsafe { sys::cuOccupancyMaxActiveClusters(&mut count, module.function(name), &config) };
        (result, count)
    };
    let ok = CUresult::CUDA_SUCCESS;
    // 8 groups of 16 multiprocessors hold 2048 threads, 228 KiB each.
    assert_eq!(count("empty", 4, 1024, 0), (ok, 8 * 16 * 2 / 4));
    assert_eq!(count("empty", 16, 256, 100 << 10).0, CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
    allow_large_clusters(module.function("empty"));
    assert_eq!(count("empty", 16, 256, 100 << 10), (ok, 8 * 16 * 2 / 16));
    assert_eq!(count("empty", 2, 32, 228 << 10), (ok, 0));
    assert_eq!(count("empty", 2, 2048, 0), (ok, 0));
    assert_eq!(count("bounded", 2, 65, 0), (ok, 0));
    assert_eq!(count("empty", 5, 32, 0).0, CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
    assert_eq!(count("empty", 24, 32, 0).0, CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
    // Sizes beyond all reason fit nowhere.
    let (mut most, empty) = (-1, module.function("empty"));
    // SAFETY: a live local.
    let all =
        unsafe { sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut most, empty, i32::MAX, usize::MAX) };
    assert_eq!((all, most), (ok, 0));
    // SAFETY: as above.
    let shared =
        unsafe { sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut most, empty, 32, usize::MAX - 1023) };
    assert_eq!((shared, most), (ok, 0));
    drop(context);
}

#[test]
fn nothing_changes_where_a_profiler_is_told_to_look() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let words = stream.clone_htod(&[1u32]).unwrap();
    let mut address = words.device_ptr(&stream).0;
    // SAFETY: nothing is passed.
    let [start, stop] = [|| unsafe { sys::cuProfilerStart() }, || unsafe { sys::cuProfilerStop() }];
    for tell in [stop, start, start, stop, stop] {
        assert_eq!(tell(), CUresult::CUDA_SUCCESS);
        let arguments: &mut [&mut dyn Param] = &mut [&mut address, &mut 1u32, &mut 1u32];
        launch(module.function("add"), 1, 32, stream.cu_stream(), arguments).unwrap();
    }
    assert_eq!(stream.clone_dtoh(&words).unwrap(), [6]);
    // SAFETY: no context is one; this thread's is put back.
    unsafe {
        sys::cuCtxSetCurrent(std::ptr::null_mut()).result().unwrap();
        assert_eq!([start(), stop()], [CUresult::CUDA_ERROR_INVALID_CONTEXT; 2]);
        sys::cuCtxSetCurrent(context.cu_ctx()).result().unwrap();
    }
}

/// Stores what is in a register and in shared memory, both of which lanes below 9 have written, and all write afterwards.
const LEFTOVERS: &str = "\
.version 9.0
.target sm_90
.address_size 64
.visible .entry leftovers(.param .u64 out) {
    .reg .pred %p; .reg .b32 %x, %y, %lane, %mine; .reg .b64 %at, %offset; .shared .align 4 .b8 words[128];
    ld.param.u64 %at, [out]; mov.u32 %lane, %laneid; mul.wide.u32 %offset, %lane, 8; add.u64 %at, %at, %offset;
    mov.u32 %mine, words; mad.lo.u32 %mine, %lane, 4, %mine; setp.ge.u32 %p, %lane, 9; @%p bra REST;
    mov.u32 %x, 7; st.shared.u32 [%mine], 8;
REST:
    ld.shared.u32 %y, [%mine]; st.global.u32 [%at], %x; st.global.u32 [%at + 4], %y;
    add.u32 %x, %lane, 1; st.shared.u32 [%mine], %x; ret;
}
";

#[test]
fn a_launch_finds_nothing_of_those_before_it() {
    let context = context();
    let (module, stream) = (Module::of(LEFTOVERS), context.new_stream().unwrap());
    let found = stream.alloc_zeros::<u32>(64).unwrap();
    for _ in 0..3 {
        let mut address = found.device_ptr(&stream).0;
        launch(module.function("leftovers"), 1, 32, stream.cu_stream(), &mut [&mut address]).unwrap();
        let words = stream.clone_dtoh(&found).unwrap();
        for (lane, words) in words.chunks(2).enumerate() {
            assert_eq!(words, if lane < 9 { [7, 8] } else { [u32::MAX; 2] }, "lane {lane}");
        }
    }
}
