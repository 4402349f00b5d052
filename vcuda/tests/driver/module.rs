//! Modules, libraries and what loading says.

use std::ffi::{CStr, CString, c_void};

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUjit_option as Option_, CUresult};

use crate::client::{Module, context};

const BUFFER_BYTES: usize = 512;

#[test]
fn the_loaders_message_is_in_the_error_log() {
    let _context = context();
    let text = c".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n    .reg .b32 %r1;\n    frobnicate.u32 %r1;\n}\n";
    let mut options = [
        Option_::CU_JIT_ERROR_LOG_BUFFER,
        Option_::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        Option_::CU_JIT_INFO_LOG_BUFFER,
        Option_::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
    ];
    // Both logs, and the size of the first as it was said to be written.
    let mut load = |error_bytes: usize| {
        let (mut error, mut info) = ([1u8; BUFFER_BYTES], [1u8; BUFFER_BYTES]);
        let sizes = [error_bytes, BUFFER_BYTES].map(|bytes| bytes as *mut c_void);
        let buffers = [&mut error, &mut info].map(|buffer| buffer.as_mut_ptr().cast());
        let mut values = [buffers[0], sizes[0], buffers[1], sizes[1]];
        let mut module = std::ptr::null_mut();
        let (names, slots) = (options.as_mut_ptr(), values.as_mut_ptr());
        // SAFETY: options with values of their types; the buffers are as long as said, or longer.
        let bad = unsafe { sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 4, names, slots) };
        assert_eq!(bad, CUresult::CUDA_ERROR_INVALID_PTX);
        (error, info, values[1] as usize)
    };
    let (error, info, written) = load(BUFFER_BYTES);
    let message = CStr::from_bytes_until_nul(&error).unwrap().to_str().unwrap();
    assert!(message.contains("frobnicate") && message.contains("line 7"), "{message}");
    assert_eq!((written, info[0]), (message.len() + 1, 0));

    // A buffer that is too small holds as much as it can.
    let (short, _, written) = load(8);
    assert_eq!((&short[..7], short[7], short[8], written), (&message.as_bytes()[..7], 0, 1, 8));
}

#[test]
fn bad_images_have_their_errors() {
    let _context = context();
    let load = |image: &[u8]| {
        let mut module = std::ptr::null_mut();
        // SAFETY: an image that ends in NUL.
        unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) }
    };
    assert_eq!(load(b"\x7fELF\0"), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(load(b"no PTX\0"), CUresult::CUDA_ERROR_INVALID_PTX);
    let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: C strings, and pointers to live locals.
    unsafe {
        let missing = sys::cuModuleLoad(&mut module, c"/no/such/file.ptx".as_ptr());
        assert_eq!(missing, CUresult::CUDA_ERROR_FILE_NOT_FOUND);
        let loaded = Module::load();
        let missing = sys::cuModuleGetFunction(&mut function, loaded.0, c"nothing".as_ptr());
        assert_eq!(missing, CUresult::CUDA_ERROR_NOT_FOUND);
    }
}

