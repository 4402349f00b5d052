//! Memory of others: a memfd that kernels, copies and the host all see.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};

use cudarc::driver::DevicePtr;
use cudarc::driver::sys::{self, CUexternalMemoryHandleType as Type, CUresult};

use crate::client::{Module, context, in_child, launch};

const N: u32 = 1500;

fn memfd(words: &[u32]) -> File {
    // SAFETY: a C string; the descriptor is checked, and nobody else's.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"external".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.write_all(&bytes).unwrap();
    file
}

fn contents(file: &mut File) -> Vec<u32> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

#[test]
fn kernels_and_copies_reach_a_file() {
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let words: Vec<u32> = (0..N).collect();
    let mut file = memfd(&words);
    // SAFETY: as many bytes as the file has.
    let external = unsafe { context.import_external_memory(file.try_clone().unwrap(), 4 * u64::from(N)) };
    // Not from its beginning, and not from a page's.
    let mapped = external.unwrap().map_range(4096 + 400..4 * N as usize - 8).unwrap();
    let (mut at, mut n, mut k) = (mapped.device_ptr(&stream).0, N - 1124 - 2, 7u32);
    launch(module.function("add"), 12, 32, stream.cu_stream(), &mut [&mut at, &mut n, &mut k]).unwrap();
    // SAFETY: inside the mapped bytes, and outside; locals of as many.
    unsafe {
        sys::cuMemsetD32_v2(at + 4, 5, 2).result().unwrap();
        let mut out = [0u32; 4];
        sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), at, 16).result().unwrap();
        assert_eq!(out, [1124 + 7, 5, 5, 1127 + 7]);
        let past = sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), at + 4 * u64::from(n) - 4, 8);
        assert_eq!(past, CUresult::CUDA_ERROR_INVALID_VALUE);
        let (mut start, mut bytes) = (0, 0);
        sys::cuMemGetAddressRange_v2(&mut start, &mut bytes, at + 100).result().unwrap();
        assert_eq!((start, bytes), (at, 4 * n as usize));
    }
    let changed = |i: u32| match i {
        1125 | 1126 => 5,
        1124.. if i < N - 2 => i + 7,
        _ => i,
    };
    let expected: Vec<u32> = (0..N).map(changed).collect();
    assert_eq!(contents(&mut file), expected);
    // What the host writes shows there, too.
    file.seek(SeekFrom::Start(4 * 1124)).unwrap();
    file.write_all(&[9, 0, 0, 0]).unwrap();
    let mut first = 0u32;
    // SAFETY: a live local.
    unsafe { sys::cuMemcpyDtoH_v2((&raw mut first).cast(), at, 4) }.result().unwrap();
    assert_eq!(first, 9);
    drop(mapped);
    // SAFETY: refused.
    let gone = unsafe { sys::cuMemcpyDtoH_v2((&raw mut first).cast(), at, 4) };
    assert_eq!(gone, CUresult::CUDA_ERROR_INVALID_VALUE);
    // Its addresses are used again, and the file is left alone.
    let more = stream.alloc_zeros::<u32>(2 * N as usize).unwrap();
    assert!(stream.clone_dtoh(&more).unwrap().iter().all(|&word| word == 0));
    assert_eq!(contents(&mut file)[1123..1126], [1123, 9, 5]);
}

fn import(kind: Type, fd: i32, bytes: u64) -> Result<sys::CUexternalMemory, CUresult> {
    // SAFETY: all zeros is a value of this plain structure, and the descriptor's name is an integer.
    let mut description: sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC = unsafe {
        let mut zeros = std::mem::MaybeUninit::<sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC>::zeroed();
        (&raw mut (*zeros.as_mut_ptr()).type_).write(kind);
        zeros.assume_init()
    };
    (description.handle.fd, description.size) = (fd, bytes);
    let mut out = std::ptr::null_mut();
    // SAFETY: live locals.
    match unsafe { sys::cuImportExternalMemory(&mut out, &description) } {
        CUresult::CUDA_SUCCESS => Ok(out),
        error => Err(error),
    }
}

fn is_open(fd: i32) -> bool {
    // SAFETY: the system says whether it is.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

#[test]
fn a_descriptor_is_the_drivers_once_it_is_imported() {
    // Descriptors are the process's: other tests would take their numbers.
    if in_child("external::a_descriptor_is_the_drivers_once_it_is_imported", &[]).is_some() {
        return;
    }
    let _context = context();
    let invalid = Err(CUresult::CUDA_ERROR_INVALID_VALUE);
    let fd = memfd(&[1, 2, 3, 4]).into_raw_fd();
    let opaque = Type::CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD;
    assert_eq!(import(opaque, fd, 17), invalid, "more than it has");
    assert_eq!(import(opaque, fd, 0), invalid);
    assert_eq!(import(opaque, -1, 4), invalid);
    assert_eq!(import(opaque, 9999, 4), invalid);
    let read_only = File::open("/proc/self/exe").unwrap();
    assert_eq!(import(opaque, read_only.as_raw_fd(), 4), invalid);
    let folder = File::open("/").unwrap();
    assert_eq!(import(opaque, folder.as_raw_fd(), 4), invalid);
    let other = import(Type::CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_WIN32, fd, 16);
    assert_eq!(other, Err(CUresult::CUDA_ERROR_NOT_SUPPORTED));
    assert!(is_open(fd) && is_open(folder.as_raw_fd()), "what is refused stays the client's");

    let external = import(opaque, fd, 16).unwrap();
    let mut address = 0;
    // SAFETY: live locals; handles from the driver, or refused.
    unsafe {
        let map = |offset, bytes, address: *mut u64| {
            let mut buffer: sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC = std::mem::zeroed();
            (buffer.offset, buffer.size) = (offset, bytes);
            sys::cuExternalMemoryGetMappedBuffer(address, external, &buffer)
        };
        for (offset, bytes) in [(0, 17), (16, 1), (u64::MAX, 2), (0, 0)] {
            assert_eq!(map(offset, bytes, &mut address), CUresult::CUDA_ERROR_INVALID_VALUE);
        }
        map(4, 8, &mut address).result().unwrap();
        // A buffer outlives its object.
        sys::cuDestroyExternalMemory(external).result().unwrap();
        assert!(!is_open(fd));
        let mut out = [0u32; 2];
        sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), address, 8).result().unwrap();
        assert_eq!(out, [2, 3]);
        assert_eq!(sys::cuDestroyExternalMemory(external), CUresult::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(map(0, 4, &mut address), CUresult::CUDA_ERROR_INVALID_HANDLE);
        sys::cuMemFree_v2(address).result().unwrap();
    }
}
