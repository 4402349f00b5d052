//! What a stream is asked for finds its place: in a capture, in the queue, or done at once.

use super::plan::Task;
use super::work::Work;
use super::{capture, queue};
use crate::api::error::{Outcome, Status};
use crate::api::objects::handles::StreamHandle;
use crate::api::objects::{context, stream};
use crate::api::settings::settings;

/// Does a stream's work, or keeps it where the stream is being captured.
///
/// # Errors
/// Those of the work, or of the capture.
pub fn submit(stream: StreamHandle, work: Work) -> Outcome {
    let (context, place) = (context::require()?, stream::place(stream)?);
    let is_own = std::ptr::eq(context, place.context);
    if let Work::Kernel(_) = work
        && !is_own
    {
        say!("handle: {stream:?} is a stream of another context than the kernel's that is launched in it");
        return Err(Status::InvalidHandle);
    }
    if capture::any() && capture::keep(stream, &work)? {
        return Ok(());
    }
    if !settings().defers {
        return if is_own { work.run(None) } else { place.context.within(|| work.run(None)) };
    }
    match work {
        Work::Copy(copy) => copy.queue(&place),
        Work::Fill(fill) => fill.queue(&place),
        Work::Child(_) | Work::Record(_) | Work::Wait(_) => {
            queue::push_graph(&place, vec![(work, Vec::new())]);
            Ok(())
        }
        work => {
            queue::push(&place, Task::Work(work), &[]);
            Ok(())
        }
    }
}
