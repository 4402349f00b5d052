//! One machine's part of a dataset, where several share it.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

/// The images whose index leaves `index` when divided by `of`. Written `INDEX/OF`, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: usize,
    pub of: usize,
}

impl Shard {
    pub fn has(self, image: usize) -> bool {
        image % self.of == self.index
    }

    /// As the settings of its run have it.
    ///
    /// * `images`: those of the run.
    pub fn settings(self, images: usize) -> Value {
        json!({ "index": self.index, "of": self.of, "images": images })
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let numbers = text.split_once('/').and_then(|(i, of)| Some((i.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of => Ok(Shard { index, of }),
            Some((index, of)) if of > 0 => {
                Err(format!("there is no shard {index} of {of}: they are counted from 0 to {}", of - 1))
            }
            _ => Err("expected I/N, such as 0/8 for the first of eight shards".to_string()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_counted_from_0() {
        for (text, want) in [("0/1", (0, 1)), ("3/8", (3, 8)), ("7/8", (7, 8))] {
            let shard: Shard = text.parse().unwrap();
            assert_eq!((shard.index, shard.of), want);
            assert_eq!(shard.to_string(), text);
        }
        for (text, want) in [
            ("8/8", "from 0 to 7"),
            ("0/0", "I/N"),
            ("1", "I/N"),
            ("1/", "I/N"),
            ("-1/4", "I/N"),
            ("a/b", "I/N"),
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn each_image_is_in_one_shard() {
        for (of, image) in (1..5).flat_map(|of| (0..20).map(move |image| (of, image))) {
            assert_eq!((0..of).filter(|&index| Shard { index, of }.has(image)).count(), 1);
        }
    }
}
