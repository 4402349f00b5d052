//! CLIP: what a checkpoint says, where its parameters lie, and its tokenizer.

mod checkpoint;
mod config;
mod config_file;
mod convert;
mod fields;
mod hugging_face;
mod layout;
mod names;
mod open_clip;
mod place;
mod prefix;
mod preprocess;
pub mod prompts;
mod sizes;
mod sources;
mod summary;
mod tokenizer;
mod weights;

pub use checkpoint::Checkpoint;
pub use config::{Activation, ClipConfig, LOGIT_SCALE, TextConfig, TowerConfig};
pub use layout::{BlockLayout, TextLayout, VisionLayout};
pub use names::Naming;
pub use sources::Source;
pub use summary::Summary;
pub use tokenizer::{END_OF_TEXT, Tokenizer};
