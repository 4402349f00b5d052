//! Programs that call the driver, right and broken in one way each: memory that is not there, launches that do not
//! fit, handles that are stale, streams that do not wait. Each runs in a process of its own with all checks on, says on stderr what the driver
//! finds, and ends with the status that its broken call returns.

use std::ffi::{CString, c_void};
use std::process::Command;

use cudarc::driver::sys::{self, CUevent, CUgraph, CUresult, CUstream};
use memo::gpu::{DeviceChoice, Form, Gpu, Nvrtc, Target};

use crate::clusters::{odd_grid, unsaid_cluster};

mod streams;

use streams::{
    event_before_record, freed_elsewhere, missing_event_wait, no_peer_access, pinned_rewritten,
    reused_before_copied,
};

/// A program, and what finds its bug.
struct Program {
    name: &'static str,
    /// What the finding begins with.
    check: &'static str,
    what: &'static str,
    status: CUresult,
    /// Broken or not.
    run: fn(&Client, bool) -> Outcome,
}

pub type Outcome = Result<(), CUresult>;

const ILLEGAL: CUresult = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
const FAILED: CUresult = CUresult::CUDA_ERROR_LAUNCH_FAILED;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const STALE: CUresult = CUresult::CUDA_ERROR_INVALID_HANDLE;
const NONE: CUresult = CUresult::CUDA_SUCCESS;

macro_rules! programs {
    ($($run:ident $check:literal $status:path: $what:literal;)*) => {
        const PROGRAMS: &[Program] =
            &[$(Program { name: stringify!($run), check: $check, what: $what, status: $status, run: $run }),*];
    };
}

programs! {
    read_after_free "memory" ILLEGAL: "a kernel reads a buffer that has been freed";
    copy_after_free "memory" INVALID: "a copy into a buffer that has been freed";
    double_free "memory" INVALID: "a buffer is freed twice";
    free_inside "memory" INVALID: "a pointer into the middle of an allocation is freed";
    leak "leak" NONE: "a buffer is never freed";
    past_the_end "memory" ILLEGAL: "a kernel reads the end of a buffer from a place that is too late";
    rows_past_the_end "memory" INVALID: "a copy of rows is one row too high";
    unaligned_fill "memory" INVALID: "words are filled at an odd address";
    freed_too_early "memory" ILLEGAL: "memory is freed in stream order before the kernel that uses it";
    never_written "init" CUresult::CUDA_ERROR_LAUNCH_FAILED: "a kernel reads a buffer before the copy into it";
    tensor_map_too_large "memory" ILLEGAL: "a tensor map has one row more than the allocation";
    too_many_threads "launch" INVALID: "more threads than __launch_bounds__ allows";
    too_much_shared "launch" INVALID: "more dynamic shared memory than without the attribute";
    short_parameters "launch" INVALID: "a parameter buffer that ends before the last parameter";
    odd_grid "launch" CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE: "a grid that its clusters do not divide";
    unsaid_cluster "launch" CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE: "no cluster for a kernel whose launch must say one";
    crowd "launch" CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: "a cooperative grid that does not fit";
    destroyed_event "handle" STALE: "an event is recorded after it has been destroyed";
    destroyed_stream "handle" STALE: "a stream is launched into after it has been destroyed";
    relaunch "graph" INVALID: "a graph is launched again before the memory that it allocates is freed";
    missing_event_wait "race" FAILED: "a stream reads what another one writes, and does not wait for it";
    event_before_record "race" FAILED: "an event is waited for before it is recorded";
    reused_before_copied "race" FAILED: "a buffer is written again before the copy out of it has run";
    pinned_rewritten "race" FAILED: "page-locked memory is written again before the copy out of it has run";
    freed_elsewhere "race/memory" FAILED: "memory is freed in stream order while another stream reads it";
    no_peer_access "memory" ILLEGAL: "a kernel reads another device's memory without peer access";
    unjoined_fork "capture" CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED: "a capture ends with a fork that is not joined";
}