#[test]
fn versions_and_targets_have_their_errors() {
    let _context = context();
    let cases = [
        ("9.0", "sm_90a", "", CUresult::CUDA_SUCCESS),
        ("7.0", "sm_80", "", CUresult::CUDA_SUCCESS),
        ("9.0", "sm_90a, debug", "", CUresult::CUDA_SUCCESS),
        ("99.9", "sm_90a", "", CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION),
        ("10.0", "sm_90a", "", CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION),
        ("9.0", "sm_999", "", CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
        ("9.0", "sm_100", "", CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
        ("9.0", "sm_100a", "", CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
        ("9.0", "sm_100f", "", CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
        ("7.8", "sm_90a", "", CUresult::CUDA_ERROR_INVALID_PTX),
        ("9.0", "sm_90a, nonsense", "", CUresult::CUDA_ERROR_INVALID_PTX),
        ("8.0", "sm_80", "wgmma.fence.sync.aligned;", CUresult::CUDA_ERROR_INVALID_PTX),
        ("8.0", "sm_90", "wgmma.fence.sync.aligned;", CUresult::CUDA_ERROR_INVALID_PTX),
        ("8.0", "sm_90a", "wgmma.fence.sync.aligned;", CUresult::CUDA_SUCCESS),
        ("7.8", "sm_90", "elect.sync _|%p, -1;", CUresult::CUDA_ERROR_INVALID_PTX),
    ];
    for (version, target, body, expected) in cases {
        let text = format!(
            ".version {version}\n.target {target}\n.address_size 64\n.visible .entry k() {{ .reg .pred %p; {body} ret; }}\0"
        );
        let mut module = std::ptr::null_mut();
        // SAFETY: a C string, and a pointer to a live local; what was loaded is unloaded.
        let found = unsafe {
            let found = sys::cuModuleLoadData(&mut module, text.as_ptr().cast());
            if found == CUresult::CUDA_SUCCESS {
                sys::cuModuleUnload(module).result().unwrap();
            }
            found
        };
        assert_eq!(found, expected, ".version {version} .target {target} {body}");
    }
}

#[test]
fn files_are_loaded_and_bad_ones_refused() {
    let _context = context();
    let path = std::env::temp_dir().join(format!("vcuda-module-{}.ptx", std::process::id()));
    let name = CString::new(path.to_str().unwrap()).unwrap();
    let load = |contents: &[u8]| {
        std::fs::write(&path, contents).unwrap();
        let (mut module, mut library) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (none, values) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: C strings, and pointers to live locals.
        unsafe {
            let loaded = sys::cuLibraryLoadFromFile(
                &mut library,
                name.as_ptr(),
                none,
                values,
                0,
                std::ptr::null_mut(),
                values,
                0,
            );
            assert_eq!(sys::cuModuleLoad(&mut module, name.as_ptr()), loaded);
            if loaded == CUresult::CUDA_SUCCESS {
                let mut count = 0;
                sys::cuLibraryGetKernelCount(&mut count, library).result().unwrap();
                assert_eq!(count, 5);
                sys::cuLibraryUnload(library).result().unwrap();
                sys::cuModuleUnload(module).result().unwrap();
            }
            loaded
        }
    };
    let text = crate::kernels::ptx();
    assert_eq!(load(text.as_bytes()), CUresult::CUDA_SUCCESS);
    assert_eq!(load(format!("{text}\0").as_bytes()), CUresult::CUDA_SUCCESS, "with its NUL");
    assert_eq!(load(b"\x7fELF\x02\x01"), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(load(b"\xff\xfe not text"), CUresult::CUDA_ERROR_INVALID_IMAGE);
    assert_eq!(load(b""), CUresult::CUDA_ERROR_INVALID_PTX);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn what_is_not_text_is_an_error() {
    let _context = context();
    let module = Module::load();
    let (mut function, mut global, mut bytes) = (std::ptr::null_mut(), 0, 0);
    let mut loaded = std::ptr::null_mut();
    // SAFETY: C strings, and pointers to live locals.
    unsafe {
        for name in [c"\xff", c"add\x80", c"", c"\xc3\x28"] {
            let missing = sys::cuModuleGetFunction(&mut function, module.0, name.as_ptr());
            assert_eq!(missing, CUresult::CUDA_ERROR_NOT_FOUND, "{name:?}");
            let missing = sys::cuModuleGetGlobal_v2(&mut global, &mut bytes, module.0, name.as_ptr());
            assert_eq!(missing, CUresult::CUDA_ERROR_NOT_FOUND, "{name:?}");
            let missing = sys::cuModuleLoad(&mut loaded, name.as_ptr());
            assert_eq!(missing, CUresult::CUDA_ERROR_FILE_NOT_FOUND, "{name:?}");
            let (mut found, mut status) = (std::ptr::null_mut(), std::mem::zeroed());
            let result = sys::cuGetProcAddress_v2(name.as_ptr(), &mut found, 13_000, 0, &mut status);
            assert!(found.is_null() && result != CUresult::CUDA_ERROR_UNKNOWN, "{name:?}: {result:?}");
        }
        for (image, expected) in [
            (&b"\xff\xff\xff\xff\0"[..], CUresult::CUDA_ERROR_INVALID_IMAGE),
            (b".version 8.0\n.target \xf0\x28\0", CUresult::CUDA_ERROR_INVALID_IMAGE),
            (b"\0", CUresult::CUDA_ERROR_INVALID_PTX),
            (b"\x50\xed\x55\xba\x01\0", CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
        ] {
            assert_eq!(sys::cuModuleLoadData(&mut loaded, image.as_ptr().cast()), expected, "{image:?}");
        }
        let null: *const std::ffi::c_char = std::ptr::null();
        assert_eq!(sys::cuModuleLoadData(&mut loaded, null.cast()), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuModuleLoad(&mut loaded, null), CUresult::CUDA_ERROR_INVALID_VALUE);
        let unnamed = sys::cuModuleGetFunction(&mut function, module.0, null);
        assert_eq!(unnamed, CUresult::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn a_library_is_a_module_with_kernels() {
    let _context = context();
    let text = CString::new(crate::kernels::ptx()).unwrap();
    let (mut library, mut kernel) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (mut function, mut name) = (std::ptr::null_mut(), std::ptr::null());
    let (mut kernel_count, mut address, mut bytes, mut value) = (0, 0, 0, 0u32);
    // SAFETY: pointers to live locals, handles from the driver.
    unsafe {
        let (image, nothing, values) = (text.as_ptr().cast(), std::ptr::null_mut(), std::ptr::null_mut());
        let loaded =
            sys::cuLibraryLoadData(&mut library, image, nothing, values, 0, std::ptr::null_mut(), values, 0);
        assert_eq!(loaded, CUresult::CUDA_SUCCESS);
        sys::cuLibraryGetKernelCount(&mut kernel_count, library).result().unwrap();
        assert_eq!(kernel_count, 5);
        sys::cuLibraryGetKernel(&mut kernel, library, c"add".as_ptr()).result().unwrap();
        sys::cuKernelGetFunction(&mut function, kernel).result().unwrap();
        sys::cuFuncGetName(&mut name, function).result().unwrap();
        assert_eq!(CStr::from_ptr(name), c"add");
        sys::cuLibraryGetGlobal(&mut address, &mut bytes, library, c"counter".as_ptr()).result().unwrap();
        sys::cuMemcpyDtoH_v2((&raw mut value).cast(), address, bytes).result().unwrap();
        assert_eq!((bytes, value), (4, 7));
        sys::cuLibraryUnload(library).result().unwrap();
    }
}

#[test]
fn functions_have_attributes() {
    let _context = context();
    let module = Module::load();
    let get = |name: &str, attribute| {
        let mut value = -1;
        // SAFETY: a live local and a function of a loaded module.
        let result = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, module.function(name)) };
        assert_eq!(result, CUresult::CUDA_SUCCESS, "{attribute:?}");
        value
    };
    assert_eq!(get("bounded", Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 64);
    assert_eq!(get("add", Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 1024);
    assert_eq!(get("add", Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES), 0);
    assert!((4..=64).contains(&get("add", Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)));
    assert_eq!(get("add", Attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION), 90);
    assert_eq!(get("add", Attribute::CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET), 0);
    let (limit, function) =
        (Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, module.function("add"));
    assert_eq!(get("add", limit), 48 << 10);
    // SAFETY: a function of a loaded module.
    unsafe {
        sys::cuFuncSetAttribute(function, limit, 227 << 10).result().unwrap();
        assert_eq!(get("add", limit), 227 << 10);
        let refused = sys::cuFuncSetAttribute(function, limit, 228 << 10);
        assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_VALUE);
        let (mut grid, mut block) = (0, 0);
        let bounded = module.function("bounded");
        sys::cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, bounded, None, 0, 0).result().unwrap();
        assert_eq!((grid, block), (132 * 32, 64));
    }
}
