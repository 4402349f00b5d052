//! Drivers of other versions: what they say, and what they load.

use cudarc::driver::sys::{self, CUdriverProcAddressQueryResult as Found, CUresult};

use crate::client::{context, in_child};

fn load(version: &str) -> CUresult {
    let text =
        format!(".version {version}\n.target sm_80\n.address_size 64\n.visible .entry k() {{ ret; }}\n\0");
    let mut module = std::ptr::null_mut();
    // SAFETY: a live local, and a C string.
    unsafe { sys::cuModuleLoadData(&mut module, text.as_ptr().cast()) }
}

fn find(name: &std::ffi::CStr, version: i32) -> (CUresult, bool, Found) {
    let (mut found, mut status) = (std::ptr::null_mut(), Found::CU_GET_PROC_ADDRESS_SUCCESS);
    // SAFETY: live locals.
    let done = unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &mut found, version, 0, &mut status) };
    (done, !found.is_null(), status)
}

#[test]
fn an_older_driver_knows_less() {
    const KNOWN: CUresult = CUresult::CUDA_SUCCESS;
    for setting in ["12.4", "12040"] {
        let name = "version::an_older_driver_knows_less";
        let Some(child) = in_child(name, &[("VCUDA_DRIVER_VERSION", setting)]) else {
            let (_context, mut version) = (context(), 0);
            // SAFETY: a live local.
            unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
            assert_eq!(version, 12_040);
            let unsupported = CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
            assert_eq!(["7.0", "8.4", "8.5", "9.0"].map(load), [KNOWN, KNOWN, unsupported, unsupported]);
            let (success, early, absent) = (
                Found::CU_GET_PROC_ADDRESS_SUCCESS,
                Found::CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT,
                Found::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND,
            );
            assert_eq!(find(c"cuKernelGetParamInfo", 12_040), (KNOWN, true, success));
            assert_eq!(find(c"cuKernelGetParamInfo", 12_030), (KNOWN, false, early));
            // That came with 12.5.
            assert_eq!(find(c"cuKernelGetLibrary", 12_040), (KNOWN, false, absent));
            assert_eq!(find(c"cuInit", 12_050).0, CUresult::CUDA_ERROR_INVALID_VALUE);
            let (none, mut ms) = (std::ptr::null_mut(), 0.0);
            // SAFETY: a live local, and no events.
            let elapsed = unsafe { sys::cuEventElapsedTime_v2(&mut ms, none, none) };
            assert_eq!(elapsed, CUresult::CUDA_ERROR_NOT_FOUND);
            // ELF headers of CUDA 12's and 13's cubins for sm_90a.
            for (abi, status) in [
                ([0x33, 7], CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
                ([0x41, 8], CUresult::CUDA_ERROR_INVALID_IMAGE),
            ] {
                let image = [0x7f, b'E', b'L', b'F', 2, 1, 1, abi[0], abi[1], 0, 0, 0];
                let mut module = std::ptr::null_mut();
                // SAFETY: a live local, and bytes with a NUL.
                assert_eq!(unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) }, status);
            }
            return;
        };
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(text.contains("PTX of version 8.5; a driver of 12.4 knows 8.4"), "{text}");
        assert!(text.contains("cuEventElapsedTime_v2 came with CUDA 12.8"), "{text}");
    }
}

#[test]
fn without_a_version_the_newest_is_played() {
    if in_child("version::without_a_version_the_newest_is_played", &[]).is_some() {
        return;
    }
    let (_context, mut version) = (context(), 0);
    // SAFETY: a live local.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
    assert_eq!((version, load("9.5")), (13_050, CUresult::CUDA_SUCCESS));
    assert_eq!(load("9.6"), CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
}

#[test]
fn versions_that_cannot_be_are_named() {
    for setting in ["11.7", "13.6", "new"] {
        let name = "version::versions_that_cannot_be_are_named";
        let Some(child) = in_child(name, &[("VCUDA_DRIVER_VERSION", setting)]) else {
            let (_context, mut version) = (context(), 0);
            // SAFETY: a live local.
            unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
            assert_eq!(version, 13_050);
            return;
        };
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(
            text.contains(&format!("VCUDA_DRIVER_VERSION={setting}: expected"))
                && text.contains("from 11.8 to 13.5"),
            "{text}"
        );
    }
}