/// A stream, and kernels from `driver.cu`.
pub struct Client {
    module: sys::CUmodule,
    pub stream: CUstream,
}

const N: usize = 256;
pub const BYTES: usize = 4 * N;

impl Client {
    fn new() -> Client {
        let target = Target { form: Form::Ptx, architecture: "90a" };
        let ptx = Nvrtc::any().and_then(|nvrtc| nvrtc.compile("driver", include_str!("driver.cu"), target));
        let text = CString::new(ptx.unwrap_or_else(|error| panic!("{error:#}"))).expect("PTX without NUL");
        let (mut module, mut stream) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: a C string, and live locals.
        unsafe {
            sys::cuModuleLoadData(&mut module, text.as_ptr().cast()).result().expect("the kernels load");
            sys::cuStreamCreate(&mut stream, 0).result().expect("a stream");
        }
        Client { module, stream }
    }

    pub fn function(&self, name: &str) -> sys::CUfunction {
        let (name, mut function) = (CString::new(name).expect("a name"), std::ptr::null_mut());
        // SAFETY: a loaded module and a live local.
        unsafe { sys::cuModuleGetFunction(&mut function, self.module, name.as_ptr()) }
            .result()
            .expect("a kernel");
        function
    }

    /// `bytes` of device memory, written or not.
    pub fn alloc(&self, bytes: usize, written: bool) -> u64 {
        let mut address = 0;
        // SAFETY: a live local, and as many bytes.
        unsafe {
            sys::cuMemAlloc_v2(&mut address, bytes).result().expect("memory");
            if written {
                sys::cuMemsetD8_v2(address, 1, bytes).result().expect("a fill");
            }
        }
        address
    }

    fn launch(
        &self,
        name: &str,
        [grid, block, shared_bytes]: [u32; 3],
        params: &mut [*mut c_void],
    ) -> Outcome {
        let (function, extra) = (self.function(name), std::ptr::null_mut());
        let params = params.as_mut_ptr();
        // SAFETY: pointers to as many parameters as the kernel has.
        done(unsafe {
            sys::cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared_bytes, self.stream, params, extra)
        })
    }

    /// `out[..n] = inp[..n]` on the device.
    fn copy(&self, mut inp: u64, mut out: u64, mut n: i32) -> Outcome {
        let mut params = [pointer(&mut inp), pointer(&mut out), pointer(&mut n)];
        self.launch("copy", [(n as u32).div_ceil(64), 64, 0], &mut params)
    }
}

pub fn pointer<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

pub fn done(result: CUresult) -> Outcome {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(result) }
}

pub fn free(address: u64) -> Outcome {
    // SAFETY: the driver says whether an allocation begins there.
    done(unsafe { sys::cuMemFree_v2(address) })
}

fn read_after_free(client: &Client, broken: bool) -> Outcome {
    let [inp, out] = [true, false].map(|written| client.alloc(BYTES, written));
    if broken {
        free(inp)?;
    }
    client.copy(inp, out, N as i32)?;
    free(inp)?;
    free(out)
}

fn copy_after_free(client: &Client, broken: bool) -> Outcome {
    let (buffer, host) = (client.alloc(BYTES, false), [7u8; BYTES]);
    if broken {
        free(buffer)?;
    }
    // SAFETY: as many bytes of the host's.
    done(unsafe { sys::cuMemcpyHtoD_v2(buffer, host.as_ptr().cast(), BYTES) })?;
    free(buffer)
}

fn double_free(client: &Client, broken: bool) -> Outcome {
    let buffer = client.alloc(BYTES, false);
    free(buffer)?;
    if broken { free(buffer) } else { Ok(()) }
}

fn free_inside(client: &Client, broken: bool) -> Outcome {
    let buffer = client.alloc(BYTES, false);
    free(buffer + if broken { 256 } else { 0 })
}

fn leak(client: &Client, broken: bool) -> Outcome {
    let buffer = client.alloc(BYTES, false);
    if broken { Ok(()) } else { free(buffer) }
}

