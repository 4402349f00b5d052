//! What arithmetic sees: a warp's registers, which of its lanes compute, and what an instruction names.
//!
//! A register is 32 lanes side by side in a *slot* of 32 words, a 64-bit one in two neighbouring slots.
//! Immediates, special registers and kernel parameters are slots too, filled before the first
//! instruction: an operation never asks where its operands come from.

use std::mem::MaybeUninit;

use super::space::SHARED_WINDOW;

/// Lanes of a warp.
pub const LANES: usize = 32;
/// Every lane.
pub const ALL: u32 = u32::MAX;

/// "There is no such predicate."
pub const NO_PRED: u16 = u16::MAX;

/// The lanes of a mask, in order.
#[inline]
pub fn lanes_of(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// What a decoded instruction names: destination, sources, guard.
#[derive(Clone, Copy)]
pub struct Operands {
    /// Slots or predicate numbers, as the operation has it.
    pub d: u16,
    pub a: u16,
    pub b: u16,
    pub c: u16,
    /// A fifth operand.
    pub e: u16,
    /// 0: none; else `1 + 2 · predicate + negated`.
    pub guard: u16,
    /// Line in the PTX text.
    pub line: u32,
    /// Offset, branch target, table index: as the operation has it.
    pub imm: i64,
}

/// The registers of 32 threads, and which of these compute.
pub struct Registers<'a> {
    pub regs: *mut u32,
    pub preds: *mut u32,
    /// Carry flags of the extended-precision instructions, a lane a bit.
    pub carry: u32,
    /// The lanes that execute the current operation.
    pub mask: u32,
    /// Those, and the lanes whose registers nobody will read again: what arithmetic may overwrite.
    pub writable: u32,
    /// What operations name by its place, for want of room: the kernel's lists of slots, and runs of multiply-adds.
    pub lists: &'a [u16],
    pub runs: &'a [[u32; 4]],
    /// Where the module's `.const` variables are: from, to.
    pub const_ranges: &'a [(u64, u64)],
    /// Which way approximate results go astray.
    pub seed: u64,
}

impl Registers<'_> {
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    pub unsafe fn lanes<W: Word>(&self, slot: u16) -> [W; LANES] {
        // SAFETY: the caller's; slots are 128-byte aligned, and W is a plain word.
        unsafe { *(self.regs.add(slot as usize * LANES) as *const [W; LANES]) }
    }

    /// The same where they are.
    ///
    /// # Safety
    /// The slot is in the register file, and nobody writes to it meanwhile.
    #[inline(always)]
    pub unsafe fn register<W: Word>(&self, slot: u16) -> &[W; LANES] {
        // SAFETY: as above.
        unsafe { &*self.regs.add(slot as usize * LANES).cast() }
    }

    /// The same to be written.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn register_mut<W: Word>(&mut self, slot: u16) -> *mut [W; LANES] {
        // SAFETY: the caller's.
        unsafe { self.regs.add(slot as usize * LANES).cast() }
    }

    /// Numbers of 32 bits as ones of 64.
    ///
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    pub unsafe fn wide_lanes(&self, slot: u16) -> [u64; LANES] {
        // SAFETY: the caller's.
        let narrow: [u32; LANES] = unsafe { self.lanes(slot) };
        let mut out = [0; LANES];
        for lane in 0..LANES {
            out[lane] = narrow[lane].into();
        }
        out
    }

    /// The generic addresses of places in shared memory, so far after those of 32 bits in a slot.
    ///
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    pub unsafe fn shared_lanes(&self, slot: u16, offset: u32) -> [u64; LANES] {
        // SAFETY: the caller's.
        let narrow: [u32; LANES] = unsafe { self.lanes(slot) };
        let mut out = [0; LANES];
        for lane in 0..LANES {
            out[lane] = SHARED_WINDOW | u64::from(narrow[lane].wrapping_add(offset));
        }
        out
    }

    /// Writes the lanes that `writable` has.
    ///
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    pub unsafe fn set_lanes<W: Word>(&mut self, slot: u16, value: [W; LANES]) {
        let (all, mut aside) = (self.writable == ALL, MaybeUninit::uninit());
        // SAFETY: the caller's.
        let out = unsafe { &mut *(self.regs.add(slot as usize * LANES) as *mut [W; LANES]) };
        // One assignment for both cases keeps the value in the host's registers.
        let place: *mut [W; LANES] = if all { out } else { aside.as_mut_ptr() };
        // SAFETY: either place is valid for it, and the second has it when it is read.
        unsafe {
            *place = value;
            if !all {
                W::merge(out, aside.assume_init_ref(), self.writable);
            }
        }
    }

    /// Writes the lanes of the mask alone.
    ///
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    pub unsafe fn set_lanes_of_mask<W: Word>(&mut self, slot: u16, value: [W; LANES]) {
        let writable = std::mem::replace(&mut self.writable, self.mask);
        // SAFETY: the caller's.
        unsafe { self.set_lanes(slot, value) };
        self.writable = writable;
    }

    /// # Safety
    /// The predicate is in the file.
    #[inline(always)]
    pub unsafe fn pred(&self, index: u16) -> u32 {
        // SAFETY: the caller's. Bit 15 asks for the negation.
        let value = unsafe { *self.preds.add((index & 0x7fff) as usize) };
        if index & 0x8000 != 0 { !value } else { value }
    }

    /// # Safety
    /// The predicate is in the file.
    #[inline(always)]
    pub unsafe fn set_pred(&mut self, index: u16, value: u32) {
        // SAFETY: the caller's.
        let out = unsafe { &mut *self.preds.add(index as usize) };
        *out = *out & !self.mask | value & self.mask;
    }
}

/// An operation of registers alone: the warp goes on to the next one.
pub trait Compute {
    /// Whether it is compiled once for each kind of host, or once for all: what goes lane by lane gains nothing.
    const PER_HOST: bool = true;

    /// # Safety
    /// The register file has every slot and predicate that the operation names, and the host has the instructions that
    /// this version was compiled for.
    unsafe fn compute(registers: &mut Registers, op: &Operands);
}

/// A lane's word: registers are u32 or u64; floats are their bits.
pub trait Word: Copy + 'static {
    /// Writes some lanes of a value. There once for all operations: written out in each of them it would be most of
    /// what is compiled.
    fn merge(out: &mut [Self; LANES], value: &[Self; LANES], lanes: u32);
}

macro_rules! word {
    ($ty:ty) => {
        impl Word for $ty {
            #[inline(never)]
            fn merge(out: &mut [$ty; LANES], value: &[$ty; LANES], lanes: u32) {
                for lane in 0..LANES {
                    let taken = if lanes & 1 << lane != 0 { <$ty>::MAX } else { 0 };
                    out[lane] = out[lane] & !taken | value[lane] & taken;
                }
            }
        }
    };
}
word!(u32);
word!(u64);
