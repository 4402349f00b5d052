//! Memory of others: a file or a memfd, mapped to where kernels reach it. Other kinds of handles are refused.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{export, put};
use crate::api::error::Status;
use crate::api::objects::allocation::{self, Kind};
use crate::api::objects::context::{self, device};
use crate::api::objects::handles::{Handle, Handles};

/// A `CUexternalMemory`, which owns its descriptor.
struct External {
    fd: OwnedFd,
    bytes: u64,
}

static ALL: Handles<External> = Handles::new("external memory");

/// `CUDA_EXTERNAL_MEMORY_HANDLE_DESC`.
#[repr(C)]
pub struct HandleDescription {
    kind: u32,
    /// A union; a descriptor is its first four bytes.
    handle: [u64; 2],
    bytes: u64,
    flags: u32,
    reserved: [u32; 16],
}

/// `CUDA_EXTERNAL_MEMORY_BUFFER_DESC`.
#[repr(C)]
pub struct BufferDescription {
    offset: u64,
    bytes: u64,
    flags: u32,
    reserved: [u32; 16],
}

/// `CUexternalMemoryHandleType`, from 1 on.
const KINDS: [&str; 9] = [
    "OPAQUE_FD",
    "OPAQUE_WIN32",
    "OPAQUE_WIN32_KMT",
    "D3D12_HEAP",
    "D3D12_RESOURCE",
    "D3D11_RESOURCE",
    "D3D11_RESOURCE_KMT",
    "NVSCIBUF",
    "DMABUF_FD",
];
const OPAQUE_FD: u32 = 1;
/// `CUDA_EXTERNAL_MEMORY_DEDICATED`, which changes nothing here.
const DEDICATED: u32 = 1;

/// Refuses a descriptor that is not a file of so many bytes, to be read and written.
fn check(fd: i32, bytes: u64) -> Result<(), Status> {
    if fd < 0 {
        return Err(Status::InvalidValue);
    }
    // SAFETY: borrowed for this call; the system says whether it is open.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let found = file.try_clone_to_owned().and_then(|copy| File::from(copy).metadata());
    // SAFETY: as above.
    let mode = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let what = match found {
        Err(error) => format!("descriptor {fd}: {error}"),
        Ok(found) if !found.is_file() => format!("descriptor {fd} is neither a file nor a memfd"),
        Ok(found) if found.len() < bytes => {
            format!("descriptor {fd} has {} bytes, which are fewer than {bytes}", found.len())
        }
        Ok(_) if mode & libc::O_ACCMODE != libc::O_RDWR => {
            format!("descriptor {fd} is not open for reading and writing")
        }
        Ok(_) => return Ok(()),
    };
    say!("cuImportExternalMemory: {what}");
    Err(Status::InvalidValue)
}

export! {
    cuImportExternalMemory(out: *mut Handle, description: *const HandleDescription) {
        context::require()?;
        // SAFETY: the caller's.
        let description = unsafe { description.as_ref() }.ok_or(Status::InvalidValue)?;
        let name = KINDS.get((description.kind as usize).wrapping_sub(1)).ok_or(Status::InvalidValue)?;
        if description.kind != OPAQUE_FD {
            say!("cuImportExternalMemory: handles of type {name} are not supported");
            return Err(Status::NotSupported);
        }
        let (fd, bytes) = (description.handle[0] as i32, description.bytes);
        if out.is_null() || bytes == 0 || description.flags & !DEDICATED != 0 {
            return Err(Status::InvalidValue);
        }
        check(fd, bytes)?;
        // SAFETY: open, and the driver's from here on, as the API has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the caller's.
        unsafe { put(out, ALL.add(External { fd, bytes })) }
    }
    cuExternalMemoryGetMappedBuffer(address: *mut u64, memory: Handle, description: *const BufferDescription) {
        context::require()?;
        // SAFETY: the caller's.
        let BufferDescription { offset, bytes, flags, .. } = *unsafe { description.as_ref() }.ok_or(Status::InvalidValue)?;
        let external = ALL.get(memory)?;
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= external.bytes);
        if address.is_null() || bytes == 0 || flags != 0 || !inside {
            return Err(Status::InvalidValue);
        }
        let mapped = device().memory.map(external.fd.as_raw_fd(), offset, bytes as usize).ok_or(Status::OutOfMemory)?;
        allocation::add(mapped, bytes as usize, Kind::External, device());
        // SAFETY: the caller's.
        unsafe { put(address, mapped) }
    }
    // Buffers that are mapped stay until `cuMemFree`.
    cuDestroyExternalMemory(memory: Handle) { ALL.remove(memory).map(|_| ()) }
}
