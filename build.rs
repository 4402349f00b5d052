//! Gathers `kernels/*.cu` into one table, `#include`s of our own headers pasted in, so that the
//! binary carries its kernels and a cache key over a source covers all of it; and `benches/libtorch`'s programs as they are.
//! Compiles `jpeg.c`, what stands between libjpeg and Rust, and `idct.c`, which makes it faster.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");

    println!("cargo:rerun-if-changed=benches/libtorch");

    let kernels = files(&root.join("kernels"), "cu").into_iter().map(|path| {
        let stem = path.file_stem().expect("a .cu file has a stem").to_string_lossy().into_owned();
        (stem, inline(&path, &mut BTreeSet::new()))
    });
    write_table(&out.join("kernels.rs"), "SOURCES", kernels);
    let libtorch = root.join("benches/libtorch");
    let text = |name: &str| {
        let path = libtorch.join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let programs = files(&libtorch, "py").into_iter().map(|path| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name.clone(), text(&name))
    });
    write_table(&out.join("libtorch.rs"), "PROGRAMS", programs);
    let package = ["Cargo.toml", "Cargo.lock", "build.rs", "src/main.rs"];
    let package = package.into_iter().map(|name| (name.to_string(), text(&format!("rust/{name}"))));
    write_table(&out.join("tch.rs"), "PACKAGE", package);

    let jpeg = ["src/data/image/jpeg.c", "src/data/image/idct.c"];
    jpeg.iter().for_each(|file| println!("cargo:rerun-if-changed={file}"));
    let headers = env::var_os("DEP_JPEG_INCLUDE").expect("set by mozjpeg-sys");
    cc::Build::new().files(jpeg).includes(env::split_paths(&headers)).compile("memo_jpeg");

    // target/PROFILE/build/memo-HASH/out -> target/PROFILE/deps, where cargo leaves libvcuda.so:
    // the last place to look, for a binary that `cargo install` copied away from it.
    let deps = out.ancestors().nth(3).expect("OUT_DIR is deep in the target folder").join("deps");
    println!("cargo:rustc-env=MEMO_BUILD_DEPS={}", deps.display());
}

/// A folder's files of one kind, in the order of their names.
fn files(folder: &Path, extension: &str) -> BTreeSet<PathBuf> {
    fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}, which is part of the project: {e}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}

/// Rust that defines a table of names and texts.
fn write_table(path: &Path, name: &str, rows: impl Iterator<Item = (String, String)>) {
    let rows: String = rows.map(|(name, text)| format!("    ({name:?}, {text:?}),\n")).collect();
    let table = format!("pub const {name}: &[(&str, &str)] = &[\n{rows}];\n");
    fs::write(path, table).expect("OUT_DIR is writable");
}

/// The file's text with each `#include "x"` replaced by x's, once, and `#line` marks around it.
fn inline(path: &Path, seen: &mut BTreeSet<PathBuf>) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // In full: NVRTC puts the current folder before another path, and what it writes would depend on that.
    let name = path.display();
    let mut out = format!("#line 1 \"{name}\"\n");
    for (number, line) in text.lines().enumerate() {
        let included = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        let Some(header) = included else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let header = path.with_file_name(header);
        if seen.insert(header.clone()) {
            out.push_str(&inline(&header, seen));
            writeln!(out, "#line {} \"{name}\"", number + 2).expect("writing to a string");
        }
    }
    out
}
