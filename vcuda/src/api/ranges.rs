//! NVTX's ranges: the path of those that a thread is in when it launches is part of the launch's record.
//!
//! A program that uses NVTX 3 opens the library that `NVTX_INJECTION64_PATH` names, and calls its
//! `InitializeInjectionNvtx2` with a function that hands out tables of slots, into which the library writes its own
//! functions (nvtxDetail/nvtxTypes.h). This library takes ranges that are pushed and popped, with a domain or without one.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use super::profile;

/// `NVTX_ETID_CALLBACKS`: the table of functions that hand out the others.
const CALLBACKS: u32 = 1;

/// Modules, and the slots that are taken of each: `NvtxCallbackModule`, `NvtxCallbackIdCore`, `NvtxCallbackIdCore2`.
const CORE: c_uint = 1;
const RANGE_PUSH_EX: usize = 8;
const RANGE_PUSH: usize = 9;
const RANGE_PUSH_WIDE: usize = 10;
const RANGE_POP: usize = 11;
const CORE2: c_uint = 5;
const DOMAIN_RANGE_PUSH_EX: usize = 4;
const DOMAIN_RANGE_POP: usize = 5;
const DOMAIN_REGISTER_STRING: usize = 10;
const DOMAIN_REGISTER_STRING_WIDE: usize = 11;
const DOMAIN_CREATE: usize = 12;
const DOMAIN_CREATE_WIDE: usize = 13;

/// `NvtxExportTableCallbacks`.
#[repr(C)]
struct Callbacks {
    size: usize,
    slots_of: unsafe extern "C" fn(c_uint, *mut *const *mut *const c_void, *mut c_uint) -> c_int,
}

/// `nvtxEventAttributes_t`.
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

/// `nvtxMessageType_t`: text, text of wide characters, and text that has been registered, whose handle is here the text too.
const ASCII: i32 = 1;
const WIDE: i32 = 2;
const REGISTERED: i32 = 3;

thread_local! {
    /// Domains, by their handles, and names of the ranges that this thread is in.
    static OPEN: RefCell<Vec<(usize, String)>> = const { RefCell::new(Vec::new()) };
}

/// The path of the ranges that this thread is in: their names, parted by slashes. Empty where nobody reads ranges.
pub fn path() -> String {
    with(|open| open.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join("/")).unwrap_or_default()
}

/// What this thread has open; `None` at its very end, when that is gone.
fn with<R>(work: impl FnOnce(&mut Vec<(usize, String)>) -> R) -> Option<R> {
    OPEN.try_with(|open| work(&mut open.borrow_mut())).ok()
}

/// How deep a range of the domain is in its domain.
fn depth(open: &[(usize, String)], domain: usize) -> c_int {
    open.iter().filter(|(of, _)| *of == domain).count() as c_int - 1
}

fn push(domain: usize, name: String) -> c_int {
    let pushed = with(|open| {
        open.push((domain, name));
        depth(open, domain)
    });
    pushed.unwrap_or(-1)
}

fn pop(domain: usize) -> c_int {
    let popped = with(|open| {
        let depth = depth(open, domain);
        if let Some(last) = open.iter().rposition(|(of, _)| *of == domain) {
            open.remove(last);
        }
        depth
    });
    popped.unwrap_or(-1)
}

/// # Safety
/// Null, or a C string.
unsafe fn text(from: *const c_char) -> String {
    match from.is_null() {
        true => String::new(),
        // SAFETY: the caller's.
        false => unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned(),
    }
}

/// # Safety
/// Null, or a string of wide characters, which on Linux are code points, that ends with a zero.
unsafe fn wide_text(from: *const u32) -> String {
    let mut out = String::new();
    let mut at = from;
    // SAFETY: the caller's: up to the zero.
    while !at.is_null() && unsafe { *at } != 0 {
        // SAFETY: as above.
        out.push(char::from_u32(unsafe { *at }).unwrap_or(char::REPLACEMENT_CHARACTER));
        // SAFETY: as above.
        at = unsafe { at.add(1) };
    }
    out
}

/// # Safety
/// Null, or an event.
unsafe fn name(event: *const Event) -> String {
    // SAFETY: the caller's; of these kinds of messages a C string is behind the pointer.
    unsafe {
        match event.as_ref() {
            Some(event) if matches!(event.message_type, ASCII | REGISTERED) => text(event.message),
            Some(event) if event.message_type == WIDE => wide_text(event.message.cast()),
            _ => String::new(),
        }
    }
}

unsafe extern "C" fn range_push(message: *const c_char) -> c_int {
    // SAFETY: NVTX's.
    push(0, unsafe { text(message) })
}

