//! CLIP: what a checkpoint says, its parameters, its tokenizer, and its two towers on the device.

mod checkpoint;
mod config;
mod config_file;
mod convert;
mod fields;
mod hugging_face;
mod layout;
mod names;
mod open_clip;
mod sizes;
mod sources;
mod summary;
mod text;
mod tokenizer;
mod tower;
mod vision;
mod weights;

pub use checkpoint::Checkpoint;
pub use config::{Activation, ClipConfig, TextConfig, TowerConfig};
pub use layout::{BlockLayout, TextLayout, VisionLayout};
pub use names::Naming;
pub use sources::Source;
pub use summary::Summary;
pub use text::encode_text;
pub use tokenizer::{END_OF_TEXT, Tokenizer};
pub use vision::VisionTower;
