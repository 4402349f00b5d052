//! A folder with one subfolder of images a class: the classes, files and order of torchvision's `ImageFolder`, since an
//! image's index keys its views.
//!
//! Not as there: hidden files and folders, and those that operating systems leave behind, are left out; a folder that
//! links to one around it is entered once; what is no plain file (a FIFO would be waited for) is left out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::image::read_bytes;
use super::source::{Source, Stored};
use super::unread::kind_of;
use super::{Classes, DataSource, Dataset, names, splits};

/// torchvision's `IMG_EXTENSIONS`.
pub const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// Images that are taken by `--extensions` alone; where some are left out, a note says so.
const OTHERS: [&str; 14] =
    ["gif", "pnm", "pbm", "pam", "jfif", "jpe", "dib", "apng", "avif", "heic", "heif", "jp2", "jxl", "tga"];

/// What systems and tools put beside people's files.
const SYSTEMS: [&str; 5] = ["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"];

/// Whose names ImageNet-V2's folders have.
pub const IMAGENET_BY_NUMBER: &str = "numbers with ImageNet's names, as OpenAI has them";

/// Classes in the order of their folders' names, images in the order of Python's `sorted(os.walk(class))`; `None` if
/// there are no subfolders.
///
/// # Errors
/// A folder that cannot be read or has no images; one of splits, corruptions or the like instead of classes.
pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    if !path.is_dir() {
        return Ok(None);
    }
    let Some(Listing { labels, files, notices }) = list(path, source)? else { return Ok(None) };
    let names = is_imagenet(path).then(|| names::imagenet_by_number(&labels)).flatten();
    let mut dataset = Dataset::new(labels, Classes::Folders, files);
    dataset.notices = notices;
    dataset.format = "a folder of images a class";
    dataset.names = names.map(|names| (names, IMAGENET_BY_NUMBER));
    dataset.took.extensions = true;
    Ok(Some(dataset))
}

/// Whether a path speaks of ImageNet: the folders of ImageNet-V2 are the classes' numbers, which other sets' may be too.
pub fn is_imagenet(path: &Path) -> bool {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.to_string_lossy().to_lowercase().contains("imagenet")
}

/// Class folders' names, their images, and what was left out.
pub struct Listing {
    pub labels: Vec<String>,
    pub files: Files,
    pub notices: Vec<String>,
}

/// What [`open`] finds.
///
/// # Errors
/// [`open`]'s.
pub fn list(path: &Path, source: &DataSource) -> Result<Option<Listing>> {
    let opening = || format!("opening the dataset {}", path.display());
    if let Some(split) = source.split.as_deref().filter(|split| *split != ".") {
        let folders = subfolders(path)?;
        let names: Vec<_> = folders.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy())).collect();
        bail!("{}: --split {split}: no such folder; there are {}", opening(), names.join(", "));
    }
    let mut walk = Walk::new(source);
    let inside = walk.entries(path).with_context(opening)?;
    let folders: Vec<PathBuf> = inside.iter().filter(|e| e.is_folder).map(|e| e.path.clone()).collect();
    if folders.is_empty() {
        return Ok(None);
    }
    if source.split.is_none() {
        splits::refuse(path, &folders).with_context(opening)?;
    }
    let loose = inside.iter().filter(|entry| !entry.is_folder && walk.is_image(&entry.path)).count();
    if loose > 0 {
        walk.notices
            .push(format!("{loose} images beside the class folders in {} are of no class", path.display()));
    }
    let (mut labels, mut files) = (Vec::new(), Vec::new());
    for (label, folder) in folders.iter().enumerate() {
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else {
            bail!("opening the dataset {}: the name of a class folder is not UTF-8", folder.display());
        };
        let images = walk.below(path, folder).with_context(opening)?;
        if images.is_empty() {
            let instead = walk.instead(folder);
            return Err(anyhow!("its class folder {name} has no images{instead}")).with_context(opening);
        }
        labels.push(name.to_string());
        files.extend(images.into_iter().map(|image| (image, label)));
    }
    let files = Files { root: path.to_path_buf(), files, groups: Vec::new() };
    Ok(Some(Listing { labels, files, notices: walk.notices() }))
}

/// One file an image, below a folder.
#[derive(Default)]
pub struct Files {
    pub root: PathBuf,
    /// With their classes.
    pub files: Vec<(PathBuf, usize)>,
    /// Where each group's files begin, and its name.
    pub groups: Vec<(usize, String)>,
}

impl Source for Files {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, index: usize) -> usize {
        self.files[index].1
    }

    fn file(&self, index: usize) -> Option<String> {
        let path = &self.files[index].0;
        Some(path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned())
    }

    fn group(&self, index: usize) -> Option<&str> {
        let at = self.groups.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        Some(&self.groups[at].1)
    }

    fn name(&self, index: usize) -> String {
        format!("the image {}", self.files[index].0.display())
    }

    fn read(&self, index: usize) -> Result<Stored<'_>> {
        Ok(Stored::Encoded(read_bytes(&self.files[index].0)?.into()))
    }

    fn restore(&mut self, index: usize, file: &str, label: usize) {
        let path = self.root.join(file);
        if self.files.iter().all(|(other, _)| *other != path) {
            let at = index.min(self.files.len());
            self.files.insert(at, (path, label));
            // It may be the first of the group that begins there, or the last of the one before.
            let behind = |(first, group): &(usize, String)| {
                *first > at || (*first == at && !file.contains(&format!("{group}/")))
            };
            self.groups.iter_mut().filter(|group| behind(group)).for_each(|(first, _)| *first += 1);
        }
    }
}

