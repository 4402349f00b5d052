//! A CUDA driver opened by path, such as `libcuda.so.1`: load PTX, copy buffers in, launch, copy them out.

use crate::device::{Map, Setup, Shape, VALUE};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

type Status = c_int;
type Pointer = u64;

macro_rules! driver_functions {
    ($($name:ident: $symbol:literal ($($arg:ty),*);)*) => {
        struct Functions { $($name: unsafe extern "C" fn($($arg),*) -> Status,)* }

        impl Functions {
            fn load(library: *mut c_void) -> Functions {
                Functions { $($name: {
                    // SAFETY: `library` is a handle that dlopen returned, and the name ends in NUL.
                    let symbol = unsafe { libc::dlsym(library, concat!($symbol, "\0").as_ptr().cast()) };
                    assert!(!symbol.is_null(), "the driver has no {}", $symbol);
                    // SAFETY: the CUDA driver API gives the symbol of this name this signature.
                    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) -> Status>(symbol) }
                },)* }
            }
        }
    };
}

driver_functions! {
    init: "cuInit" (c_uint);
    error_name: "cuGetErrorName" (Status, *mut *const c_char);
    device_get: "cuDeviceGet" (*mut c_int, c_int);
    retain_context: "cuDevicePrimaryCtxRetain" (*mut *mut c_void, c_int);
    set_context: "cuCtxSetCurrent" (*mut c_void);
    synchronize: "cuCtxSynchronize" ();
    load_module: "cuModuleLoadData" (*mut *mut c_void, *const c_void);
    unload_module: "cuModuleUnload" (*mut c_void);
    get_function: "cuModuleGetFunction" (*mut *mut c_void, *mut c_void, *const c_char);
    allocate: "cuMemAlloc_v2" (*mut Pointer, usize);
    free: "cuMemFree_v2" (Pointer);
    to_device: "cuMemcpyHtoD_v2" (Pointer, *const c_void, usize);
    to_host: "cuMemcpyDtoH_v2" (*mut c_void, Pointer, usize);
    launch: "cuLaunchKernel" (*mut c_void, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint,
                              *mut c_void, *mut *mut c_void, *mut *mut c_void);
    launch_with: "cuLaunchKernelEx" (*const LaunchConfig, *mut c_void, *mut *mut c_void, *mut *mut c_void);
    encode_map: "cuTensorMapEncodeTiled" (*mut EncodedMap, c_uint, c_uint, Pointer, *const u64, *const u64,
                                          *const u32, *const u32, c_uint, c_uint, c_uint, c_uint);
}

/// `CUlaunchConfig`, with the one attribute that these tests use.
#[repr(C)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: *mut c_void,
    attributes: *const Attribute,
    attribute_count: c_uint,
}

/// `CUlaunchAttribute` with a `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`.
#[repr(C, align(8))]
struct Attribute {
    id: c_uint,
    pad: c_uint,
    cluster: [c_uint; 3],
    rest: [c_uint; 13],
}

const CLUSTER_DIMENSION: c_uint = 4;

/// `CUtensorMap`.
#[repr(C, align(64))]
struct EncodedMap([u8; 128]);

struct Driver {
    functions: Functions,
    context: *mut c_void,
}

// SAFETY: the driver API is thread-safe, and contexts belong to no thread until made current.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

fn driver(path: &str) -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let name = CString::new(path).expect("a path without NUL");
        // SAFETY: opening a CUDA driver runs only its own start-up code.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "cannot open the driver {path}");
        let functions = Functions::load(library);
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointers are to live locals of the types that the API documents.
        unsafe {
            let mut device = 0;
            check(&functions, "cuInit", (functions.init)(0)).expect("a driver that starts");
            check(&functions, "cuDeviceGet", (functions.device_get)(&mut device, 0)).expect("a device");
            let status = (functions.retain_context)(&mut context, device);
            check(&functions, "cuDevicePrimaryCtxRetain", status).expect("a context");
        }
        Driver { functions, context }
    })
}

