//! Launches: what is refused before they run, attributes, and the time of an empty one.

use std::time::Instant;

use cudarc::driver::sys::{self, CUresult};

use crate::client::{Module, context, launch};

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

/// Of an empty launch, on an idle machine: the median, which a busy machine moves little.
const LAUNCH_LIMIT_US: f64 = 20.0;

#[test]
fn an_empty_launch_takes_microseconds() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let empty = module.function("empty");
    let mut times_us: Vec<f64> = (0..20_001)
        .map(|_| {
            let start = Instant::now();
            launch(empty, 1, 32, stream.cu_stream(), &mut []).unwrap();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times_us.sort_by(f64::total_cmp);
    let (median, p95) = (times_us[10_000], times_us[19_000]);
    println!("an empty launch: median {median:.2} us, 95% {p95:.2} us");
    assert!(median <= LAUNCH_LIMIT_US, "{median} us");
}
