//! Which products of a warpgroup are computed as one. Products on the same D, one after the other, are one that is as deep as
//! all of them. Those on another D whose factors B are the same, step by step, are more rows of it: B is then read and
//! widened once for both. So are those of another warpgroup, which may multiply other rows by the same B. No order among sums
//! of different registers can be seen in them.

use super::warpgroup::{HALF_SUMS, Instruction, Place, Product, Warpgroup};
use crate::exec::groups::WARPS;

/// Products on one D, at most, and D at most.
const MOST_STEPS: usize = 8;
const MOST_SIBLINGS: usize = 4;

/// Products on one D.
#[derive(Clone, Copy, Default)]
struct Chain {
    list: usize,
    steps: usize,
}

/// Takes the first products of a warp's warpgroup that are one, of so many, with those of others that are more rows of it:
/// D by D, and where these are. `lists`: the kernel's, of slots. `joins`: there may be more than one D.
pub(super) fn take(
    groups: &mut [Warpgroup],
    warp: u32,
    most: usize,
    lists: &[u16],
    joins: bool,
) -> (Vec<Product>, Vec<Place>) {
    let number = warp as usize / WARPS;
    let group = &mut groups[number];
    let (many, siblings) = together(&mut group.products.make_contiguous()[..most], lists, joins);
    let mut products = group.finish(many);
    let mut places = vec![Place { regs: group.regs, warp }; siblings];
    if !joins || products[0].what.flags & HALF_SUMS != 0 {
        return (products, places);
    }
    for (other, group) in groups.iter_mut().enumerate().filter(|&(other, _)| other != number) {
        let issued = (group.all_issued() - group.complete) as usize;
        if issued < many || places.len() + siblings > MOST_SIBLINGS {
            continue;
        }
        let theirs = &mut group.products.make_contiguous()[..many];
        let is_same =
            |(own, their): (&Product, &Product)| Instruction { a: their.what.a, ..own.what } == their.what;
        if together(theirs, lists, joins) == (many, siblings) && products.iter().zip(&*theirs).all(is_same) {
            products.extend(group.finish(many));
            let place = Place { regs: group.regs, warp: (other * WARPS) as u32 };
            places.resize(places.len() + siblings, place);
        }
    }
    (products, places)
}

/// Finds how many of these products, from the first on, are one, and on how many D they are, and puts them in order, D by D.
fn together(products: &mut [Product], lists: &[u16], joins: bool) -> (usize, usize) {
    let first = products[0].what;
    if first.flags & HALF_SUMS != 0 {
        return (1, 1);
    }
    let most = if joins { MOST_SIBLINGS } else { 1 };
    let sums = |list: usize| &lists[list..][..first.registers];
    let (mut all_chains, mut all_factors) = ([Chain::default(); MOST_SIBLINGS], [0; MOST_STEPS]);
    let (mut siblings, mut depth) = (0, 0);
    let mut numbers = [0; MOST_SIBLINGS * MOST_STEPS];
    let mut best = (0, 0);
    for (place, Product { what, .. }) in products.iter().enumerate() {
        let Instruction { a, b, pc, list, accumulates, .. } = *what;
        if (Instruction { a, b, pc, list, accumulates, ..first }) != *what {
            break;
        }
        let chains = &all_chains[..siblings];
        let known = chains.iter().position(|chain| chain.list == list || sums(chain.list) == sums(list));
        let number = known.unwrap_or(siblings);
        if known.is_none() {
            if number == most || chains.iter().any(|chain| meet(sums(chain.list), sums(list))) {
                break;
            }
            all_chains[number] = Chain { list, steps: 0 };
            siblings += 1;
        }
        let step = all_chains[number].steps;
        if accumulates != (step > 0 || first.accumulates) {
            break;
        }
        if number == 0 && step < MOST_STEPS {
            all_factors[step] = b;
            depth = step + 1;
        }
        if all_factors[..depth].get(step) != Some(&b) {
            break;
        }
        all_chains[number].steps += 1;
        numbers[place] = number;
        if all_chains[..siblings].iter().all(|chain| chain.steps == depth) {
            best = (place + 1, siblings);
        }
    }
    let (many, siblings) = best;
    if siblings > 1 {
        order(&mut products[..many], &mut numbers[..many]);
    }
    best
}

/// Whether any slot is one of both.
fn meet(some: &[u16], others: &[u16]) -> bool {
    let last = some.iter().copied().max().unwrap_or(0);
    let mut taken = vec![false; usize::from(last) + 1];
    some.iter().for_each(|&slot| taken[usize::from(slot)] = true);
    others.iter().any(|&slot| taken.get(usize::from(slot)) == Some(&true))
}

/// By their numbers; those of the same number stay as they are.
fn order(products: &mut [Product], numbers: &mut [usize]) {
    for end in 1..numbers.len() {
        let place = numbers[..end].partition_point(|&number| number <= numbers[end]);
        numbers[place..=end].rotate_right(1);
        products[place..=end].rotate_right(1);
    }
}
