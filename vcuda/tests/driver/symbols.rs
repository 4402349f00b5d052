//! Every function that `cudarc` may look up is there.

use std::ffi::{CString, c_void};

use cudarc::driver::sys::{self, CUdriverProcAddressQueryResult as Found, CUresult};

use crate::client::{context, in_child, open};

/// The names of `cudarc::driver::sys` 0.19.10 with CUDA 13.0, one a line.
const SYMBOLS: &str = include_str!("symbols.txt");

#[test]
fn every_function_that_cudarc_looks_up_is_exported() {
    let library = open();
    assert!(SYMBOLS.lines().count() > 400);
    let missing: Vec<&str> = SYMBOLS
        .lines()
        // SAFETY: the symbol is not called.
        .filter(|name| unsafe { library.get::<*const c_void>(name.as_bytes()) }.is_err())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn proc_address(name: &str, version: i32) -> (usize, Found) {
    let name = CString::new(name).unwrap();
    let (mut found, mut status) = (std::ptr::null_mut(), Found::CU_GET_PROC_ADDRESS_SUCCESS);
    // SAFETY: pointers to live locals.
    let result = unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &mut found, version, 0, &mut status) };
    assert_eq!(result, CUresult::CUDA_SUCCESS);
    (found as usize, status)
}

#[test]
fn proc_address_gives_the_variant_of_the_clients_version() {
    let library = open();
    // SAFETY: the symbol is not called.
    let exported = |name: &str| unsafe { *library.get::<*const c_void>(name.as_bytes()).unwrap() as usize };
    let cases = [
        ("cuMemAlloc", 12_000, "cuMemAlloc_v2"),
        ("cuInit", 13_000, "cuInit"),
        ("cuCtxCreate", 13_000, "cuCtxCreate_v4"),
        ("cuCtxCreate", 12_000, "cuCtxCreate_v3"),
        ("cuCtxCreate", 11_000, "cuCtxCreate_v2"),
        ("cuStreamGetCaptureInfo", 12_000, "cuStreamGetCaptureInfo_v2"),
        ("cuStreamGetCaptureInfo", 12_030, "cuStreamGetCaptureInfo_v3"),
        ("cuGetProcAddress", 11_030, "cuGetProcAddress"),
    ];
    for (name, version, expected) in cases {
        let got = proc_address(name, version);
        assert_eq!(got, (exported(expected), Found::CU_GET_PROC_ADDRESS_SUCCESS), "{name} {version}");
    }
    assert_eq!(proc_address("cuNoSuchThing", 13_000), (0, Found::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND));
    let early = proc_address("cuGraphAddKernelNode", 11_000);
    assert_eq!(early, (0, Found::CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT));
    let mut none = std::ptr::null_mut();
    // SAFETY: pointers to live locals.
    let plain =
        unsafe { sys::cuGetProcAddress_v2(c"malloc".as_ptr(), &mut none, 13_000, 0, std::ptr::null_mut()) };
    assert_eq!(plain, CUresult::CUDA_ERROR_NOT_FOUND);
}

#[test]
fn what_is_not_supported_names_itself_once() {
    let Some(child) = in_child("symbols::what_is_not_supported_names_itself_once", &[]) else {
        let _context = context();
        for _ in 0..3 {
            // SAFETY: refused without a look at its arguments.
            let refused = unsafe { sys::cuTexRefDestroy(std::ptr::null_mut()) };
            assert_eq!(refused, CUresult::CUDA_ERROR_NOT_SUPPORTED);
        }
        return;
    };
    let text = String::from_utf8_lossy(&child.stderr);
    assert_eq!(text.matches("vcuda: cuTexRefDestroy is not supported").count(), 1, "{text}");
}
