//! Copies, fills, pools, pointers and running out of memory.

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUmemPool_attribute as PoolAttribute, CUmemorytype as Kind};
use cudarc::driver::sys::{CUpointer_attribute as Pointer, CUresult};

use crate::client::{context, in_child};

fn alloc(bytes: usize) -> Result<u64, CUresult> {
    let mut address = 0;
    // SAFETY: a live local.
    match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
        CUresult::CUDA_SUCCESS => Ok(address),
        error => Err(error),
    }
}

fn free(address: u64) {
    // SAFETY: allocated above.
    unsafe { sys::cuMemFree_v2(address) }.result().unwrap();
}

fn download(address: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    // SAFETY: as many bytes of the host's.
    unsafe { sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), address, bytes) }.result().unwrap();
    out
}

#[test]
fn boxes_are_copied_to_their_places() {
    let _context = context();
    // A host box of 4 layers of 5 rows of 8 bytes; a device box of 3 layers of 6 rows of 16 bytes.
    let host: Vec<u8> = (0..4 * 5 * 8).collect();
    let device = alloc(3 * 6 * 16).unwrap();
    // SAFETY: zeros and kinds of memory are values of these structures; ranges lie inside the boxes.
    unsafe {
        sys::cuMemsetD8_v2(device, 0xee, 3 * 6 * 16).result().unwrap();
        let mut copy = std::mem::MaybeUninit::<sys::CUDA_MEMCPY3D>::zeroed();
        (*copy.as_mut_ptr()).srcMemoryType = Kind::CU_MEMORYTYPE_HOST;
        (*copy.as_mut_ptr()).dstMemoryType = Kind::CU_MEMORYTYPE_DEVICE;
        let mut copy = copy.assume_init();
        (copy.srcXInBytes, copy.srcY, copy.srcZ) = (1, 2, 1);
        (copy.srcHost, copy.srcPitch, copy.srcHeight) = (host.as_ptr().cast(), 8, 5);
        (copy.dstXInBytes, copy.dstY, copy.dstZ) = (3, 1, 1);
        (copy.dstDevice, copy.dstPitch, copy.dstHeight) = (device, 16, 6);
        (copy.WidthInBytes, copy.Height, copy.Depth) = (5, 3, 2);
        sys::cuMemcpy3D_v2(&copy).result().unwrap();
        let got = download(device, 3 * 6 * 16);
        for (i, &byte) in got.iter().enumerate() {
            let (z, y, x) = (i / 96, i / 16 % 6, i % 16);
            let inside = (1..3).contains(&z) && (1..4).contains(&y) && (3..8).contains(&x);
            let expected = if inside { host[((z - 1 + 1) * 5 + y - 1 + 2) * 8 + x - 3 + 1] } else { 0xee };
            assert_eq!(byte, expected, "z {z} y {y} x {x}");
        }
        copy.WidthInBytes = 9; // wider than a row of the source
        assert_eq!(sys::cuMemcpy3D_v2(&copy), CUresult::CUDA_ERROR_INVALID_VALUE);

        let mut back = vec![0u8; 3 * 4];
        let mut copy = std::mem::MaybeUninit::<sys::CUDA_MEMCPY2D>::zeroed();
        (*copy.as_mut_ptr()).srcMemoryType = Kind::CU_MEMORYTYPE_DEVICE;
        (*copy.as_mut_ptr()).dstMemoryType = Kind::CU_MEMORYTYPE_HOST;
        let mut copy = copy.assume_init();
        (copy.srcXInBytes, copy.srcY) = (3, 7);
        (copy.srcDevice, copy.srcPitch) = (device, 16);
        (copy.dstHost, copy.dstPitch, copy.WidthInBytes, copy.Height) = (back.as_mut_ptr().cast(), 4, 4, 3);
        sys::cuMemcpy2D_v2(&copy).result().unwrap();
        let expected: Vec<u8> = (0..12).map(|i| got[(7 + i / 4) * 16 + 3 + i % 4]).collect();
        assert_eq!(back, expected);
    }
    free(device);
}

#[test]
fn rows_are_filled() {
    let _context = context();
    let device = alloc(4 * 16).unwrap();
    // SAFETY: ranges inside the allocation.
    unsafe {
        sys::cuMemsetD8_v2(device, 0, 64).result().unwrap();
        sys::cuMemsetD2D16_v2(device + 2, 16, 0xabcd, 3, 4).result().unwrap();
        sys::cuMemsetD2D32_v2(device + 8, 16, 0x0102_0304, 2, 2).result().unwrap();
        assert_eq!(sys::cuMemsetD2D32_v2(device, 4, 0, 2, 2), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemsetD32_v2(device + 2, 0, 2), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemsetD8_v2(device, 0, 65), CUresult::CUDA_ERROR_INVALID_VALUE);
    }
    let mut expected = [0u8; 64];
    for row in 0..4 {
        for i in 0..3 {
            expected[row * 16 + 2 + 2 * i..][..2].copy_from_slice(&[0xcd, 0xab]);
        }
        if row < 2 {
            expected[row * 16 + 8..][..8].copy_from_slice(&[4, 3, 2, 1, 4, 3, 2, 1]);
        }
    }
    assert_eq!(download(device, 64), expected);
    free(device);
}