unsafe extern "C" fn range_push_wide(message: *const u32) -> c_int {
    // SAFETY: NVTX's.
    push(0, unsafe { wide_text(message) })
}

unsafe extern "C" fn range_push_ex(event: *const Event) -> c_int {
    // SAFETY: NVTX's.
    push(0, unsafe { name(event) })
}

unsafe extern "C" fn range_pop() -> c_int {
    pop(0)
}

unsafe extern "C" fn domain_range_push_ex(domain: *mut c_void, event: *const Event) -> c_int {
    // SAFETY: NVTX's.
    push(domain as usize, unsafe { name(event) })
}

unsafe extern "C" fn domain_range_pop(domain: *mut c_void) -> c_int {
    pop(domain as usize)
}

/// Domains and registered strings live as long as the program: their handle is a copy of the text.
fn kept(text: String) -> *mut c_void {
    CString::new(text).map_or(null_mut(), |text| text.into_raw().cast())
}

unsafe extern "C" fn domain_create(name: *const c_char) -> *mut c_void {
    // SAFETY: NVTX's.
    kept(unsafe { text(name) })
}

unsafe extern "C" fn domain_create_wide(name: *const u32) -> *mut c_void {
    // SAFETY: NVTX's.
    kept(unsafe { wide_text(name) })
}

unsafe extern "C" fn domain_register_string(_domain: *mut c_void, string: *const c_char) -> *mut c_void {
    // SAFETY: NVTX's.
    kept(unsafe { text(string) })
}

unsafe extern "C" fn domain_register_string_wide(_domain: *mut c_void, string: *const u32) -> *mut c_void {
    // SAFETY: NVTX's.
    kept(unsafe { wide_text(string) })
}

/// Called by NVTX 3 in a program that looks for this library; declines, with 0, where nothing is recorded.
///
/// # Safety
/// `export_table` gives NVTX's own tables, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn InitializeInjectionNvtx2(
    export_table: unsafe extern "C" fn(u32) -> *const c_void,
) -> c_int {
    if !profile::is_on() {
        return 0;
    }
    // SAFETY: the caller's.
    let Some(callbacks) = (unsafe { export_table(CALLBACKS).cast::<Callbacks>().as_ref() }) else { return 0 };
    if callbacks.size < size_of::<Callbacks>() {
        return 0;
    }
    // Each is of its slot's type: nvtxRangePushA and so on.
    let functions: [(c_uint, usize, *const c_void); 10] = [
        (CORE, RANGE_PUSH_EX, range_push_ex as *const c_void),
        (CORE, RANGE_PUSH, range_push as *const c_void),
        (CORE, RANGE_PUSH_WIDE, range_push_wide as *const c_void),
        (CORE, RANGE_POP, range_pop as *const c_void),
        (CORE2, DOMAIN_RANGE_PUSH_EX, domain_range_push_ex as *const c_void),
        (CORE2, DOMAIN_RANGE_POP, domain_range_pop as *const c_void),
        (CORE2, DOMAIN_REGISTER_STRING, domain_register_string as *const c_void),
        (CORE2, DOMAIN_REGISTER_STRING_WIDE, domain_register_string_wide as *const c_void),
        (CORE2, DOMAIN_CREATE, domain_create as *const c_void),
        (CORE2, DOMAIN_CREATE_WIDE, domain_create_wide as *const c_void),
    ];
    for (module, slot, function) in functions {
        let (mut slots, mut count) = (null(), 0);
        // SAFETY: both may be written. A slot's place is null where the program does not have it.
        unsafe {
            if (callbacks.slots_of)(module, &mut slots, &mut count) != 1 || slot >= count as usize {
                continue;
            }
            if let Some(place) = (*slots.add(slot)).as_mut() {
                *place = function;
            }
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_ranges_of_all_domains_and_a_pop_ends_its_own() {
        assert_eq!((push(1, "step".into()), push(0, "mine".into()), push(1, "kernel".into())), (0, 0, 1));
        assert_eq!(path(), "step/mine/kernel");
        assert_eq!(pop(1), 1);
        assert_eq!(path(), "step/mine");
        assert_eq!((pop(1), path()), (0, "mine".to_string()));
        assert_eq!((pop(1), pop(0), path()), (-1, 0, String::new()));
    }

    #[test]
    fn names_may_be_of_wide_characters() {
        let name = ['Ü' as u32, 0x1f600, 0xd800, 0];
        // SAFETY: it ends with a zero.
        unsafe {
            assert_eq!(wide_text(name.as_ptr()), "Ü😀\u{fffd}");
            assert_eq!(wide_text(null()), "");
        }
    }
}