fn past_the_end(client: &Client, broken: bool) -> Outcome {
    let [inp, neighbour, out] = [true, true, false].map(|written| client.alloc(BYTES, written));
    let last = inp + (BYTES as u64 - 64) + if broken { 4 } else { 0 };
    client.copy(last, out, 16)?;
    [inp, neighbour, out].into_iter().try_for_each(free)
}

fn rows_past_the_end(client: &Client, broken: bool) -> Outcome {
    let (buffer, mut host) = (client.alloc(BYTES, true), [0u8; 2 * BYTES]);
    // SAFETY: zeros are values of this structure once its enums have theirs.
    let mut copy = unsafe {
        let mut copy = std::mem::MaybeUninit::<sys::CUDA_MEMCPY2D>::zeroed();
        (*copy.as_mut_ptr()).srcMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        (*copy.as_mut_ptr()).dstMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_HOST;
        copy.assume_init()
    };
    (copy.srcDevice, copy.srcPitch) = (buffer, 64);
    (copy.dstHost, copy.dstPitch, copy.WidthInBytes) = (host.as_mut_ptr().cast(), 32, 32);
    copy.Height = BYTES / 64 + usize::from(broken);
    // SAFETY: rows of the host's buffer; the device's are what is tried.
    done(unsafe { sys::cuMemcpy2D_v2(&copy) })?;
    free(buffer)
}

fn unaligned_fill(client: &Client, broken: bool) -> Outcome {
    let buffer = client.alloc(BYTES, false);
    // SAFETY: inside the allocation.
    done(unsafe { sys::cuMemsetD32_v2(buffer + if broken { 2 } else { 4 }, 7, 16) })?;
    free(buffer)
}

fn freed_too_early(client: &Client, broken: bool) -> Outcome {
    let (mut buffer, out) = (0, client.alloc(BYTES, false));
    // SAFETY: a live local, and as many bytes; the order is what is tried.
    unsafe {
        let free = |address| done(sys::cuMemFreeAsync(address, client.stream));
        done(sys::cuMemAllocAsync(&mut buffer, BYTES, client.stream))?;
        done(sys::cuMemsetD8Async(buffer, 1, BYTES, client.stream))?;
        if broken {
            free(buffer)?;
        }
        client.copy(buffer, out, N as i32)?;
        if !broken {
            free(buffer)?;
        }
    }
    free(out)
}

fn never_written(client: &Client, broken: bool) -> Outcome {
    let [inp, out] = [!broken, false].map(|written| client.alloc(BYTES, written));
    client.copy(inp, out, N as i32)?;
    free(inp)?;
    free(out)
}

fn tensor_map_too_large(client: &Client, broken: bool) -> Outcome {
    const ROW: usize = 128;
    let buffer = client.alloc(if broken { 7 * ROW } else { 8 * ROW }, true);
    let mut out = client.alloc(4, false);
    // SAFETY: zeros are a value of this plain structure; arrays of two dimensions, and one stride.
    let mut map: sys::CUtensorMap = unsafe { std::mem::zeroed() };
    let (dims, strides, extents, steps) = ([32u64, 8], [ROW as u64], [32u32, 8], [1u32, 1]);
    // SAFETY: as above.
    done(unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_INT32,
            2,
            buffer as *mut c_void,
            dims.as_ptr(),
            strides.as_ptr(),
            extents.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    })?;
    client.launch("tile_sum", [1, 32, 0], &mut [pointer(&mut map), pointer(&mut out)])?;
    free(buffer)?;
    free(out)
}

fn too_many_threads(client: &Client, broken: bool) -> Outcome {
    let mut out = client.alloc(BYTES, false);
    client.launch("bounded", [1, if broken { 96 } else { 64 }, 0], &mut [pointer(&mut out)])?;
    free(out)
}

