//! Names of classes that data sets have by number alone.

use std::path::Path;

use super::Classes;
use super::cifar::Cifar;

const CIFAR_10: &str = include_str!("../../assets/classes/cifar-10.txt");
const CIFAR_100: &str = include_str!("../../assets/classes/cifar-100.txt");

/// STL-10's, as its own file and CLIP have them.
pub const STL_10: &str = include_str!("../../assets/classes/stl-10.txt");
/// SVHN's, as CLIP_benchmark has them.
pub const DIGITS: &str = include_str!("../../assets/classes/digits.txt");
/// EuroSAT's folders, tab, CLIP's names for them.
pub const EURO_SAT: &str = include_str!("../../assets/classes/eurosat.tsv");

/// CIFAR's names, as its own files have them.
pub fn cifar(which: Cifar) -> Vec<String> {
    lines(match which {
        Cifar::Cifar10 => CIFAR_10,
        Cifar::Cifar100 => CIFAR_100,
    })
}

pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_string).collect()
}

/// Which CIFAR a path speaks of, by its last two names: `cifar10.1_v6_data.npy`, `CIFAR-100-C/fog.npy`.
pub fn cifar_of(path: &Path) -> Option<Cifar> {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.ancestors().take(2).find_map(|path| {
        let name = path.file_name()?.to_string_lossy().to_lowercase().replace(['-', '_', ' '], "");
        let digits = name.split("cifar").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.to_string();
        match digits.as_str() {
            "10" => Some(Cifar::Cifar10),
            "100" => Some(Cifar::Cifar100),
            _ => None,
        }
    })
}

/// The classes of labels that are numbers and nothing else: the names of a CIFAR, or none but the numbers themselves, from 0 to
/// the largest there is.
pub fn numbered(cifar_is: Option<Cifar>, labels: &[i64]) -> (Vec<String>, Classes) {
    match cifar_is {
        Some(which) => (cifar(which), Classes::Numbers),
        None => {
            let most = labels.iter().copied().max().unwrap_or(0).clamp(0, MOST_CLASSES - 1);
            ((0..=most).map(|number| number.to_string()).collect(), Classes::Unnamed)
        }
    }
}

/// More are a mistake: each would have a prompt.
const MOST_CLASSES: i64 = 100_000;