fn check(functions: &Functions, call: &str, status: Status) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    let mut name = std::ptr::null();
    // SAFETY: `name` is a live local; the driver points it to a static string or leaves it alone.
    let name = unsafe {
        (functions.error_name)(status, &mut name);
        if name.is_null() { "unknown".into() } else { CStr::from_ptr(name).to_string_lossy() }
    };
    Err(format!("{call}: {name} ({status})"))
}

/// As [`crate::device::run`], on the driver at `path`.
pub fn run(
    path: &str,
    ptx: &str,
    name: &str,
    shape: Shape,
    setup: &Setup,
    buffers: &mut [Vec<u8>],
) -> Result<(), String> {
    let Driver { functions, context } = driver(path);
    let text = CString::new(ptx).map_err(|_| "PTX with a NUL".to_string())?;
    let kernel = CString::new(name).map_err(|_| "a name with a NUL".to_string())?;
    let call = |what: &str, status: Status| check(functions, what, status);
    let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mut addresses = vec![0; buffers.len()];
    // SAFETY: every pointer is to a live local or to a buffer of the length given with it; the parameters
    // are the 64-bit addresses that the kernels of these tests declare.
    unsafe {
        call("cuCtxSetCurrent", (functions.set_context)(*context))?;
        call("cuModuleLoadData", (functions.load_module)(&mut module, text.as_ptr().cast()))?;
        call("cuModuleGetFunction", (functions.get_function)(&mut function, module, kernel.as_ptr()))?;
        for (address, buffer) in addresses.iter_mut().zip(buffers.iter()) {
            call("cuMemAlloc", (functions.allocate)(address, buffer.len()))?;
            call("cuMemcpyHtoD", (functions.to_device)(*address, buffer.as_ptr().cast(), buffer.len()))?;
        }
        let mut params: Vec<*mut c_void> = addresses.iter_mut().map(|a| (a as *mut Pointer).cast()).collect();
        let mut maps = Vec::new();
        for Map { buffer, data_type, dims, strides, extents, steps, swizzle, fill } in &setup.maps {
            let (mut map, rank) = (EncodedMap([0; 128]), dims.len() as c_uint);
            let (dims, strides) = (dims.as_ptr(), strides.as_ptr());
            let (extents, steps, at) = (extents.as_ptr(), steps.as_ptr(), addresses[*buffer]);
            let encode = functions.encode_map;
            let status =
                encode(&mut map, *data_type, rank, at, dims, strides, extents, steps, 0, *swizzle, 0, *fill);
            call("cuTensorMapEncodeTiled", status)?;
            maps.push(map);
        }
        params.extend(maps.iter_mut().map(|map| (map as *mut EncodedMap).cast::<c_void>()));
        let mut value = VALUE;
        params.push(value.as_mut_ptr().cast());
        let Shape { blocks, threads, shared_bytes } = shape;
        let (stream, extra) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (launch, launch_with) = (functions.launch, functions.launch_with);
        let status = if setup.cluster > 1 {
            let cluster = [setup.cluster, 1, 1];
            let attribute = Attribute { id: CLUSTER_DIMENSION, pad: 0, cluster, rest: [0; 13] };
            let (grid, block) = ([blocks, 1, 1], [threads, 1, 1]);
            let (attributes, attribute_count) = (&raw const attribute, 1);
            let config = LaunchConfig { grid, block, shared_bytes, stream, attributes, attribute_count };
            launch_with(&config, function, params.as_mut_ptr(), extra)
        } else {
            launch(function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, params.as_mut_ptr(), extra)
        };
        call("cuLaunchKernel", status)?;
        call("cuCtxSynchronize", (functions.synchronize)())?;
        for (&address, buffer) in addresses.iter().zip(buffers.iter_mut()) {
            call("cuMemcpyDtoH", (functions.to_host)(buffer.as_mut_ptr().cast(), address, buffer.len()))?;
            call("cuMemFree", (functions.free)(address))?;
        }
        call("cuModuleUnload", (functions.unload_module)(module))
    }
}
