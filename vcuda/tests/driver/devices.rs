//! Several devices in one process: what is whose, and what one may do with another's.

use cudarc::driver::sys::{self, CUcontext, CUresult};

use crate::client::{Module, in_child, launch, open};
use crate::kernels::ptx;

const ILLEGAL: CUresult = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
const STALE: CUresult = CUresult::CUDA_ERROR_INVALID_HANDLE;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

/// The primary context of a device, current from now on.
fn primary(ordinal: i32) -> CUcontext {
    open();
    let mut context = std::ptr::null_mut();
    // SAFETY: live locals.
    unsafe {
        sys::cuInit(0).result().unwrap();
        sys::cuDevicePrimaryCtxRetain(&mut context, ordinal).result().unwrap();
        sys::cuCtxSetCurrent(context).result().unwrap();
    }
    context
}

fn alloc(bytes: usize) -> Result<u64, CUresult> {
    let mut address = 0;
    // SAFETY: a live local.
    match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
        CUresult::CUDA_SUCCESS => Ok(address),
        error => Err(error),
    }
}

/// 32 words of a value, on the device of the current context.
fn filled(value: u32) -> u64 {
    let address = alloc(128).unwrap();
    // SAFETY: as many bytes.
    unsafe { sys::cuMemsetD32_v2(address, value, 32) }.result().unwrap();
    address
}

fn first_word(address: u64) -> u32 {
    let mut word = 0u32;
    // SAFETY: as many bytes.
    unsafe { sys::cuMemcpyDtoH_v2((&raw mut word).cast(), address, 4) }.result().unwrap();
    word
}

fn add(module: &Module, mut address: u64, mut k: u32) -> Result<(), CUresult> {
    launch(module.function("add"), 1, 32, std::ptr::null_mut(), &mut [&mut address, &mut 32u32, &mut k])
}

