//! The program's side of NVTX 3, as much of it as named ranges in a domain need.
//!
//! A profiler that wants ranges names its library in `NVTX_INJECTION64_PATH`. The program opens it and calls its
//! `InitializeInjectionNvtx2` with a function that hands out tables of slots. The library writes its own functions into the
//! slots that it cares for; the program calls what it finds there. Nothing is linked, and nothing opened where the variable
//! is not set. As in NVIDIA's own header a library that cannot be opened, or declines, is passed over in silence, and one
//! that is merely preloaded is not looked for.
//!
//! By hand, for want of a crate: NVIDIA's `nvtx` 2.0 is built by bindgen and so needs libclang, `nvtx` 1.3 before it knows
//! no domains, and cudarc's feature links the older libnvToolsExt, which CUDA has dropped.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

/// Where a tool puts a function; null where it does not care. It may write at any time.
type Slot = AtomicPtr<c_void>;

/// Slots of each module, by its number, with one that is never used: CORE, CUDA, OPENCL, CUDART, CORE2, SYNC. Tools expect
/// all of them, whole.
const SIZES: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];
const MOST: usize = 16;

/// The module that has domains, and its slots for what is called here.
const CORE2: usize = 5;
const RANGE_PUSH: usize = 4;
const RANGE_POP: usize = 5;
const DOMAIN_CREATE: usize = 12;

static SLOTS: [[Slot; MOST]; SIZES.len()] =
    [const { [const { AtomicPtr::new(null_mut()) }; MOST] }; SIZES.len()];

/// The slots' addresses, as a tool is given them: between nulls.
struct Tables([[*const Slot; MOST + 1]; SIZES.len()]);

// SAFETY: never written, and what they point to is atomic.
unsafe impl Sync for Tables {}

static TABLES: Tables = Tables({
    let mut tables = [[null(); MOST + 1]; SIZES.len()];
    let mut module = 1;
    while module < SIZES.len() {
        let mut slot = 1;
        while slot < SIZES[module] {
            tables[module][slot] = &raw const SLOTS[module][slot];
            slot += 1;
        }
        module += 1;
    }
    tables
});

/// `NvtxExportTableCallbacks`.
#[repr(C)]
struct Callbacks {
    size: usize,
    slots_of: unsafe extern "C" fn(c_uint, *mut *const *const Slot, *mut c_uint) -> c_int,
}

/// `NvtxExportTableVersionInfo`.
#[repr(C)]
struct VersionInfo {
    size: usize,
    version: u32,
    reserved: u32,
    tell_version: extern "C" fn(u32),
}

static CALLBACKS: Callbacks = Callbacks { size: size_of::<Callbacks>(), slots_of };
static VERSION_INFO: VersionInfo =
    VersionInfo { size: size_of::<VersionInfo>(), version: VERSION, reserved: 0, tell_version };

const VERSION: u32 = 3;

/// A module's table and its length, and 1; or 0 where there is none of that number.
///
/// # Safety
/// Both may be written, or are null.
unsafe extern "C" fn slots_of(module: c_uint, table: *mut *const *const Slot, len: *mut c_uint) -> c_int {
    let module = module as usize;
    if !(1..SIZES.len()).contains(&module) {
        return 0;
    }
    // SAFETY: not null, and the caller's.
    unsafe {
        if !table.is_null() {
            table.write(TABLES.0[module].as_ptr());
        }
        if !len.is_null() {
            len.write(SIZES[module] as c_uint);
        }
    }
    1
}

/// Of the tool's own version nothing depends here.
extern "C" fn tell_version(_version: u32) {}

type ExportTable = extern "C" fn(u32) -> *const c_void;

extern "C" fn export_table(id: u32) -> *const c_void {
    match id {
        1 => (&raw const CALLBACKS).cast(),
        3 => (&raw const VERSION_INFO).cast(),
        _ => null(),
    }
}

/// Whether a tool is there: looked for once. Where it is not, what one that declined has left in the slots is not called.
fn attached() -> bool {
    static ATTACHED: OnceLock<bool> = OnceLock::new();
    *ATTACHED.get_or_init(|| {
        let Some(path) = std::env::var_os("NVTX_INJECTION64_PATH") else { return false };
        // SAFETY: the user's own profiler: what it does when it is opened is what they asked for.
        let Ok(library) = (unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_LOCAL) }) else {
            return false;
        };
        // SAFETY: the signature of every tool's entry point of this name.
        let accepted = unsafe {
            match library.get::<unsafe extern "C" fn(ExportTable) -> c_int>(b"InitializeInjectionNvtx2\0") {
                Ok(initialize) => initialize(export_table) != 0,
                Err(_) => return false,
            }
        };
        if accepted {
            std::mem::forget(library); // its functions are called until the process ends
        }
        accepted
    })
}

/// What the tool has put into a slot of the module that has domains.
fn function(slot: usize) -> Option<*mut c_void> {
    let function = SLOTS[CORE2][slot].load(Ordering::Relaxed);
    (!function.is_null()).then_some(function)
}

/// `nvtxEventAttributes_t`: a message, without colour or payload.
#[repr(C)]
struct Event {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    message: *const c_char,
}

/// `NVTX_MESSAGE_TYPE_ASCII`, which tools read as UTF-8.
const TEXT: i32 = 1;

/// The ranges of one program or library, as tools tell them apart.
pub(super) struct Domain(*mut c_void);

// SAFETY: the tool's handle, valid in every thread.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    /// Of this name; `None` where no tool is there.
    pub fn new(name: &CStr) -> Option<Domain> {
        if !attached() {
            return None;
        }
        // A tool without domains has the one that is null.
        let Some(create) = function(DOMAIN_CREATE) else { return Some(Domain(null_mut())) };
        // SAFETY: nvtxDomainCreateA, from a tool that stays loaded.
        let create: unsafe extern "C" fn(*const c_char) -> *mut c_void =
            unsafe { std::mem::transmute(create) };
        // SAFETY: a C string, which the tool copies.
        Some(Domain(unsafe { create(name.as_ptr()) }))
    }

    /// Begins a range inside the thread's last that has not ended; says whether the tool wants it ended.
    pub fn push(&self, name: &CStr) -> bool {
        let Some(push) = function(RANGE_PUSH) else { return false };
        let event = Event {
            version: VERSION as u16,
            size: size_of::<Event>() as u16,
            category: 0,
            color_type: 0,
            color: 0,
            payload_type: 0,
            reserved: 0,
            payload: 0,
            message_type: TEXT,
            message: name.as_ptr(),
        };
        // SAFETY: nvtxDomainRangePushEx, from a tool that stays loaded.
        let push: unsafe extern "C" fn(*mut c_void, *const Event) -> c_int =
            unsafe { std::mem::transmute(push) };
        // SAFETY: the tool's own domain, and an event that it copies. What it returns is the depth, which is of no use.
        unsafe { push(self.0, &event) };
        true
    }

    /// Ends the thread's last range.
    pub fn pop(&self) {
        let Some(pop) = function(RANGE_POP) else { return };
        // SAFETY: nvtxDomainRangePop, from a tool that stays loaded.
        let pop: unsafe extern "C" fn(*mut c_void) -> c_int = unsafe { std::mem::transmute(pop) };
        // SAFETY: the tool's own domain.
        unsafe { pop(self.0) };
    }
}
