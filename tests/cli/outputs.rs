//! Files that flags name: whole or as they were, where links lead, and through what is no plain file.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::*;

fn augment<'a>(place: &'a Place, more: &[&'a str]) -> Command {
    memo(&[&["augment", text(&place.image), "--views", "2", "--size", "16"], more].concat())
}

#[track_caller]
fn succeed(mut command: Command) -> Vec<u8> {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn what_is_no_plain_file_is_written_through() {
    let place = Place::new();
    let [views, params, grid] = ["v.safetensors", "p.json", "g.png"].map(|name| place.file(name));
    let flags = ["--views-out", text(&views), "--params-out", text(&params), "--grid", text(&grid)];
    succeed(augment(&place, &flags));
    for (flag, whole) in [("--views-out", &views), ("--params-out", &params), ("--grid", &grid)] {
        let want = fs::read(whole).unwrap();
        assert_eq!(succeed(augment(&place, &[flag, "/dev/stdout"])), want, "{flag}: it has that alone");
        let fifo = place.file(&format!("{flag} fifo"));
        assert!(Command::new("mkfifo").arg("--").arg(&fifo).status().unwrap().success());
        let reader = Command::new("cat").arg("--").arg(&fifo).stdout(Stdio::piped()).spawn().unwrap();
        succeed(augment(&place, &[flag, text(&fifo)]));
        assert_eq!(reader.wait_with_output().unwrap().stdout, want, "{flag}");
        assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
        succeed(augment(&place, &[flag, "/dev/null"]));
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        refused(augment(&place, &[flag, "/dev/full"]), 1, &["/dev/full", "No space left"]);

        // A link stays one, also where it leads to nothing yet.
        let (link, new) = (place.file(&format!("{flag} link.png")), place.file(&format!("{flag} new")));
        symlink(&new, &link).unwrap();
        for _ in 0..2 {
            succeed(augment(&place, &[flag, text(&link)]));
            assert!(link.is_symlink() && fs::read(&new).unwrap() == want, "{flag}");
        }
    }
    // A file that stdout goes to is written on.
    let into = place.write("into", "before\n");
    let mut command = augment(&place, &["--params-out", "/dev/stdout"]);
    command.stdout(fs::OpenOptions::new().append(true).open(&into).unwrap());
    assert!(command.status().unwrap().success());
    assert_eq!(fs::read(&into).unwrap(), [b"before\n", &fs::read(&params).unwrap()[..]].concat());
}

#[test]
fn modes_are_what_they_are_for_any_program() {
    let place = Place::new();
    let (new, old) = (place.file("new.json"), place.write("old.json", "old"));
    fs::set_permissions(&old, fs::Permissions::from_mode(0o604)).unwrap();
    let mut command = augment(&place, &["--params-out", text(&new), "--grid", text(&place.file("g.png"))]);
    // SAFETY: umask() may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0o027);
            Ok(())
        });
    }
    succeed(command);
    succeed(augment(&place, &["--params-out", text(&old)]));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!([mode(&new), mode(&place.file("g.png")), mode(&old)], [0o640, 0o640, 0o604]);
    assert_eq!(fs::read(&new).unwrap(), fs::read(&old).unwrap());
}

/// Files of more than so many bytes are cut off, as on a full disk.
fn limited(mut command: Command, bytes: u64) -> Command {
    // SAFETY: setrlimit() and signal() may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    command
}

#[test]
fn what_was_there_is_kept_where_the_new_does_not_fit() {
    let place = Place::new();
    let folder = place.file("outputs");
    fs::create_dir(&folder).unwrap();
    for (flag, name) in [("--views-out", "v"), ("--params-out", "p.json"), ("--grid", "g.png")] {
        let path = folder.join(name);
        fs::write(&path, "precious").unwrap();
        refused(limited(augment(&place, &[flag, text(&path)]), 100), 1, &[name, "writing"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        refused(
            limited(augment(&place, &[flag, text(&folder.join(format!("new {name}")))]), 100),
            1,
            &[name],
        );
    }
    assert_eq!(names(&folder), ["g.png", "p.json", "v"].map(OsString::from).into(), "nothing else is left");

    // An evaluation leaves no half line, and goes on from there.
    let data = place.dataset();
    let [whole, out] = ["whole.jsonl", "run.jsonl"].map(|name| place.file(name));
    let eval = |out: &Path, more: &[&str]| {
        // Of five learning rates: a longer file than its settings are.
        let args = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2"];
        memo(&[&args[..], &["--lr", "1e-6,1e-5,1e-4,1e-3,1e-2", "--out", text(out)], more].concat())
    };
    succeed(eval(&whole, &[]));
    let want = fs::read_to_string(&whole).unwrap();
    let settings = fs::metadata(place.file("whole.jsonl.run.json")).unwrap().len();
    assert!(settings < want.len() as u64, "there is room for one, not for the other");
    refused(
        limited(eval(&out, &[]), settings.max(want.len() as u64 / 2 + 40)),
        1,
        &["run.jsonl", "File too large"],
    );
    let kept = fs::read_to_string(&out).unwrap();
    assert!(want.starts_with(&kept) && kept.ends_with('\n') && kept.len() < want.len(), "{kept}");
    succeed(eval(&out, &["--resume"]));
    assert_eq!(fs::read_to_string(&out).unwrap(), want);
}

#[test]
fn a_demo_keeps_its_table_without_its_sheet() {
    let place = Place::new();
    let file = place.write("a file", "");
    let device = std::env::var("MEMO_TEST_DEVICE").unwrap_or_else(|_| "virtual".to_string());
    let demo = |out: &Path| run(&["demo", "--limit", "1", "--out", text(out), "--device", &device]);
    let told = demo(&file);
    assert!(told.stdout.is_empty() && String::from_utf8_lossy(&told.stderr).contains("no folder"), "at once");
    let output = demo(&file.join("sheet"));
    let [table, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(table.contains("McNemar") && said.contains("a file"), "{table}{said}");
}