fn too_much_shared(client: &Client, broken: bool) -> Outcome {
    let (mut out, mut bytes) = (client.alloc(4, false), 100i32 << 10);
    if !broken {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: a kernel of a loaded module.
        done(unsafe { sys::cuFuncSetAttribute(client.function("shared_end"), attribute, bytes) })?;
    }
    client.launch("shared_end", [1, 1, bytes as u32], &mut [pointer(&mut out), pointer(&mut bytes)])?;
    free(out)
}

fn short_parameters(client: &Client, broken: bool) -> Outcome {
    let [inp, out] = [true, false].map(|written| client.alloc(BYTES, written));
    let mut buffer = [inp, out, N as u64];
    let mut bytes: usize = if broken { 16 } else { 20 };
    // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
    let [at, size, end] = [1usize, 2, 0].map(|mark| mark as *mut c_void);
    let mut extra = [at, pointer(&mut buffer), size, pointer(&mut bytes), end];
    let (function, none) = (client.function("copy"), std::ptr::null_mut());
    // SAFETY: marks and values as the API has them.
    done(unsafe {
        sys::cuLaunchKernel(function, 4, 1, 1, 64, 1, 1, 0, client.stream, none, extra.as_mut_ptr())
    })?;
    free(inp)?;
    free(out)
}

fn crowd(client: &Client, broken: bool) -> Outcome {
    let mut count = client.alloc(4, false);
    // SAFETY: inside the allocation; pointers to as many parameters as the kernel has.
    unsafe {
        done(sys::cuMemsetD32_v2(count, 0, 1))?;
        let (function, mut params) = (client.function("meet"), [pointer(&mut count)]);
        let (grid, params) = (if broken { 132 * 2 + 1 } else { 8 }, params.as_mut_ptr());
        done(sys::cuLaunchCooperativeKernel(function, grid, 1, 1, 1024, 1, 1, 0, client.stream, params))?;
    }
    free(count)
}

fn destroyed_event(client: &Client, broken: bool) -> Outcome {
    let mut event: CUevent = std::ptr::null_mut();
    // SAFETY: a live local; the order is what is tried.
    unsafe {
        let destroy = |event| done(sys::cuEventDestroy_v2(event));
        done(sys::cuEventCreate(&mut event, 0))?;
        if broken {
            destroy(event)?;
        }
        done(sys::cuEventRecord(event, client.stream))?;
        destroy(event)
    }
}

fn destroyed_stream(client: &Client, broken: bool) -> Outcome {
    let mut stream = std::ptr::null_mut();
    let mut out = client.alloc(BYTES, false);
    // SAFETY: a live local; the order is what is tried.
    unsafe {
        let destroy = |stream| done(sys::cuStreamDestroy_v2(stream));
        done(sys::cuStreamCreate(&mut stream, 0))?;
        if broken {
            destroy(stream)?;
        }
        let other = Client { module: client.module, stream };
        other.launch("bounded", [1, 64, 0], &mut [pointer(&mut out)])?;
        destroy(stream)?;
    }
    free(out)
}

fn relaunch(client: &Client, broken: bool) -> Outcome {
    let (mut graph, mut exec): (CUgraph, _) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (mut buffer, stream) = (0, client.stream);
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: live locals and handles.
    unsafe {
        done(sys::cuStreamBeginCapture_v2(stream, mode))?;
        done(sys::cuMemAllocAsync(&mut buffer, BYTES, stream))?;
        done(sys::cuMemsetD8Async(buffer, 1, BYTES, stream))?;
        done(sys::cuStreamEndCapture(stream, &mut graph))?;
        done(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0))?;
        done(sys::cuGraphLaunch(exec, stream))?;
        if !broken {
            free(buffer)?;
        }
        done(sys::cuGraphLaunch(exec, stream))?;
        free(buffer)?;
        done(sys::cuGraphExecDestroy(exec))?;
        done(sys::cuGraphDestroy(graph))
    }
}

