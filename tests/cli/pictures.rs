//! A report's pictures, by what the run's settings say of its images.

use crate::*;

const EACH: usize = 6;

/// An array of bytes, as `numpy.save` writes it.
fn npy(path: &Path, shape: &str, bytes: &[u8]) {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(bytes);
    fs::write(path, file).unwrap();
}

/// Of two classes, as CIFAR-10-C has ten: each corruption's images at each severity.
fn corrupted(place: &Place) -> PathBuf {
    let folder = place.file("corrupted");
    fs::create_dir(&folder).unwrap();
    let count = 5 * EACH;
    npy(&folder.join("labels.npy"), &format!("{count},"), &[0, 1].repeat(count / 2));
    for (name, first) in [("fog", 0), ("snow", 100)] {
        let images: Vec<u8> = (0..count as u32)
            .flat_map(|i| image::imageops::thumbnail(&picture(first + i), 8, 8).into_raw())
            .collect();
        npy(&folder.join(format!("{name}.npy")), &format!("{count}, 8, 8, 3"), &images);
    }
    folder
}

#[test]
fn a_report_finds_the_images_that_flags_chose() {
    let place = Place::new();
    let data = corrupted(&place);
    let [run, page, moved] = ["run.jsonl", "page.html", "moved"].map(|name| place.file(name));
    let labels = place.write("two.txt", "apple\nchimpanzee\n");
    let chosen = ["--corruptions", "fog", "--severity", "4,2"];
    let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--labels", text(&labels)];
    stdout(&[&common[..], &chosen, &["--views", "2", "--out", text(&run)]].concat());
    // As if steps had changed every answer, so that there are images to show.
    let answers = fs::read_to_string(&run).unwrap();
    let other = |was: &str| format!("\"memo\":{{\"pred\":{}", if was.ends_with('0') { 1 } else { 0 });
    let changed = regex::Regex::new(r#""memo":\{"pred":[01]"#).unwrap();
    let changed = changed.replace_all(&answers, |found: &regex::Captures| other(&found[0]));
    fs::write(&run, changed.as_bytes()).unwrap();
    let settings = place.file("run.jsonl.run.json");
    let begun: Value = serde_json::from_str(&fs::read_to_string(&settings).unwrap()).unwrap();
    assert_eq!(begun["selection"]["corruptions"], serde_json::json!(["fog"]));
    assert_eq!(begun["selection"]["severity"], serde_json::json!([4, 2]));

    // Pictures on the page, and what is said of them.
    let shown = |more: &[&str]| -> (usize, String) {
        let output = self::run(&[&["report", text(&run), "--out", text(&page)], more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (fs::read_to_string(&page).unwrap().matches("data:image/png").count(), said)
    };
    let (all, said) = shown(&[]);
    assert!(all > 0 && !said.contains("pictures"), "{all} pictures: {said}");
    fs::rename(&data, &moved).unwrap();
    let (none, said) = shown(&[]);
    let wants = ["no pictures", "by --corruptions fog --severity 4,2", text(&data), "--data says"];
    assert!(none == 0 && wants.iter().all(|want| said.contains(want)), "{said}");
    let elsewhere = ["--data", text(&moved)];
    assert_eq!(shown(&elsewhere), (all, String::new()));

    // Other flags, other images.
    let others = [&elsewhere[..], &["--corruptions", "snow", "--severity", "2,4"]].concat();
    let (none, said) = shown(&others);
    assert!(none == 0 && said.contains(r#"is another than the run's: "snow/"#), "{said}");
    assert!(
        said.contains(r#"not "fog/"#) && said.contains(&format!("{all} pictures are left out")),
        "{said}"
    );
    let without = place.file("without");
    fs::create_dir(&without).unwrap();
    for file in ["labels.npy", "snow.npy"] {
        fs::copy(moved.join(file), without.join(file)).unwrap();
    }
    let command = memo(&["report", text(&run), "--out", text(&page), "--data", text(&without)]);
    refused(
        command,
        1,
        &[
            "pictures of ",
            "run.jsonl",
            "as the run had its images",
            "--corruptions fog: there is none; there are snow",
        ],
    );

    // Settings that an earlier memo wrote, and such as none did.
    let write = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut changed = begun.clone();
        change(changed["selection"].as_object_mut().unwrap());
        fs::write(&settings, changed.to_string()).unwrap();
    };
    write(&|selection| selection.retain(|field, _| field != "corruptions" && field != "severity"));
    refused(
        memo(&["report", text(&run), "--out", text(&page), "--data", text(&moved)]),
        1,
        &["it holds 2 corruptions: fog, snow; say --corruptions"],
    );
    assert_eq!(shown(&[&elsewhere[..], &chosen].concat()), (all, String::new()));
    write(&|selection| selection["severity"] = "4".into());
    let (none, said) = shown(&[]);
    assert!(none == 0 && said.contains("`selection` of the run's settings"), "{said}");
}
