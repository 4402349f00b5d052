//! `memo data`.

use std::process::Command;

use super::fixture;

#[test]
fn memo_data_says_what_there_is() {
    let top = fixture();
    let memo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_memo"))
            .arg("data")
            .args(arguments)
            .current_dir(top.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = memo(&["webdataset", "--sheet", "sheet.png"]);
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "WebDataset's tar files",
        "images     5\n",
        "classes    10, of 0 to 2 images",
        "airplane, automobile",
        "32 by 32 pixels, of the first 5",
        "zeroshot_classification_templates.txt",
    ] {
        assert!(out.contains(part), "{out}");
    }
    assert_eq!(memo::data::read_image(&top.path().join("sheet.png")).unwrap().width, 3 * 100 + 4);
    // Of several splits, each; of corruptions, all.
    let (_, out, _) = memo(&["parquet", "--json"]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["part"], &lines[0]["images"]), (2, &"--split test".into(), &5.into()));
    let (_, out, _) = memo(&["CIFAR-10-C"]);
    assert!(
        out.contains("CIFAR-10-C --corruptions all") && out.contains("groups     10: gaussian_noise/1"),
        "{out}"
    );
    let (code, _, err) = memo(&["fortran"]);
    assert!(code == Some(1) && err.contains("error: ") && err.contains("Fortran"), "{err}");
    assert_eq!(memo(&["folder", "--severity", "6"]).0, Some(2));
    assert_eq!(memo(&["folder", "--sheet", "sheet.jpg"]).0, Some(2));
}
