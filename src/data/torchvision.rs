//! Data sets as torchvision has them on disk, by the files that they alone have: their test images, by their own lists of these.
//! <https://docs.pytorch.org/vision/stable/datasets.html>

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::bytes::Bytes;
use super::folder::{self, Files};
use super::pixels::{Layout, Pixels, Rows, classes_of};
use super::{Classes, DataSource, Dataset, known, labels, matlab};

/// One of them: a file that it alone has, from its own folder on, and how it is opened there.
struct Form {
    marker: &'static str,
    /// What torchvision calls the folder, from the one that it was given on.
    folder: &'static str,
    splits: &'static [&'static str],
    open: fn(&Path, &str) -> Result<Dataset>,
}

/// The first of a form's splits is what is evaluated on.
const FORMS: [Form; 5] = [
    Form { marker: "test_X.bin", folder: "stl10_binary", splits: &["test", "train"], open: stl_10 },
    Form { marker: "test_32x32.mat", folder: "", splits: &["test", "train", "extra"], open: svhn },
    Form { marker: "meta/classes.txt", folder: "food-101", splits: &["test", "train"], open: food_101 },
    Form {
        marker: "annotations/trainval.txt",
        folder: "oxford-iiit-pet",
        splits: &["test", "trainval"],
        open: pets,
    },
    Form {
        marker: "labels/test1.txt",
        folder: "dtd/dtd",
        splits: &["test1", "val1", "train1"],
        open: textures,
    },
];

/// The data set's own folder or the one that torchvision was given. Of its splits the test images, unless another is asked for.
pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    if !path.is_dir() {
        return match path.file_name().and_then(|name| name.to_str()?.strip_suffix("_32x32.mat")) {
            Some(split) => svhn(path.parent().unwrap_or(Path::new("")), split).map(Some),
            None => Ok(None),
        };
    }
    let opening = || format!("opening the dataset {}", path.display());
    let mut found = Vec::new();
    for form in &FORMS {
        let inner = Path::new(form.folder).file_name().map(|inner| path.join(inner));
        let places = [Some(path.to_path_buf()), Some(path.join(form.folder)), inner];
        let place = places.into_iter().flatten().find(|place| place.join(form.marker).is_file());
        found.extend(place.map(|place| (form, place)));
    }
    let (form, place) = match &found[..] {
        [] => return euro_sat(path, source),
        [one] => one,
        [(_, first), (_, second), ..] => bail!(
            "{}: it has several datasets; say which by --data {} or --data {}",
            opening(),
            first.display(),
            second.display()
        ),
    };
    let asked = source.split.as_deref().filter(|split| *split != ".");
    let split = asked.unwrap_or(form.splits[0]);
    // DTD has ten ways to part its images, of which the first is torchvision's.
    let is_known = form.splits.contains(&split) || (form.folder == "dtd/dtd" && is_partition(split));
    ensure!(is_known, "{}: --split {split}: no such split; there are {}", opening(), form.splits.join(", "));
    let mut dataset = (form.open)(place, split)?;
    dataset.took.split = asked.map(str::to_string);
    Ok(Some(dataset))
}

fn is_partition(split: &str) -> bool {
    let number = ["test", "val", "train"].iter().find_map(|part| split.strip_prefix(part)?.parse().ok());
    matches!(number, Some(1..=10))
}

fn stl_10(place: &Path, split: &str) -> Result<Dataset> {
    const SIDE: usize = 96;
    let (images, numbers) = (place.join(format!("{split}_X.bin")), place.join(format!("{split}_y.bin")));
    let names = match place.join("class_names.txt") {
        file if file.is_file() => labels::read(&file)?.names()?,
        _ => known::lines(known::STL_10),
    };
    let read = || -> Result<Vec<usize>> {
        let numbers = Bytes::open(&numbers)?;
        // From 1 on.
        let numbers = numbers.all()?.iter().map(|&number| i64::from(number) - 1).collect();
        classes_of(numbers, names.len())
    };
    let classes = read()
        .with_context(|| format!("reading the labels {} (one less than they say)", numbers.display()))?;
    let read = || Pixels::new(Bytes::open(&images)?, classes.len(), (SIDE, SIDE), Layout::PlanesByColumns);
    let pixels = read().with_context(|| format!("reading the images {}", images.display()))?;
    let mut dataset = Dataset::new(names, Classes::Numbers, Rows::of(pixels, classes));
    dataset.format = "STL-10's binary files";
    Ok(dataset)
}

fn svhn(place: &Path, split: &str) -> Result<Dataset> {
    let file = place.join(format!("{split}_32x32.mat"));
    let read = || -> Result<Rows> {
        let variables = matlab::read(&Bytes::open(&file)?)?;
        let variable = |name: &str| {
            let found = variables.iter().find(|variable| variable.name == name);
            found.with_context(|| format!("it has no variable `{name}`"))
        };
        let (images, numbers) = (variable("X")?, variable("y")?);
        let &[height, width, 3, count] = &images.shape[..] else {
            bail!("its variable `X` has shape {:?}; (32, 32, 3, N) is expected", images.shape);
        };
        let bytes = images.bytes().context("its variable `X`")?;
        let numbers = numbers.integers().context("its variable `y`")?;
        ensure!(numbers.len() == count, "its variable `y` has {} labels for {count} images", numbers.len());
        // The digit 0 is class 10 there, as in MATLAB's counting, and class 0 in torchvision.
        let numbers = numbers.into_iter().map(|number| if number == 10 { 0 } else { number }).collect();
        let classes = classes_of(numbers, 10).context("its variable `y`")?;
        let pixels = Pixels::new(bytes, count, (width, height), Layout::PlanesByColumns)
            .context("its variable `X`")?;
        Ok(Rows::of(pixels, classes))
    };
    let rows = read().with_context(|| format!("reading the images {}", file.display()))?;
    let mut dataset = Dataset::new(known::lines(known::DIGITS), Classes::Numbers, rows);
    dataset.format = "SVHN's MATLAB file";
    Ok(dataset)
}

