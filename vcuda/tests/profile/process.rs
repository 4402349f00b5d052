//! The file that a process leaves which launches through the driver's functions.

use std::ffi::c_void;
use std::process::Command;
use vcuda as _;

unsafe extern "C" {
    fn cuInit(flags: u32) -> i32;
    fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: i32) -> i32;
    fn cuCtxSetCurrent(context: *mut c_void) -> i32;
    fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> i32;
    fn cuModuleGetFunction(function: *mut *mut c_void, module: *mut c_void, name: *const u8) -> i32;
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> i32;
    fn cuLaunchKernel(
        function: *mut c_void,
        gx: u32,
        gy: u32,
        gz: u32,
        bx: u32,
        by: u32,
        bz: u32,
        shared_bytes: u32,
        stream: *mut c_void,
        params: *const *const c_void,
        extra: *const *const c_void,
    ) -> i32;
}

/// Does nothing but in the process that [`run`] starts.
#[test]
fn launch_twice() {
    if std::env::var("VCUDA_PROFILE").is_err() {
        return;
    }
    let text = super::ptx("ld.global.u32 %r2, [%rd1];") + "\0";
    let (mut context, mut module, mut function) = [std::ptr::null_mut(); 3].into();
    let (mut address, null) = (0u64, std::ptr::null_mut());
    // SAFETY: as the driver API asks for: live pointers, C strings that end in NUL, one parameter.
    unsafe {
        assert_eq!(cuInit(0), 0);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
        assert_eq!(cuCtxSetCurrent(context), 0);
        assert_eq!(cuModuleLoadData(&mut module, text.as_ptr().cast()), 0);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"k".as_ptr().cast()), 0);
        assert_eq!(cuMemAlloc_v2(&mut address, 4096), 0);
        let params = [(&raw const address).cast::<c_void>()];
        for ctas in [3, 5] {
            let done =
                cuLaunchKernel(function, ctas, 1, 1, 64, 1, 1, 0, null, params.as_ptr(), std::ptr::null());
            assert_eq!(done, 0);
        }
    }
}

/// This test again, as a process of its own.
fn run(profile: &str, gpu: &str) -> std::process::Output {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::launch_twice", "--nocapture"])
        .envs([("VCUDA_PROFILE", profile), ("VCUDA_GPU", gpu), ("VCUDA_MEMORY_BYTES", "1048576")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn a_file_of_launches_and_kernels() {
    let path = std::env::temp_dir().join(format!("vcuda-profile-{}.json", std::process::id()));
    run(path.to_str().unwrap(), "A100");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    // 5 CTAs of 2 warps: ld.param, mov, ld, ret; 1 sector each.
    assert!(
        lines[1].starts_with("{\"launch\":1,\"kernel\":\"k\",\"range\":\"\",\"grid\":[5, 1, 1],"),
        "{text}"
    );
    for part in [
        "\"warp_instructions\":40,",
        "\"thread_instructions\":1280,",
        "\"load\":{\"requests\":10,\"bytes\":1280,\"sectors\":10,\"ideal_sectors\":10}",
        "\"unique_bytes_read\":32,",
        "\"gpu\":\"A100\"",
        "\"kind\":\"model, not a measurement\"",
    ] {
        assert!(lines[1].contains(part), "{part}: {text}");
    }
    assert!(lines[2].starts_with("{\"summary\":\"k\",\"launches\":2,\"warp_instructions\":64,"), "{text}");
    for line in lines {
        assert_eq!(line.matches('{').count(), line.matches('}').count());
        assert_eq!(line.matches('[').count(), line.matches(']').count());
    }
}

#[test]
fn a_table_on_stderr() {
    let output = run("-", "h200");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("on the model of a H200: a lower bound, not a measurement"), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with("2 ") && line.ends_with(" k")), "{text}");
}
