//! What copies, fills and frees touch, as the race check is told of it where work is queued.

use crate::api::error::{Outcome, Status};
use crate::api::objects::device::devices;
use crate::api::settings::settings;
use crate::exec::check::pieces::Turn;
use crate::order::When;

/// A piece of work under way, which touches memory range by range.
pub struct Touch(Option<Turn<'static>>);

impl Touch {
    /// `what` it is, in words.
    pub fn new(when: Option<&When>, what: &str) -> Touch {
        let when = when.filter(|when| when.has_company && settings().options.checks.race);
        Touch(when.map(|when| devices()[0].memory.shadow.pieces.begin(when, what.to_string())))
    }

    /// It reads or writes a range.
    ///
    /// # Errors
    /// Nothing orders that and what others have done there.
    pub fn range(&mut self, start: u64, bytes: usize, writes: bool) -> Outcome {
        let Some(turn) = &mut self.0 else { return Ok(()) };
        turn.touch(start as usize, bytes, writes).map_err(|what| {
            say!("race: {what}");
            Status::LaunchFailed
        })
    }
}
