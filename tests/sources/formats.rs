//! The same images from every format; names, order and splits.

use std::collections::HashMap;
use std::fs;

use memo::data::Classes;
use sha2::{Digest, Sha256};

use super::{fixture, open, refused, samples};

#[test]
fn every_format_has_the_same_images() {
    let top = fixture();
    let top = top.path();
    let folder = open(top, "folder").unwrap();
    let want = samples(&folder);
    assert_eq!(want.len(), 5);
    for text in [
        "folder.zip",
        "stored.zip",
        "streamed.zip",
        "zip64.zip",
        "around.zip",
        "splits.zip --split val",
        "arrays --dataset cifar-10",
        "arrays/images.npy --dataset cifar-10",
        "wide --dataset cifar-10",
        "second --dataset cifar-10",
        "third --dataset cifar-10",
        "cifar10.npz",
        "cifar10-compressed.npz",
        "cifar10-splits.npz --split test",
        "CIFAR-10.1 --split v6",
        "CIFAR-10.1/cifar10.1_v6_data.npy",
        "webdataset",
        "webdataset --split test",
        "webdataset/test",
        "parquet --split test",
        "parquet/data --split test",
        "plain.parquet",
        "zstd.parquet",
        "gzip.parquet",
        "pages2.parquet",
        "cifar10.csv --dataset cifar-10",
        "named.tsv --split test",
    ] {
        let set = open(top, text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        assert_eq!(samples(&set), want, "{text}");
        assert!(!set.format().is_empty(), "{text}");
    }
    // Labels that are numbers alone are their own names.
    let numbers = open(top, "arrays").unwrap();
    assert_eq!((numbers.classes(), numbers.labels().len()), (Classes::Unnamed, 10));
    assert_eq!(samples(&numbers)[4].0, "9");
    let grey = open(top, "grey").unwrap();
    assert!(
        grey.get(0).unwrap().image.pixels.chunks(3).zip(want[0].1.chunks(3)).all(|(g, w)| g == [w[0]; 3])
    );
    // An image's digest is its file's, wherever that lies.
    for text in
        ["folder.zip", "webdataset", "parquet --split test", "plain.parquet", "named.tsv --split test"]
    {
        let set = open(top, text).unwrap();
        let same = (0..5).all(|index| set.digest(index).unwrap() == folder.digest(index).unwrap());
        assert!(same, "{text}");
    }
    let names = |text: &str| -> Vec<Option<String>> {
        let set = open(top, text).unwrap();
        (0..set.len()).map(|index| set.file(index)).collect()
    };
    assert_eq!(names("folder.zip"), names("folder"));
    assert_eq!(names("splits.zip --split val"), names("folder"));
    assert_eq!(names("webdataset")[3].as_deref(), Some("1.tar/s0000003.png"));
    let tsv = open(top, "named.tsv --split test").unwrap();
    assert_eq!([0, 1, 2, 3, 4].map(|index| tsv.group(index).unwrap()), ["a", "a", "b", "b", "a"]);
    assert!(tsv.notices()[0].contains("not read: size"), "{:?}", tsv.notices());
}

#[test]
fn images_are_read_in_any_order_by_many_threads() {
    let top = fixture();
    let set = open(top.path(), "plain.parquet").unwrap();
    let want = samples(&set);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (set, want) = (&set, &want);
            scope.spawn(move || {
                for step in 0..40usize {
                    let index = (step * 3 + thread) % 5;
                    assert_eq!(set.get(index).unwrap().image.pixels, want[index].1);
                }
            });
        }
    });
}