fn unjoined_fork(client: &Client, broken: bool) -> Outcome {
    let (mut side, mut graph, buffer) =
        (std::ptr::null_mut(), std::ptr::null_mut(), client.alloc(BYTES, false));
    let (mut fork, mut join): (CUevent, CUevent) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (stream, mode) = (client.stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    // SAFETY: live locals and handles.
    unsafe {
        done(sys::cuStreamCreate(&mut side, 0))?;
        [&mut fork, &mut join].into_iter().try_for_each(|event| done(sys::cuEventCreate(event, 0)))?;
        done(sys::cuStreamBeginCapture_v2(stream, mode))?;
        done(sys::cuEventRecord(fork, stream))?;
        done(sys::cuStreamWaitEvent(side, fork, 0))?;
        done(sys::cuMemsetD8Async(buffer, 1, BYTES, side))?;
        if !broken {
            done(sys::cuEventRecord(join, side))?;
            done(sys::cuStreamWaitEvent(stream, join, 0))?;
        }
        done(sys::cuStreamEndCapture(stream, &mut graph))?;
        done(sys::cuGraphDestroy(graph))?;
        [fork, join].into_iter().try_for_each(|event| done(sys::cuEventDestroy_v2(event)))?;
        done(sys::cuStreamDestroy_v2(side))?;
    }
    free(buffer)
}

/// The program that this process is to be, and whether it is broken: `NAME` or `NAME broken`.
const PROGRAM: &str = "PLANTED_PROGRAM";

pub fn is_program() -> bool {
    std::env::var_os(PROGRAM).is_some()
}

/// Is that program: prints the status that it ends with.
pub fn run() {
    let asked = std::env::var(PROGRAM).expect("a program's name");
    let (name, broken) = asked.strip_suffix(" broken").map_or((&*asked, false), |name| (name, true));
    let program = PROGRAMS.iter().find(|program| program.name == name).expect("a program of this name");
    let _gpu = Gpu::open(DeviceChoice::Virtual).expect("the virtual driver");
    let status = (program.run)(&Client::new(), broken).err().unwrap_or(NONE);
    println!("\nstatus {}", status as i32);
}

/// Runs a program in a process of its own: the status that it ended with, and what the driver said.
fn start(name: &str, broken: bool) -> Result<(i32, String), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let asked = format!("{name}{}", if broken { " broken" } else { "" });
    let test = "every_planted_bug_is_caught_and_every_twin_passes";
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .envs([
            (PROGRAM, asked.as_str()),
            ("VCUDA_CHECK", "all"),
            ("VCUDA_SEED", "1"),
            ("VCUDA_DEVICES", "2"),
        ])
        .output()
        .map_err(|error| error.to_string())?;
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let status = out.lines().find_map(|line| line.strip_prefix("status ")?.parse().ok());
    Ok((status.ok_or_else(|| format!("it did not end: {out}{said}"))?, said.into_owned()))
}

/// What became of each program: what the driver said of the broken one, or what is amiss.
pub fn all() -> Vec<(String, Result<String, String>)> {
    let tried = |program: &Program| {
        let findings = |said: &str| {
            said.lines()
                .filter_map(|line| line.strip_prefix("vcuda: "))
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        let (status, said) = start(program.name, false)?;
        if status != 0 || !findings(&said).is_empty() {
            return Err(format!("the right one ends with status {status}: {said}"));
        }
        let (status, said) = start(program.name, true)?;
        let is_sought = |line: &String| {
            program
                .check
                .split('/')
                .any(|check| line.starts_with(check) && line[check.len()..].starts_with(": "))
        };
        // Where the order decides who finds it, it may be an address that is not there any more.
        let is_right =
            status == program.status as i32 || program.check.ends_with("/memory") && status == ILLEGAL as i32;
        match findings(&said).into_iter().find(is_sought) {
            Some(found) if is_right => Ok(found),
            _ => Err(format!("status {status}, not {}: {said}", program.status as i32)),
        }
    };
    let name = |program: &Program| format!("{} ({}): {}", program.name, program.check, program.what);
    PROGRAMS.iter().map(|program| (name(program), tried(program))).collect()
}
