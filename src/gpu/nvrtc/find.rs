//! Which NVRTC: every place where one may be, and the one of those that fits the driver.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use super::Nvrtc;
use crate::gpu::CudaVersion;

impl Nvrtc {
    /// The NVRTC for a driver of this version, of those that are there: the newest whose major version is not newer, since a driver
    /// loads cubins of its own major version and older. Where there are only newer ones, the oldest of them, whose PTX the driver
    /// may take. `MEMO_NVRTC` alone, a library or a folder of one, or several with colons between them, is looked at where it is set and
    /// not empty.
    ///
    /// * `fitting`: the version to advise where there is none.
    ///
    /// # Errors
    /// None found: with the one command that gets the one that fits.
    pub fn find(driver: CudaVersion, fitting: CudaVersion) -> Result<&'static Nvrtc> {
        static FOUND: OnceLock<Result<Vec<Nvrtc>, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| match set("MEMO_NVRTC") {
            Some(paths) => std::env::split_paths(&paths).map(|path| named(&path)).collect(),
            None => all(candidates()),
        });
        let found = found.as_ref().map_err(|message| match set("MEMO_NVRTC") {
            Some(_) => anyhow!("{message}; {}", how_to_get(fitting)),
            None => anyhow!("{message}"), // it is there
        })?;
        let versions: Vec<CudaVersion> = found.iter().map(Nvrtc::version).collect();
        best(&versions, driver).map(|i| &found[i]).ok_or_else(|| {
            anyhow!(
                "finding NVRTC, the CUDA run-time compiler: not in MEMO_NVRTC, the loader's path, CUDA_HOME, \
                 /usr/local/cuda, a Python environment or .nvrtc/; {}",
                how_to_get(fitting)
            )
        })
    }

    /// The newest one, for whoever reads its PTX himself.
    ///
    /// # Errors
    /// None found.
    pub fn any() -> Result<&'static Nvrtc> {
        let newest = CudaVersion { major: u32::MAX, minor: 0 };
        Nvrtc::find(newest, CudaVersion::TESTED)
    }
}

/// A variable of the environment that says something.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// One that `MEMO_NVRTC` names.
fn named(path: &Path) -> Result<Nvrtc, String> {
    let file = library_in(path).unwrap_or(path.to_path_buf());
    if file.is_dir() {
        let inside = wheel_libraries(path).pop().and_then(|file| Some(file.parent()?.display().to_string()));
        let inside = inside.map_or(String::new(), |folder| format!("; {folder} has one"));
        return Err(format!("MEMO_NVRTC={}: it holds no libnvrtc.so{inside}", file.display()));
    }
    Nvrtc::open(&file).map_err(|e| format!("MEMO_NVRTC={}: {e:#}", file.display()))
}

/// The command that gets the NVRTC of a version.
pub fn how_to_get(fitting: CudaVersion) -> String {
    format!("get it with `make nvrtc`, or `pip install '{}'` in the active environment", fitting.wheel())
}

/// Which of these fits a driver best: see [`Nvrtc::find`]. Among equals the first.
fn best(versions: &[CudaVersion], driver: CudaVersion) -> Option<usize> {
    let (fitting, newer): (Vec<usize>, Vec<usize>) =
        (0..versions.len()).partition(|&i| versions[i].major <= driver.major);
    let newest = fitting.into_iter().rev().max_by_key(|&i| versions[i]);
    newest.or_else(|| newer.into_iter().min_by_key(|&i| versions[i]))
}

/// Those of the candidates that open, each file once.
///
/// # Errors
/// None of those that are there opens: the last one, and why, such as memory that does not suffice.
fn all(candidates: Vec<PathBuf>) -> Result<Vec<Nvrtc>, String> {
    let (mut files, mut found, mut broken) = (Vec::new(), Vec::new(), None);
    for candidate in candidates {
        let nvrtc = match Nvrtc::open(&candidate) {
            Ok(nvrtc) => nvrtc,
            Err(error) if candidate.is_file() => {
                broken = Some(format!("opening NVRTC, {}: {error:#}", candidate.display()));
                continue;
            }
            Err(_) => continue,
        };
        let file = nvrtc.file().and_then(|file| Ok(file.canonicalize()?)).unwrap_or(candidate);
        if !files.contains(&file) {
            files.push(file);
            found.push(nvrtc);
        }
    }
    match broken {
        Some(message) if found.is_empty() => Err(message),
        _ => Ok(found),
    }
}

