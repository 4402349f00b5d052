//! Who allocated what: kinds of pointers, and what a context leaves behind at its end.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once};

use super::context;
use super::device::Device;
use crate::api::lock;
use crate::api::settings::settings;

/// How memory was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Device,
    Managed,
    /// From the pool of this handle.
    Pool(usize),
    /// Of a graph's node.
    Graph,
    /// A file's, mapped.
    External,
    /// Page-locked host memory of the driver's.
    Host,
    /// Host memory of the client's, registered.
    Registered,
}

impl Kind {
    pub fn on_device(self) -> bool {
        !matches!(self, Kind::Host | Kind::Registered)
    }
}

/// A live allocation of the client's.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    pub bytes: usize,
    pub kind: Kind,
    /// The `CUcontext` that was current.
    pub context: usize,
    /// Whose it is, or by whose context it was had.
    pub device: usize,
    /// In the order of allocations.
    pub number: u64,
}

/// Leaks that are named one by one; the rest are counted.
const NAMED_LEAKS: usize = 10;

#[derive(Default)]
struct State {
    live: BTreeMap<u64, Allocation>,
    count: u64,
}

static STATE: Mutex<State> = Mutex::new(State { live: BTreeMap::new(), count: 0 });

pub fn add(address: u64, bytes: usize, kind: Kind, device: &Device) {
    let mut state = lock(&STATE);
    state.count += 1;
    let (context, device, number) = (context::current_handle() as usize, device.ordinal, state.count);
    let allocation = Allocation { bytes, kind, context, device, number };
    state.live.insert(address, allocation);
}

/// Forgets the allocation that begins at an address, if it is of such a kind.
pub fn remove(address: u64, kind: impl Fn(Kind) -> bool) -> Option<Allocation> {
    let mut state = lock(&STATE);
    state.live.get(&address).is_some_and(|allocation| kind(allocation.kind)).then_some(())?;
    state.live.remove(&address)
}

/// The allocation that an address is in, and where it begins.
pub fn find(address: u64) -> Option<(u64, Allocation)> {
    let state = lock(&STATE);
    let (&start, &allocation) = state.live.range(..=address).next_back()?;
    (address - start < allocation.bytes as u64).then_some((start, allocation))
}

/// Whether an address is one of page-locked host memory.
pub fn is_pinned(address: u64) -> bool {
    find(address).is_some_and(|(_, allocation)| !allocation.kind.on_device())
}

/// The allocations of a pool.
pub fn of_pool(pool: usize) -> Vec<u64> {
    lock(&STATE).live.iter().filter(|(_, a)| a.kind == Kind::Pool(pool)).map(|(&at, _)| at).collect()
}

/// Forgets what a context has left on the device, which is to be freed, and says so where checks are on.
pub fn take_from(context: usize) -> Vec<(u64, Allocation)> {
    let is_left = |allocation: &Allocation| allocation.context == context && allocation.kind.on_device();
    let left: Vec<(u64, Allocation)> = lock(&STATE).live.extract_if(.., |_, a| is_left(a)).collect();
    report(&left);
    left
}

/// Has the process's end say what is left, where checks are on.
pub fn report_at_end() {
    static ASKED: Once = Once::new();
    extern "C" fn end() {
        let left: Vec<(u64, Allocation)> = lock(&STATE).live.iter().map(|(&at, &a)| (at, a)).collect();
        report(&left);
    }
    if settings().leaks {
        ASKED.call_once(|| {
            // SAFETY: a function of this library, called at the latest when that is closed.
            unsafe { libc::atexit(end) };
        });
    }
}

fn report(left: &[(u64, Allocation)]) {
    let mut left: Vec<_> = left.iter().filter(|(_, a)| a.kind != Kind::Registered).collect();
    if !settings().leaks || left.is_empty() {
        return;
    }
    left.sort_by_key(|(_, allocation)| allocation.number);
    for (address, Allocation { bytes, kind, number, .. }) in left.iter().take(NAMED_LEAKS) {
        let kind = match kind {
            Kind::Host => "page-locked host memory",
            Kind::Managed => "managed memory",
            Kind::Pool(_) => "memory of a pool",
            Kind::Graph => "memory of a graph",
            Kind::External => "mapped external memory",
            _ => "device memory",
        };
        say!("leak: {bytes} bytes of {kind} at {address:#x}, allocation {number}, never freed");
    }
    let bytes: usize = left.iter().map(|(_, allocation)| allocation.bytes).sum();
    say!("leaks: {bytes} bytes in {} allocations", left.len());
}
