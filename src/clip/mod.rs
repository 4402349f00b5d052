//! CLIP: what a checkpoint says, its parameters, its tokenizer, and its two towers on the device.

mod checkpoint;
mod config;
mod layout;
mod names;
mod text;
mod tokenizer;
mod tower;
mod vision;

pub use checkpoint::{Checkpoint, Summary};
pub use config::{Activation, ClipConfig, TowerConfig};
pub use layout::{BlockLayout, TextLayout, VisionLayout};
pub use names::{Naming, Source};
pub use text::encode_text;
pub use tokenizer::{END_OF_TEXT, Tokenizer};
pub use vision::VisionTower;
