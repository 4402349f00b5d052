//! `cargo run --release --example compare_images -- FILE...`: what is read of each file, a line each, for
//! `tests/compare_images.py`.

use std::path::Path;

use memo::data::read_image;
use sha2::{Digest, Sha256};

fn main() {
    for path in std::env::args_os().skip(1) {
        match read_image(Path::new(&path)) {
            Ok(image) => {
                let digest = Sha256::digest(&image.pixels);
                let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                println!("{}x{} {digest}", image.width, image.height);
            }
            Err(error) => println!("refused: {}", format!("{error:#}").replace('\n', " ")),
        }
    }
}