#[test]
fn memory_runs_out_and_comes_back() {
    const LIMIT: usize = 1 << 20;
    let settings = [("VCUDA_MEMORY_BYTES", "1048576")];
    if in_child("memory::memory_runs_out_and_comes_back", &settings).is_some() {
        return;
    }
    let context = context();
    assert_eq!(context.mem_get_info().unwrap(), (LIMIT, LIMIT));
    assert_eq!(alloc(LIMIT + 1), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
    for _ in 0..3 {
        let all: Vec<u64> = (0..16).map(|_| alloc(LIMIT / 16).unwrap()).collect();
        assert_eq!(alloc(1), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(context.mem_get_info().unwrap(), (0, LIMIT));
        all.into_iter().for_each(free);
        assert_eq!(context.mem_get_info().unwrap(), (LIMIT, LIMIT));
    }
    free(alloc(LIMIT).unwrap());
    assert_eq!(alloc(0), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    let address = alloc(8).unwrap();
    free(address);
    // SAFETY: refused.
    assert_eq!(unsafe { sys::cuMemFree_v2(address) }, CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn pools_count_what_they_gave() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let (mut pool, mut address) = (std::ptr::null_mut(), 0);
    // SAFETY: live locals; handles from the driver.
    unsafe {
        let props: sys::CUmemPoolProps = std::mem::zeroed();
        sys::cuMemPoolCreate(&mut pool, &props).result().unwrap();
        let get = |attribute| {
            let mut value = 0u64;
            sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut value).cast()).result().unwrap();
            value
        };
        sys::cuMemAllocFromPoolAsync(&mut address, 5000, pool, stream.cu_stream()).result().unwrap();
        assert_eq!(get(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 5000);
        let mut owner: sys::CUmemoryPool = std::ptr::null_mut();
        let attribute = Pointer::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE;
        sys::cuPointerGetAttribute((&raw mut owner).cast(), attribute, address).result().unwrap();
        assert_eq!(owner, pool);
        sys::cuMemFreeAsync(address, stream.cu_stream()).result().unwrap();
        assert_eq!(get(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
        assert_eq!(get(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH), 5000);
        let mut threshold = 1u64 << 20;
        let attribute = PoolAttribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result().unwrap();
        assert_eq!(get(attribute), 1 << 20);
        sys::cuMemPoolTrimTo(pool, 0).result().unwrap();
        sys::cuMemPoolDestroy(pool).result().unwrap();
    }
}

#[test]
fn pointers_are_known() {
    let context = context();
    let device = alloc(1000).unwrap();
    let mut host = std::ptr::null_mut();
    // SAFETY: live locals of the attributes' types.
    unsafe {
        sys::cuMemAllocHost_v2(&mut host, 100).result().unwrap();
        let kind = |address: u64| {
            let mut kind = 0u32;
            let attribute = Pointer::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
            (sys::cuPointerGetAttribute((&raw mut kind).cast(), attribute, address), kind)
        };
        assert_eq!(kind(device + 999), (CUresult::CUDA_SUCCESS, 2));
        assert_eq!(kind(host as u64 + 99), (CUresult::CUDA_SUCCESS, 1));
        assert_eq!(kind(device + 1000).0, CUresult::CUDA_ERROR_INVALID_VALUE);
        let (mut start, mut bytes, mut owner) = (0u64, 0usize, 0usize);
        let mut attributes = [
            Pointer::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
            Pointer::CU_POINTER_ATTRIBUTE_RANGE_SIZE,
            Pointer::CU_POINTER_ATTRIBUTE_CONTEXT,
        ];
        let mut outs: [*mut c_void; 3] =
            [(&raw mut start).cast(), (&raw mut bytes).cast(), (&raw mut owner).cast()];
        let (names, places) = (attributes.as_mut_ptr(), outs.as_mut_ptr());
        sys::cuPointerGetAttributes(3, names, places, device + 10).result().unwrap();
        assert_eq!((start, bytes, owner), (device, 1000, context.cu_ctx() as usize));
        sys::cuPointerGetAttributes(3, names, places, 64).result().unwrap();
        assert_eq!((start, bytes, owner), (0, 0, 0));
        sys::cuMemFreeHost(host).result().unwrap();
        assert_eq!(sys::cuMemFreeHost(host), CUresult::CUDA_ERROR_INVALID_VALUE);
    }
    free(device);
}