#[test]
fn devices_are_told_apart() {
    let settings = [("VCUDA_DEVICES", "3"), ("VCUDA_MEMORY_BYTES", "65536")];
    if in_child("devices::devices_are_told_apart", &settings).is_some() {
        return;
    }
    let contexts = [0, 1, 2].map(primary);
    // SAFETY: live locals.
    unsafe {
        let mut count = 0;
        sys::cuDeviceGetCount(&mut count).result().unwrap();
        assert_eq!((count, sys::cuDeviceGet(&mut count, 3)), (3, CUresult::CUDA_ERROR_INVALID_DEVICE));
        let (mut ids, mut buses) = (Vec::new(), Vec::new());
        for ordinal in 0..3 {
            let (mut id, mut bus, mut found, mut bytes) = (sys::CUuuid { bytes: [0; 16] }, [0; 16], 0, 0);
            sys::cuDeviceGetUuid_v2(&mut id, ordinal).result().unwrap();
            sys::cuDeviceGetPCIBusId(bus.as_mut_ptr(), 16, ordinal).result().unwrap();
            sys::cuDeviceGetByPCIBusId(&mut found, bus.as_ptr()).result().unwrap();
            sys::cuDeviceTotalMem_v2(&mut bytes, ordinal).result().unwrap();
            assert_eq!((found, bytes), (ordinal, 65536));
            ids.push(id.bytes);
            buses.push(bus);
        }
        for list in [
            ids.iter().map(|id| id.to_vec()).collect::<Vec<_>>(),
            buses.iter().map(|id| id.to_vec()).collect(),
        ] {
            assert!(list[0] != list[1] && list[1] != list[2] && list[0] != list[2]);
        }
        // Each has as much memory, and says whose a pointer is.
        for (ordinal, context) in contexts.into_iter().enumerate() {
            sys::cuCtxSetCurrent(context).result().unwrap();
            let (mut device, mut owner) = (-1, -1i32);
            sys::cuCtxGetDevice(&mut device).result().unwrap();
            let address = alloc(60_000).unwrap();
            assert_eq!(alloc(10_000), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
            let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
            sys::cuCtxSetCurrent(contexts[0]).result().unwrap();
            sys::cuPointerGetAttribute((&raw mut owner).cast(), attribute, address).result().unwrap();
            assert_eq!((device, owner), (ordinal as i32, ordinal as i32));
        }
    }
}

#[test]
fn another_devices_memory_needs_peer_access() {
    let name = "devices::another_devices_memory_needs_peer_access";
    let Some(child) = in_child(name, &[("VCUDA_DEVICES", "2")]) else {
        let second = primary(1);
        let (far, module1) = (filled(5), Module::load());
        let first = primary(0);
        let module0 = Module::load();
        // SAFETY: live locals and contexts.
        unsafe {
            let mut can = 0;
            sys::cuDeviceCanAccessPeer(&mut can, 0, 1).result().unwrap();
            assert_eq!(can, 1);
            sys::cuDeviceCanAccessPeer(&mut can, 1, 1).result().unwrap();
            assert_eq!(can, 0);
            // The fault is the first context's alone.
            assert_eq!(add(&module0, far, 1), Err(ILLEGAL));
            assert_eq!(sys::cuCtxSynchronize(), ILLEGAL);
            sys::cuCtxSetCurrent(second).result().unwrap();
            add(&module1, far, 1).unwrap();
            assert_eq!(first_word(far), 6);
            sys::cuDevicePrimaryCtxReset_v2(0).result().unwrap();
            sys::cuCtxSetCurrent(first).result().unwrap();
            sys::cuCtxEnablePeerAccess(second, 0).result().unwrap();
            let again = sys::cuCtxEnablePeerAccess(second, 0);
            assert_eq!(again, CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
            add(&module0, far, 1).unwrap();
            assert_eq!(first_word(far), 7);
            // One way alone.
            let near = filled(1);
            sys::cuCtxSetCurrent(second).result().unwrap();
            assert_eq!(add(&module1, near, 1), Err(ILLEGAL));
            sys::cuCtxSetCurrent(first).result().unwrap();
            sys::cuCtxDisablePeerAccess(second).result().unwrap();
            let again = sys::cuCtxDisablePeerAccess(second);
            assert_eq!(again, CUresult::CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
            assert_eq!(sys::cuCtxEnablePeerAccess(first, 0), CUresult::CUDA_ERROR_INVALID_CONTEXT);
            assert_eq!(add(&module0, far, 1), Err(ILLEGAL));
        }
        return;
    };
    let text = String::from_utf8_lossy(&child.stderr);
    assert!(text.contains("of device 1, which device 0 has no peer access to"), "{text}");
    assert!(text.contains("of device 0, which device 1 has no peer access to"), "{text}");
}

#[test]
fn copies_go_between_devices() {
    if in_child("devices::copies_go_between_devices", &[("VCUDA_DEVICES", "2")]).is_some() {
        return;
    }
    let (first, near) = (primary(0), filled(1));
    let (second, far) = (primary(1), filled(2));
    // SAFETY: allocations of as many bytes.
    unsafe {
        sys::cuMemcpy(far, near, 4).result().unwrap();
        assert_eq!(first_word(far), 1);
        sys::cuMemcpyPeer(near, first, far + 4, second, 4).result().unwrap();
        assert_eq!((first_word(near), first_word(near + 4)), (2, 1));
        assert_eq!(sys::cuMemcpyPeer(near, second, far, second, 4), INVALID);
        let mut can = 0;
        let supported = sys::CUdevice_P2PAttribute::CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED;
        sys::cuDeviceGetP2PAttribute(&mut can, supported, 0, 1).result().unwrap();
        let same = sys::cuDeviceGetP2PAttribute(&mut can, supported, 1, 1);
        assert_eq!((can, same), (1, CUresult::CUDA_ERROR_INVALID_DEVICE));
        // Freed from wherever.
        sys::cuMemFree_v2(near).result().unwrap();
    }
}

#[test]
fn streams_events_and_functions_belong_to_their_context() {
    let name = "devices::streams_events_and_functions_belong_to_their_context";
    if in_child(name, &[("VCUDA_DEVICES", "2")]).is_some() {
        return;
    }
    let first = primary(0);
    let (module, near) = (Module::load(), filled(1));
    let [mut stream0, mut stream1] = [std::ptr::null_mut(); 2];
    let [mut event0, mut event1] = [std::ptr::null_mut(); 2];
    // SAFETY: live locals; handles that are refused.
    unsafe {
        sys::cuStreamCreate(&mut stream0, 0).result().unwrap();
        sys::cuEventCreate(&mut event0, 0).result().unwrap();
        let second = primary(1);
        let far = filled(10);
        sys::cuStreamCreate(&mut stream1, 0).result().unwrap();
        sys::cuEventCreate(&mut event1, 0).result().unwrap();
        let empty = module.function("empty");
        assert_eq!(launch(empty, 1, 1, stream1, &mut []), Err(STALE), "another context's function");
        sys::cuCtxSetCurrent(first).result().unwrap();
        assert_eq!(launch(empty, 1, 1, stream1, &mut []), Err(STALE), "another context's stream");
        launch(empty, 1, 1, stream0, &mut []).unwrap();
        assert_eq!(sys::cuEventRecord(event0, stream1), STALE);
        sys::cuEventRecord(event1, stream1).result().unwrap();
        sys::cuEventRecord(event0, stream0).result().unwrap();
        // Waiting and asking crosses contexts, times do not.
        sys::cuStreamWaitEvent(stream0, event1, 0).result().unwrap();
        sys::cuEventSynchronize(event1).result().unwrap();
        assert_eq!(sys::cuEventElapsedTime_v2(&mut 0f32, event0, event1), STALE);
        // Copies run in a foreign stream.
        sys::cuMemcpyAsync(far, near, 4, stream1).result().unwrap();
        sys::cuStreamSynchronize(stream1).result().unwrap();
        assert_eq!(first_word(far), 1);
        let mut context = std::ptr::null_mut();
        sys::cuStreamGetCtx(stream1, &mut context).result().unwrap();
        assert_eq!(context, second);
        // A library's kernel runs in every context.
        let (mut library, mut kernel) = (std::ptr::null_mut(), std::ptr::null_mut());
        let text = std::ffi::CString::new(ptx()).unwrap();
        let none = std::ptr::null_mut::<std::ffi::c_void>();
        sys::cuLibraryLoadData(
            &mut library,
            text.as_ptr().cast(),
            none.cast(),
            none.cast(),
            0,
            none.cast(),
            none.cast(),
            0,
        )
        .result()
        .unwrap();
        sys::cuLibraryGetKernel(&mut kernel, library, c"add".as_ptr()).result().unwrap();
        let mut counters = [0u64; 2];
        for (context, at, counter) in [(first, near, 0), (second, far, 1)] {
            sys::cuCtxSetCurrent(context).result().unwrap();
            let mut at = at;
            launch(kernel.cast(), 1, 32, std::ptr::null_mut(), &mut [&mut at, &mut 32u32, &mut 5u32])
                .unwrap();
            assert_eq!(first_word(at), 6);
            let mut bytes = 0;
            let counter = &mut counters[counter];
            sys::cuLibraryGetGlobal(counter, &mut bytes, library, c"counter".as_ptr()).result().unwrap();
            assert_eq!((bytes, first_word(*counter)), (4, 7));
        }
        assert_ne!(counters[0], counters[1]);
        sys::cuLibraryUnload(library).result().unwrap();
    }
}

#[test]
fn a_destroyed_context_is_refused() {
    if in_child("devices::a_destroyed_context_is_refused", &[]).is_some() {
        return;
    }
    let primary = primary(0);
    let mut context = std::ptr::null_mut();
    // SAFETY: live locals; a context that is refused.
    unsafe {
        sys::cuCtxCreate_v4(&mut context, std::ptr::null_mut(), 0, 0).result().unwrap();
        let (kept, at) = (context, filled(1));
        std::thread::scope(|scope| {
            let context = context as usize;
            scope.spawn(move || {
                sys::cuCtxSetCurrent(context as CUcontext).result().unwrap();
                sys::cuCtxDestroy_v2(context as CUcontext).result().unwrap();
            });
        });
        assert_eq!(alloc(16), Err(CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED));
        assert_eq!(sys::cuCtxSetCurrent(kept), CUresult::CUDA_ERROR_INVALID_CONTEXT);
        sys::cuCtxSetCurrent(primary).result().unwrap();
        assert_eq!(sys::cuMemFree_v2(at), INVALID, "freed with its context");
    }
}

#[test]
fn numbers_of_devices_that_cannot_be_are_named() {
    for number in ["0", "17", "two"] {
        let name = "devices::numbers_of_devices_that_cannot_be_are_named";
        let Some(child) = in_child(name, &[("VCUDA_DEVICES", number)]) else {
            let mut count = 0;
            primary(0);
            // SAFETY: a live local.
            unsafe { sys::cuDeviceGetCount(&mut count) }.result().unwrap();
            assert_eq!(count, 1);
            return;
        };
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(
            text.contains(&format!("VCUDA_DEVICES={number}: expected a number from 1 to 16; it is ignored")),
            "{text}"
        );
    }
}

#[test]
fn queued_work_of_several_devices_keeps_its_order() {
    for seed in ["1", "2", "3"] {
        let name = "devices::queued_work_of_several_devices_keeps_its_order";
        let settings = [("VCUDA_DEVICES", "2"), ("VCUDA_CHECK", "all"), ("VCUDA_SEED", seed)];
        let Some(child) = in_child(name, &settings) else {
            let contexts = [0, 1].map(primary);
            let mut places = Vec::new();
            for (i, context) in contexts.into_iter().enumerate() {
                let (mut stream, mut event) = (std::ptr::null_mut(), std::ptr::null_mut());
                // SAFETY: live locals and contexts.
                unsafe {
                    sys::cuCtxSetCurrent(context).result().unwrap();
                    sys::cuCtxEnablePeerAccess(contexts[1 - i], 0).result().unwrap();
                    sys::cuStreamCreate(&mut stream, 1).result().unwrap();
                    sys::cuEventCreate(&mut event, 0).result().unwrap();
                    let (module, at) = (Module::load(), filled(1));
                    sys::cuCtxSynchronize().result().unwrap();
                    places.push((context, stream, event, module, at));
                }
            }
            // Each device in turn adds to the first one's memory, and a copy brings it to the second one.
            let (home, far) = (places[0].4, places[1].4);
            for round in 0..6 {
                let ((context, stream, event, module, _), (.., other, _, _, _)) =
                    (&places[round % 2], &places[1 - round % 2]);
                // SAFETY: live handles; as many bytes.
                unsafe {
                    sys::cuCtxSetCurrent(*context).result().unwrap();
                    let (mut at, mut k) = (home, round as u32);
                    let add = module.function("add");
                    launch(add, 1, 32, *stream, &mut [&mut at, &mut 32u32, &mut k]).unwrap();
                    sys::cuMemcpyPeerAsync(far, contexts[1], home, contexts[0], 128, *stream)
                        .result()
                        .unwrap();
                    sys::cuEventRecord(*event, *stream).result().unwrap();
                    sys::cuStreamWaitEvent(*other, *event, 0).result().unwrap();
                }
            }
            // SAFETY: live streams and allocations.
            unsafe {
                for (_, stream, ..) in &places {
                    sys::cuStreamSynchronize(*stream).result().unwrap();
                }
                assert_eq!((first_word(home), first_word(far)), (16, 16));
                [home, far].into_iter().for_each(|at| sys::cuMemFree_v2(at).result().unwrap());
            }
            return;
        };
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(!text.contains("race") && !text.contains("init:"), "{text}");
    }
}
