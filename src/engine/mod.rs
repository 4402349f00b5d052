//! MEMO on batches of images (arXiv 2110.09506):
//!
//! 1. draw `N` random views of each image, on the device;
//! 2. run the vision tower on all of them, and get logits;
//! 3. take the entropy of each image's average prediction over its views, or over the confident ones;
//! 4. back-propagate through the whole tower, and make a step of SGD or AdamW, each image its own;
//! 5. predict the images themselves, before and after, more exactly than that: [`Fine`].
//!
//! The same views give the predictions of methods that take no step: the views' average, the confident views' average (TPT's
//! selection, arXiv 2209.07511), and their vote (ZERO, arXiv 2405.18330).
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
mod prediction;
mod rehearsal;
mod seen;
mod slot;
mod stages;
mod text;
mod text_cache;
mod tower;
mod views;
mod vision;
mod weights;

pub use acts::{Acts, BlockActs, Normed};
pub use batch::{Batch, Item};
pub use dims::Dims;
pub use fine::Fine;
pub use grads::{Grads, Kept};
pub use memo::{Memo, Queued};
pub use needs::Needs;
pub use outcome::{Loss, Outcome, Precision, Raw, RawViews, Settings, Stepped, Update};
pub use prediction::{Guard, Guards, Prediction};
pub use rehearsal::{modules, prepare, rehearse_batch};
pub use text::encode_text;
pub use text_cache::{TextCache, WORTH_KEEPING};
pub use tower::{Model, Tower};
pub use views::Views;
pub use vision::Vision;
pub use weights::Params;
