//! What a warpgroup's four warps have issued together. A product is one operation of all of them (PTX ISA 9.7.15): it
//! begins when the last of the four issues it, and a group is complete for all four when the first wait for it passes,
//! which is where its products are computed, for the four at once, with all that have been issued since.
//!
//! With [`Checks::asynchrony`](crate::exec::options::Checks) a wait passes only when no warp gets any further
//! without it; what a product reads is held until then.

use super::descriptor::CHUNK;
use super::fragment::Fragment;
use super::siblings::take;
use super::warpgroup::{Instruction, Product, Warpgroup};
use crate::exec::check::Reading;
use crate::exec::fault::FaultKind;
use crate::exec::groups::WARPS;
use crate::exec::registers::LANES;
use crate::exec::warp::Warp;

/// The adversary lets products land, of the first warpgroup whose warps wait for some; whether there is one.
pub fn land_one(warps: &[Warp]) -> bool {
    warps.iter().step_by(WARPS).any(|warp| {
        let group = warp.index as usize / WARPS;
        warp.cta.warpgroups.borrow_mut().get_mut(group).is_some_and(Warpgroup::land)
    })
}

impl Warp<'_> {
    /// Issues a product, with A's fragments where they are in registers; `None` after a fault.
    pub fn issue(&mut self, what: Instruction, fragments: Option<[Fragment; 4]>) -> Option<()> {
        let cta = self.cta;
        let (group, quarter) = (self.index as usize / WARPS, self.index as usize % WARPS);
        let mut groups = cta.warpgroups.borrow_mut();
        if groups.len() <= group {
            let warps = (cta.launch.threads() as usize).div_ceil(LANES) - group * WARPS;
            if warps < WARPS {
                let text = format!("a product of a warpgroup of {warps} warps, which has {WARPS}");
                self.fail_lane(0, FaultKind::Sync, text);
                return None;
            }
            groups.resize_with(group + 1, Warpgroup::default);
        }
        let group = &mut groups[group];
        group.regs[quarter] = self.regs;
        let place = (group.issued[quarter] - group.complete) as usize;
        group.issued[quarter] += 1;
        if group.products.len() == place {
            group.products.push_back(Product { what, fragments: None, reading: Reading::default() });
        }
        let product = &mut group.products[place];
        if product.what != what {
            let mut text =
                "the four warps of a warpgroup have different products, or descriptors of one".to_string();
            if product.what.pc != what.pc {
                text += &format!(": another is at PTX line {}", cta.kernel.ops[product.what.pc].line);
            }
            self.fail_lane(0, FaultKind::Sync, text);
            return None;
        }
        if let Some(fragments) = fragments {
            product.fragments.get_or_insert_default()[quarter] = fragments;
        }
        if cta.options.checks.asynchrony || cta.memory.is_watched() {
            self.learn(&mut product.reading);
            if group.issued.iter().all(|&issued| issued > group.complete + place as u64) {
                self.begin_reading(&mut product.reading);
                let reading = &product.reading;
                what.chunks().try_for_each(|(at, by)| self.begin_chunk(reading, by, at, CHUNK as usize))?;
            }
        }
        Some(())
    }

    /// Waits until the first `count` products of its warpgroup are complete: `Some(false)` if they are not yet, `None`
    /// after a fault.
    #[inline(always)]
    pub fn complete(&mut self, count: u64) -> Option<bool> {
        let cta = self.cta;
        let (number, quarter) = (self.index as usize / WARPS, self.index as usize % WARPS);
        let groups = &mut cta.warpgroups.borrow_mut()[..];
        let Some(group) = groups.get_mut(number) else { return Some(true) };
        let is_new = std::mem::replace(&mut group.awaited[quarter], count) != count;
        if group.complete < count {
            let is_checked = cta.options.checks.asynchrony || cta.memory.is_watched();
            let is_late = cta.options.checks.asynchrony && group.landed < count;
            // The others may be about to issue more, which is then computed together, or copies that arrive meanwhile: they get
            // a turn.
            let is_early = is_new && !is_checked;
            if is_late || is_early || group.all_issued() < count {
                return Some(false);
            }
            let issued = group.all_issued();
            let pc = self.pc;
            let mut scratch = cta.scratch.borrow_mut();
            let goal = if is_checked { count } else { issued };
            // The checks see products in the order in which they were issued.
            let joins = !is_checked && cta.options.sums.is_none();
            while groups[number].complete < goal {
                let left = (goal - groups[number].complete) as usize;
                let (products, places) = take(groups, self.index, left, &cta.kernel.lists, joins);
                self.multiply(&products, &places, &mut scratch)?;
                if is_checked {
                    for Product { what, reading, .. } in &products {
                        self.pc = what.pc;
                        what.chunks().try_for_each(|(at, _)| self.end_chunk(reading, at, CHUNK as usize))?;
                    }
                }
            }
            self.pc = pc;
            cta.cluster.engine.borrow_mut().note_change();
            if let Some(stamp) = self.end_reading() {
                let complete = groups[number].complete;
                groups[number].ends.push_back((complete, stamp));
            }
        }
        let group = &mut groups[number];
        group.seen[quarter] = group.seen[quarter].max(count);
        if let Some(&(_, stamp)) = group.ends.iter().find(|(end, _)| *end >= count) {
            self.see_products(stamp);
            let all_seen = group.seen.iter().copied().min().unwrap_or(0);
            while group.ends.front().is_some_and(|&(end, _)| end <= all_seen) {
                group.ends.pop_front();
            }
        }
        Some(true)
    }

    /// What the warp waits for in vain, in words, if that is products of its warpgroup.
    #[cold]
    pub fn missing_products(&self) -> Option<String> {
        let kernel = self.cta.kernel;
        let groups = self.cta.warpgroups.borrow();
        let group = groups.get(self.index as usize / WARPS)?;
        let count = group.awaited[self.index as usize % WARPS];
        if group.complete >= count {
            return None;
        }
        let first = self.index as usize / WARPS * WARPS;
        let late =
            (0..WARPS).filter(|&warp| group.issued[warp] < count).map(|warp| (first + warp).to_string());
        let late: Vec<String> = late.collect();
        let late = match &late[..] {
            [] => return None,
            [warp] => format!("which warp {warp} of its warpgroup has not issued"),
            warps => format!("which warps {} of its warpgroup have not issued", warps.join(", ")),
        };
        let product = &group.products[(count - 1 - group.complete) as usize];
        let line = kernel.line(kernel.ops[product.what.pc].line);
        let own = kernel.line(kernel.ops[self.pc].line);
        Some(format!("for the wgmma of {line}, {late}, {own}"))
    }
}