/// A list's lines, which may not be empty.
fn lines_of(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect();
    ensure!(!lines.is_empty(), "{} is empty", file.display());
    Ok(lines)
}

/// Images of a list, each `CLASS/NAME` below `images`, in the list's order; classes are those of the folders there.
fn of_list(place: &Path, list: &Path, end: &str) -> Result<(Vec<String>, Files)> {
    let root = place.join("images");
    let folders = folder::subfolders(&root)?;
    let mut names: Vec<String> =
        folders.iter().filter_map(|folder| Some(folder.file_name()?.to_str()?.to_string())).collect();
    names.sort();
    let mut files = Vec::new();
    for (line, number) in lines_of(list)?.into_iter().zip(1..) {
        let class = line
            .split_once('/')
            .and_then(|(class, _)| names.binary_search_by(|name| name.as_str().cmp(class)).ok());
        let class = class.with_context(|| {
            format!("{}: line {number}, {line}, is in no folder of {}", list.display(), root.display())
        })?;
        files.push((root.join(format!("{line}{end}")), class));
    }
    Ok((names, Files { root, files, groups: Vec::new() }))
}

fn food_101(place: &Path, split: &str) -> Result<Dataset> {
    let (names, mut files) = of_list(place, &place.join(format!("meta/{split}.txt")), ".jpg")?;
    // torchvision goes by test.json, class by class; this list is in the same order.
    files.files.sort_by_key(|(_, class)| *class);
    let clip = names.iter().map(|name| name.replace('_', " ")).collect();
    let mut dataset = Dataset::new(names, Classes::Folders, files);
    dataset.format = "Food-101";
    dataset.names = Some((clip, "Food-101's, as CLIP has them"));
    Ok(dataset)
}

fn textures(place: &Path, split: &str) -> Result<Dataset> {
    let (names, files) = of_list(place, &place.join(format!("labels/{split}.txt")), "")?;
    let mut dataset = Dataset::new(names, Classes::Folders, files);
    dataset.format = "the Describable Textures Dataset";
    Ok(dataset)
}

fn pets(place: &Path, split: &str) -> Result<Dataset> {
    let (list, root) = (place.join(format!("annotations/{split}.txt")), place.join("images"));
    let mut names: Vec<Option<String>> = Vec::new();
    let mut files: Vec<(PathBuf, usize)> = Vec::new();
    for (line, number) in lines_of(&list)?.into_iter().zip(1..) {
        let at = || format!("{}: line {number}, {line}", list.display());
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[image, class, _, _] = &words[..] else { bail!("{}: four words are expected", at()) };
        let class: usize = class
            .parse()
            .ok()
            .filter(|class| (1..=1000).contains(class))
            .with_context(|| format!("{}: its class is no number", at()))?;
        let (breed, _) =
            image.rsplit_once('_').with_context(|| format!("{}: the image has no number", at()))?;
        let name: Vec<String> = breed.split('_').map(capital).collect();
        names.resize(names.len().max(class), None);
        let known = names[class - 1].get_or_insert_with(|| name.join(" "));
        ensure!(*known == name.join(" "), "{}: class {class} was {known} before", at());
        files.push((root.join(format!("{image}.jpg")), class - 1));
    }
    let names = names.into_iter().zip(1..).map(|(name, class)| {
        name.with_context(|| format!("{}: no image of class {class} tells its name", list.display()))
    });
    let names = names.collect::<Result<Vec<String>>>()?;
    let mut dataset = Dataset::new(names, Classes::Numbers, Files { root, files, groups: Vec::new() });
    dataset.format = "Oxford-IIIT Pets";
    Ok(dataset)
}

/// As Python's `str.title` makes words of letters.
fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters.flat_map(char::to_lowercase)).collect()
    })
}

/// EuroSAT has folders, and classes that CLIP calls otherwise; torchvision's archive has them in `2750`.
fn euro_sat(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let pairs: Vec<(&str, &str)> = known::EURO_SAT.lines().filter_map(|line| line.split_once('\t')).collect();
    let is = |place: &PathBuf| pairs.iter().all(|(class, _)| place.join(class).is_dir());
    let places = [path.to_path_buf(), path.join("2750"), path.join("eurosat/2750")];
    let Some(place) = places.into_iter().find(is) else { return Ok(None) };
    let Some(mut dataset) = folder::open(&place, source)? else { return Ok(None) };
    let clip = |own: &String| pairs.iter().find(|(class, _)| class == own).map(|(_, name)| name.to_string());
    if let Some(names) = dataset.labels.iter().map(clip).collect() {
        dataset.names = Some((names, "EuroSAT's, as CLIP has them"));
        dataset.format = "EuroSAT's folders";
    }
    Ok(Some(dataset))
}
