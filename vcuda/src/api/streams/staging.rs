//! Copies and fills that are queued: when the host's side of a copy is read, and whether the call returns before.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use super::copy::{Copy, Fill, Side};
use super::plan::Task;
use super::queue;
use super::work::Work;
use crate::api::error::{Outcome, Status};
use crate::api::objects::allocation;
use crate::api::objects::stream::Place;
use crate::api::settings::settings;
use crate::order::When;

impl Copy {
    /// Queues it. Pageable memory is read before the call returns, and written before it does; page-locked memory is
    /// read when the copy comes to run, and should be as it was then.
    ///
    /// # Errors
    /// A row outside every live allocation; a fault, where the call waits.
    pub fn queue(self, place: &Place) -> Outcome {
        self.check()?;
        let is_pageable = |side: &Side| !side.on_device && !allocation::is_pinned(side.address);
        let task = match &self.from {
            side if is_pageable(side) => self.staged(),
            side if !side.on_device && settings().options.checks.race => self.remembered(),
            _ => Task::Work(Work::Copy(self)),
        };
        let mark = queue::push(place, task, &[]);
        match is_pageable(&self.to) {
            true => queue::wait(place.context, &[mark]),
            false => Ok(()),
        }
    }

    /// The host's rows that it copies from.
    fn source(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: as many bytes of the client's, as it says.
        self.rows().map(|(_, from)| unsafe { std::slice::from_raw_parts(from as *const u8, self.width) })
    }

    fn staged(&self) -> Task {
        let mut bytes: Vec<u8> = Vec::with_capacity(self.width * self.height * self.depth);
        self.source().for_each(|row| bytes.extend_from_slice(row));
        let (pitch, layer) = (self.width, self.width * self.height);
        let mut copy = *self;
        Task::Call(Box::new(move |when: &When| {
            copy.from = Side { address: bytes.as_ptr() as u64, pitch, layer, on_device: false };
            copy.run(Some(when))
        }))
    }

    /// A hash of what the host has there.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.source().for_each(|row| hasher.write(row));
        hasher.finish()
    }

    fn remembered(self) -> Task {
        let bytes = self.from.extent(&self);
        if self.to.on_device && !queue::may_write(self.from.address, bytes) {
            let before = self.digest();
            return Task::Call(Box::new(move |when: &When| {
                if self.digest() == before {
                    return self.run(Some(when));
                }
                say!(
                    "race: the host has written to its memory at {:#x} since it queued a copy of {bytes} bytes from there \
                     on {}, which has not run: nothing orders the two",
                    self.from.address,
                    when.stream
                );
                Err(Status::LaunchFailed)
            }));
        }
        Task::Work(Work::Copy(self))
    }
}

impl Fill {
    /// Queues it.
    ///
    /// # Errors
    /// A row outside every live allocation, or not aligned to its elements.
    pub fn queue(self, place: &Place) -> Outcome {
        self.check()?;
        queue::push(place, Task::Work(Work::Fill(self)), &[]);
        Ok(())
    }
}