#[test]
fn torchvisions_data_sets_are_torchvisions() {
    let top = fixture();
    let top = top.path();
    let truth = fs::read_to_string(top.join("torchvision.json")).unwrap();
    let truth: HashMap<String, Vec<(String, String)>> = serde_json::from_str(&truth).unwrap();
    assert_eq!(truth.len(), 10);
    for (text, want) in &truth {
        let set =
            open(top, &format!("torchvision/{text}")).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        let hash = |pixels: &[u8]| {
            Sha256::digest(pixels).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let got: Vec<(String, String)> =
            samples(&set).into_iter().map(|(name, pixels)| (name, hash(&pixels))).collect();
        assert_eq!(got, *want, "{text}");
    }
    let clip = |text: &str, at: usize| open(top, text).unwrap().names().unwrap().0[at].clone();
    assert_eq!(clip("torchvision/sat", 9), "lake or sea");
    assert_eq!(clip("torchvision/food", 0), "apple pie");
    for text in
        ["torchvision/stl10/stl10_binary", "torchvision/svhn/test_32x32.mat", "torchvision/dtd/dtd/dtd"]
    {
        assert!(open(top, text).is_ok(), "{text}");
    }
    refused(
        open(top, "torchvision/pets --split val"),
        &["--split val: no such split; there are test, trainval"],
    );
}

#[test]
fn imagenets_kin_have_its_names() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("imagenetv2-matched-frequency-format-val");
    for class in 0..1000 {
        fs::create_dir_all(folder.join(class.to_string())).unwrap();
        fs::write(folder.join(class.to_string()).join("a.jpeg"), "").unwrap();
    }
    let set = open(top.path(), "imagenetv2-matched-frequency-format-val").unwrap();
    // By number, not in the order of the folders, whose third is 10.
    assert_eq!((set.labels()[2].as_str(), set.names().unwrap().0[2].as_str()), ("10", "brambling"));
    fs::remove_dir_all(folder.join("999")).unwrap();
    assert!(open(top.path(), "imagenetv2-matched-frequency-format-val").unwrap().names().is_none());
}

#[test]
fn what_is_asked_for_is_obeyed_or_refused() {
    let top = fixture();
    let top = top.path();
    for (text, want) in [
        ("webdataset --split val", "--split val: no such split; there are test"),
        ("parquet", "it has the splits test, train; say --split test"),
        ("splits.zip", "it has the splits train, val; say --split val"),
        ("CIFAR-10.1", "it has the splits v4, v6; say --split v4"),
        ("cifar10-splits.npz", "it has the splits train, test; say --split test"),
        ("arrays --split test", "--split test: no such folder, and what is there has no splits"),
        ("plain.parquet --split train", "--split train: no such folder, and what is there has no splits"),
        ("webdataset --dataset cifar-10", "no files of CIFAR-10 are there"),
        ("webdataset --extensions gif", "--extensions gif: what is there are no folders"),
        (
            "parquet --corruptions fog --split test",
            "--corruptions, --severity: what is there has no corruptions",
        ),
    ] {
        refused(open(top, text), &[want]);
    }
}

#[test]
fn classes_are_those_of_all_splits() {
    let top = fixture();
    let top = top.path();
    let rows = "path,label,split\na,ant,test\nb,bee,train\nc,cat,test\n";
    fs::write(top.join("few.csv"), rows).unwrap();
    let set = open(top, "few.csv --split test").unwrap();
    assert_eq!((set.labels(), set.len(), set.label(1)), (&["ant", "bee", "cat"].map(String::from)[..], 2, 2));
    fs::write(top.join("few.csv"), rows.replace("ant", "0").replace("bee", "7").replace("cat", "3")).unwrap();
    assert_eq!(open(top, "few.csv --split test").unwrap().labels().len(), 8);
    // Rows without a label are nothing to the others.
    fs::write(top.join("few.csv"), "path,label,split\na,2,val\nb,-1,test\n").unwrap();
    assert_eq!(open(top, "few.csv --split val").unwrap().labels().len(), 3);
    refused(open(top, "few.csv --split test"), &["label -1"]);
    // The hub's own names of a split's parts.
    let parts = top.join("parquet/data");
    fs::create_dir(top.join("parts")).unwrap();
    for part in 0..2 {
        let from = parts.join(format!("test-{part:05}-of-00002.parquet"));
        fs::copy(from, top.join(format!("parts/{part:04}.parquet"))).unwrap();
    }
    assert_eq!(samples(&open(top, "parts").unwrap()), samples(&open(top, "parquet --split test").unwrap()));
}
