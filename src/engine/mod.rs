//! MEMO on batches of images (arXiv 2110.09506):
//!
//! 1. draw `N` random views of each image, on the device;
//! 2. run the vision tower on all of them, and get logits;
//! 3. take the entropy of each image's average prediction over its views;
//! 4. back-propagate through the whole tower, and make a step of SGD or AdamW, each image its own;
//! 5. predict the images themselves, before and after, more exactly than that: [`Fine`].
//!
//! An image's results do not depend on the batch that it is in.

mod acts;
mod batch;
mod block;
mod buffers;
mod dims;
mod fine;
mod grads;
mod graphs;
mod implicit;
mod in_place;
mod memo;
mod needs;
mod outcome;
mod rehearsal;
mod slot;
mod stages;
mod text;
mod vision;
mod weights;

pub use acts::{Acts, BlockActs, Normed};
pub use batch::{Batch, Item, Views};
pub use dims::Dims;
pub use fine::Fine;
pub use grads::{Grads, Kept};
pub use memo::{Memo, Queued};
pub use needs::Needs;
pub use outcome::{Outcome, Precision, Prediction, Raw, Settings, Update};
pub use rehearsal::{modules, prepare, rehearse_batch};
pub use text::encode_text;
pub use vision::Vision;
pub use weights::Params;