/// Where NVRTC may be, in the order of preference among equals: full paths, since whoever can write to the current folder must not
/// choose what is loaded, and bare names for the loader. Those come first: later they would be answered by what was opened before.
fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for major in ["13", "12"] {
        found.push(PathBuf::from(format!("libnvrtc.so.{major}"))); // the loader's path
    }
    found.push(PathBuf::from("libnvrtc.so"));

    let whole = |path: &PathBuf| path.is_absolute();
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set).map(PathBuf::from).filter(whole);
    let installed = files_starting_with(Path::new("/usr/local"), "cuda");
    for toolkit in toolkits.chain(installed) {
        for folder in ["lib64", "lib", "targets/x86_64-linux/lib"] {
            found.extend(libraries_in(&toolkit.join(folder)));
        }
    }

    let environments =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set).map(PathBuf::from).filter(whole);
    let path = set("PATH").unwrap_or_default();
    let interpreters = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute() && folder.join("python3").exists())
        .filter_map(|folder| folder.parent().map(Path::to_path_buf));
    for prefix in environments.chain(interpreters) {
        for python in files_starting_with(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                found.extend(wheel_libraries(&python.join(packages)));
            }
        }
    }

    // What `make nvrtc` got: beside the program, in the project that it was built in, be it moved since, or where that was.
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().skip(1).find(|folder| folder.file_name() == Some(OsStr::new("target")));
    let own = Some(Path::new(env!("CARGO_MANIFEST_DIR")));
    for folder in [program.parent(), target.and_then(Path::parent), own].into_iter().flatten() {
        found.extend(wheel_libraries(&folder.join(".nvrtc")));
    }
    found
}

/// NVRTC in a folder of installed wheels: `nvidia/*/lib`.
fn wheel_libraries(packages: &Path) -> Vec<PathBuf> {
    let folders = files_starting_with(&packages.join("nvidia"), "");
    folders.iter().rev().flat_map(|folder| libraries_in(&folder.join("lib"))).collect()
}

/// Every `libnvrtc.so.N` of a folder: system packages put all major versions into one.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    files_starting_with(folder, "libnvrtc.so")
}

/// The newest `libnvrtc.so.N` of a folder.
fn library_in(folder: &Path) -> Option<PathBuf> {
    libraries_in(folder).pop()
}

/// The entries of a folder whose name begins so, sorted; none if there is no such folder.
fn files_starting_with(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of these versions, in every order of what is found first that matters: forwards and backwards.
    fn sets(all: [CudaVersion; 4]) -> impl Iterator<Item = Vec<CudaVersion>> {
        (0..16).flat_map(move |set: usize| {
            let some: Vec<CudaVersion> = (0..4).filter(|i| set >> i & 1 == 1).map(|i| all[i]).collect();
            [some.clone(), some.into_iter().rev().collect()]
        })
    }

    #[test]
    fn every_driver_gets_the_best_of_what_is_there() {
        let all = [12_040, 12_090, 13_000, 13_040].map(CudaVersion::from_number);
        for driver in all {
            for there in sets(all) {
                let chosen = best(&there, driver).map(|i| there[i]);
                let fitting = there.iter().filter(|version| version.major <= driver.major).max();
                assert_eq!(chosen, fitting.or(there.iter().min()).copied(), "{driver} of {there:?}");
            }
        }
        let [old, new] = [12_090, 13_000].map(CudaVersion::from_number);
        assert_eq!(best(&[new, old, old], old), Some(1), "the first of equals");
    }
}