/// A way through folders, and what was left out on it.
#[derive(Default)]
struct Walk {
    extensions: Vec<String>,
    hidden: Vec<PathBuf>,
    special: Vec<PathBuf>,
    others: Vec<PathBuf>,
    circles: Vec<PathBuf>,
    notices: Vec<String>,
}

impl Walk {
    fn new(source: &DataSource) -> Walk {
        let more = source.extensions.iter().map(|e| e.trim_start_matches('.').to_lowercase());
        let extensions = EXTENSIONS.map(String::from).into_iter().chain(more).collect();
        Walk { extensions, ..Walk::default() }
    }

    /// A folder's entries by name, without what is hidden; of that, what `ImageFolder` would take is remembered.
    fn entries(&mut self, folder: &Path) -> Result<Vec<Entry>> {
        let (hidden, shown): (Vec<_>, Vec<_>) =
            entries(folder)?.into_iter().partition(|entry| is_hidden(&entry.path));
        let taken = hidden.into_iter().filter(|entry| entry.is_folder || self.is_image(&entry.path));
        let taken: Vec<PathBuf> = taken.map(|entry| entry.path).collect();
        self.hidden.extend(taken);
        Ok(shown)
    }

    /// A class's images, those of folders inside it too.
    fn below(&mut self, root: &Path, class: &Path) -> Result<Vec<PathBuf>> {
        let real =
            |folder: &Path| folder.canonicalize().with_context(|| format!("reading {}", folder.display()));
        let mut left = vec![(class.to_path_buf(), vec![real(root)?])];
        let mut folders = Vec::new();
        while let Some((folder, mut around)) = left.pop() {
            let real = real(&folder)?;
            if around.iter().any(|around: &PathBuf| around.starts_with(&real)) {
                self.circles.push(folder);
                continue;
            }
            around.push(real);
            let (inside, files): (Vec<_>, Vec<_>) =
                self.entries(&folder)?.into_iter().partition(|e| e.is_folder);
            left.extend(inside.into_iter().map(|inside| (inside.path, around.clone())));
            folders.push((folder, files));
        }
        // As text, in which `a-b` comes before `a/b`; paths compare part by part.
        folders.sort_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
        let mut images = Vec::new();
        for Entry { path, is_special, .. } in folders.into_iter().flat_map(|(_, files)| files) {
            if !self.is_image(&path) {
                let known = extension(&path).is_some_and(|extension| OTHERS.contains(&extension.as_str()));
                self.others.extend(known.then_some(path));
            } else if is_special {
                self.special.push(path);
            } else {
                images.push(path);
            }
        }
        Ok(images)
    }

    fn is_image(&self, path: &Path) -> bool {
        extension(path).is_some_and(|extension| self.extensions.contains(&extension))
    }

    /// What there is instead of images in a folder that has none, for an error.
    fn instead(&self, folder: &Path) -> String {
        let other = |path: &&PathBuf| path.starts_with(folder);
        if let Some(extension) = self.others.iter().find(other).and_then(|path| extension(path)) {
            return format!(
                " that torchvision's ImageFolder takes; --extensions {extension} takes those there are"
            );
        }
        let file = entries(folder).unwrap_or_default().into_iter().find(|entry| !entry.is_folder);
        match file.and_then(|file| Some((kind_of(&file.path)?, file.path))) {
            Some((kind, file)) => format!("; {} is {kind}", file.display()),
            None => format!("; their names end in {}", self.extensions.join(", ")),
        }
    }

    fn notices(mut self) -> Vec<String> {
        for (left, why) in [
            (&self.hidden, "hidden, though torchvision's ImageFolder would take it"),
            (&self.others, "of an extension that torchvision passes over too; --extensions takes it"),
            (&self.special, "no plain file, and might be waited for without end"),
            (&self.circles, "a link to a folder that it lies in"),
        ] {
            if let [first, rest @ ..] = &left[..] {
                let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                self.notices.push(format!("left out: {}{more}: {why}", first.display()));
            }
        }
        self.notices
    }
}

/// What lies in a folder; links are what they lead to, and a file that is missing where they lead nowhere.
#[derive(Clone)]
pub struct Entry {
    pub path: PathBuf,
    pub is_folder: bool,
    /// Neither a file nor a folder.
    is_special: bool,
}

/// A folder's entries in the order of their names.
pub fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let read = || -> std::io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let (path, mut kind) = (entry.path(), entry.file_type()?);
            if kind.is_symlink() {
                kind = std::fs::metadata(&path).map_or(kind, |metadata| metadata.file_type());
            }
            let is_special = !kind.is_file() && !kind.is_dir() && !kind.is_symlink();
            entries.push(Entry { path, is_folder: kind.is_dir(), is_special });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    };
    read().with_context(|| format!("reading the folder {}", folder.display()))
}

/// A folder's folders that are not hidden.
pub fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_class = |entry: &Entry| entry.is_folder && !is_hidden(&entry.path);
    Ok(entries(folder)?.into_iter().filter(is_class).map(|entry| entry.path).collect())
}

pub fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || SYSTEMS.contains(&name.as_ref())
}

/// In lower case, without the dot.
fn extension(path: &Path) -> Option<String> {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase())
}
