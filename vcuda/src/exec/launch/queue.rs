//! The groups of CTAs that have yet to come.

use std::sync::{Mutex, PoisonError};

use crate::exec::random::Permutation;

/// The groups of a launch, each of which is taken once.
pub struct Queue {
    groups: usize,
    /// Drawn from the seed; by number otherwise.
    order: Option<Permutation>,
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    /// How many have been taken in order, and how many lowest ones are known to be taken.
    drawn: usize,
    lowest: usize,
    taken: usize,
    /// A bit for each, once some have been taken out of order.
    is_taken: Vec<bool>,
}

impl Queue {
    pub fn new(groups: usize, order: Option<Permutation>) -> Queue {
        Queue { groups, order, state: Mutex::default() }
    }

    /// The next one; the one with the lowest number where others wait for somebody, as they mostly wait for those
    /// before them.
    pub fn take(&self, waits: bool) -> Option<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let QueueState { drawn, lowest, taken, is_taken } = &mut *state;
        if *taken == self.groups {
            return None;
        }
        *taken += 1;
        let Some(order) = &self.order else { return Some(*taken - 1) };
        if waits && is_taken.is_empty() {
            is_taken.resize(self.groups, false);
            (0..*drawn).for_each(|n| is_taken[order.at(n)] = true);
        }
        let number = loop {
            let number = if waits { *lowest } else { order.at(*drawn) };
            *(if waits { &mut *lowest } else { &mut *drawn }) += 1;
            if !is_taken.get(number).is_some_and(|&taken| taken) {
                break number;
            }
        };
        if let Some(taken) = is_taken.get_mut(number) {
            *taken = true;
        }
        Some(number)
    }

    /// How many have not been taken.
    pub fn left(&self) -> usize {
        self.groups - self.state.lock().unwrap_or_else(PoisonError::into_inner).taken
    }
}
