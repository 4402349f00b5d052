//! ImageNet's 1,000 classes: their WordNet ids and what they are called.

use std::collections::HashMap;
use std::sync::LazyLock;

use anyhow::{Result, bail};

use super::labels::is_word_net_id;

/// In their order: WordNet id, OpenAI's name, WordNet's synonyms, parted by tabs (`assets/make_imagenet.py` says whose).
const TABLE: &str = include_str!("../../assets/imagenet_classes.tsv");

pub struct Class {
    pub id: &'static str,
    /// OpenAI's, for CLIP's prompts.
    pub name: &'static str,
    /// WordNet's, parted by `, `.
    pub synonyms: &'static str,
}

pub static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let class = |line: &'static str| {
        let (id, rest) = line.split_once('\t')?;
        let (name, synonyms) = rest.split_once('\t')?;
        Some(Class { id, name, synonyms })
    };
    TABLE.lines().filter_map(class).collect()
});

static BY_ID: LazyLock<HashMap<&str, &Class>> =
    LazyLock::new(|| CLASSES.iter().map(|class| (class.id, class)).collect());

pub fn class(id: &str) -> Option<&'static Class> {
    BY_ID.get(id).copied()
}

/// Names for folders that are its classes' numbers, all from 0 to 999, as ImageNet-V2's are.
pub fn by_number(folders: &[String]) -> Option<Vec<String>> {
    let name = |folder: &String| Some(CLASSES.get(folder.parse::<usize>().ok()?)?.name.to_string());
    (folders.len() == CLASSES.len()).then(|| folders.iter().map(name).collect())?
}

/// Names as they are, and ImageNet's for WordNet ids, of which CLIP knows nothing.
///
/// # Errors
/// An id that is none of ImageNet's 1000.
pub fn spelled_out(names: Vec<String>) -> Result<Vec<String>> {
    let name = |name: String| match class(&name) {
        Some(class) => Ok(class.name.to_string()),
        None if !is_word_net_id(&name) => Ok(name),
        None => bail!("{name} is a WordNet id, but none of ImageNet's 1000; give names with --labels"),
    };
    names.into_iter().map(name).collect()
}
