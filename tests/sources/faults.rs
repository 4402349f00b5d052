//! Every format's faults, by the names of file and field.

use std::fs;
use std::path::Path;

use super::{fixture, open, refused};

/// A path below the fixture, how its contents are changed, and what the error names.
type Fault = (&'static str, fn(&Path, &Path), &'static [&'static str]);

#[test]
fn faults_are_named() {
    fn cut(path: &Path) {
        let whole = fs::read(path).unwrap();
        fs::write(path, &whole[..whole.len() - 5]).unwrap();
    }
    fn shard(path: &Path, members: &[(&str, &[u8])]) {
        let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
        for (name, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.finish().unwrap();
    }
    fn zip(path: &Path, folders: &[&str]) {
        let mut archive = rawzip::ZipArchiveWriter::new(fs::File::create(path).unwrap());
        for folder in folders {
            let (mut entry, config) = archive.new_file(&*format!("{folder}/1.png")).start().unwrap();
            let (_, end) = config.wrap(&mut entry).finish().unwrap();
            entry.finish(end).unwrap();
        }
        archive.finish().unwrap();
    }
    let cases: &[Fault] = &[
        ("fortran", |_, _| {}, &["fortran/images.npy", "Fortran order"]),
        ("float", |_, _| {}, &["float/images.npy", "dtype is <f8; images are uint8"]),
        ("planes", |_, _| {}, &["planes/images.npy", "channels first"]),
        ("few", |_, _| {}, &["few/labels.npy", "3 labels for 5 images"]),
        ("arrays", |_, path| cut(&path.join("images.npy")), &["arrays/images.npy", "bytes of data"]),
        ("arrays", |_, path| cut(&path.join("labels.npy")), &["arrays/labels.npy", "asks for 5"]),
        (
            "arrays/images.npy",
            |top, _| fs::remove_file(top.join("arrays/labels.npy")).unwrap(),
            &["no labels beside it", "labels.npy, images_labels.npy, images-labels.npy"],
        ),
        (
            "arrays",
            |_, path| {
                fs::copy(path.join("labels.npy"), path.join("images_labels.npy")).unwrap();
            },
            &["both", "may be its labels"],
        ),
        (
            "arrays",
            |top, path| {
                fs::copy(top.join("cifar10.csv"), path.join("labels.npy")).unwrap();
            },
            &["arrays/labels.npy", "not a whole .npy"],
        ),
        (
            "CIFAR-10-C --corruptions all",
            |_, path| {
                fs::copy(path.join("../arrays/images.npy"), path.join("fog.npy")).unwrap();
            },
            &["fog.npy", "5 images, and labels.npy has 25"],
        ),
        (
            "CIFAR-10-C --corruptions all",
            |_, path| {
                let file = path.join("labels.npy");
                let mut labels = fs::read(&file).unwrap();
                *labels.last_mut().unwrap() ^= 1;
                fs::write(&file, labels).unwrap();
            },
            &["CIFAR-10-C/labels.npy", "25 labels are not the same 5 for each of 5 severities"],
        ),
        (
            "cifar10.csv",
            |_, path| {
                let text = fs::read_to_string(path).unwrap();
                fs::write(path, text.replace(",3\n", ",3.0\n")).unwrap();
            },
            &["cifar10.csv", "row 3 has the label 3.0; a class's number is whole, such as 3"],
        ),
        (
            "severities.zip",
            |_, path| zip(path, &["1/cat", "1/dog", "2/cat", "2/dog"]),
            &["its folders 1, 2 are severities"],
        ),
        (
            "domains.zip",
            |_, path| zip(path, &["art/cat", "art/dog", "photo/cat", "photo/dog"]),
            &["art, photo are splits or domains"],
        ),
        ("cifar10.npz", |_, path| cut(path), &["cifar10.npz", "not a whole ZIP"]),
        ("encrypted.zip", |_, _| {}, &["encrypted.zip", "its member truck/4.png is encrypted"]),
        ("twice.zip", |_, _| {}, &["twice.zip", "its member truck/4.png is in it twice"]),
        ("bzip2.zip", |_, _| {}, &["bzip2.zip", "compressed by method 12"]),
        ("folder.zip", |_, path| fs::write(path, b"PK\x03\x04").unwrap(), &["folder.zip", "not a whole ZIP"]),
        (
            "webdataset",
            |_, path| fs::remove_file(path.join("test/0.tar")).unwrap(),
            &["nshards.txt says 2 shards, and there are 1"],
        ),
        (
            "webdataset",
            |_, path| fs::write(path.join("test/nshards.txt"), "two").unwrap(),
            &["nshards.txt", "\"two\" is no number"],
        ),
        (
            "webdataset",
            |_, path| fs::write(path.join("classnames.txt"), "cat\ndog\n").unwrap(),
            &["classnames.txt", "image 1 has label 3; there are 2 classes"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x")]),
            &["1.tar", "its sample a has no label (a.cls)"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.cls", b"1"), ("b.png", b"x"), ("b.cls", b"1")]),
            &["its sample a has no image"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x"), ("a.cls", b"cat")]),
            &["a.cls is \"cat\", not a class's number"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")]),
            &["a has two images, the second a.jpg"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("s0000000.png", b"x"), ("s0000000.cls", b"1")]),
            &["1.tar", "its sample s0000000 is there twice"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x"), ("a.cls", b"-1")]),
            &["image 3 has label -1"],
        ),
        (
            "webdataset/test/1.tar",
            |_, path| {
                let whole = fs::read(path).unwrap();
                fs::write(path, &whole[..700]).unwrap()
            },
            &["1.tar", "it is cut, or was never closed"],
        ),
        (
            "imageless.parquet",
            |_, _| {},
            &["imageless.parquet", "no column of images; its columns are label, size"],
        ),
        (
            "labelless.parquet",
            |_, _| {},
            &["labelless.parquet", "its column label, row group 0: 1 rows have no label"],
        ),
        (
            "paths.parquet",
            |_, _| {},
            &["paths.parquet", "its column image.bytes (row group 0) is empty", "paths alone"],
        ),
        (
            "brotli.parquet",
            |_, _| {},
            &["brotli.parquet", "its column image (row group 0) is compressed by BROTLI"],
        ),
        ("plain.parquet", |_, path| cut(path), &["plain.parquet", "not a whole Parquet file"]),
        (
            "parquet --split test",
            |_, path| fs::remove_file(path.join("data/test-00001-of-00002.parquet")).unwrap(),
            &["of 2 tables of test, number 1 is missing"],
        ),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "a,b\n1,2\n").unwrap(),
            &["cifar10.csv", "no column of images' paths, such as `path`; its first row is a, b"],
        ),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "path,file,label\na,b,1\n").unwrap(),
            &["its columns path and file may both be meant"],
        ),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "path,label\na,1\na,2\n").unwrap(),
            &["its image a is there twice, in rows 2 and 3"],
        ),
        ("cifar10.csv", |_, path| fs::write(path, "path,label\na,\n").unwrap(), &["row 2 has no label"]),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "path,label\na,1,2\n").unwrap(),
            &["cifar10.csv", "3 fields"],
        ),
        ("cifar10.csv", |_, path| fs::write(path, "path,label\n").unwrap(), &["no rows below its header"]),
        (
            "torchvision/stl10",
            |_, path| cut(&path.join("stl10_binary/test_X.bin")),
            &["test_X.bin", "5 images have 138240"],
        ),
        (
            "torchvision/stl10",
            |_, path| fs::write(path.join("stl10_binary/test_y.bin"), [0; 5]).unwrap(),
            &["test_y.bin", "image 0 has label -1"],
        ),
        ("torchvision/svhn", |_, path| cut(&path.join("test_32x32.mat")), &["test_32x32.mat"]),
        (
            "torchvision/svhn --split train",
            |_, path| cut(&path.join("train_32x32.mat")),
            &["train_32x32.mat", "it is cut"],
        ),
        (
            "torchvision/svhn",
            |_, path| fs::write(path.join("test_32x32.mat"), b"\x89HDF\r\n").unwrap(),
            &["level 7.3 is HDF5"],
        ),
        (
            "torchvision/pets",
            |_, path| fs::write(path.join("oxford-iiit-pet/annotations/test.txt"), "Pug_1 1 1\n").unwrap(),
            &["test.txt: line 1", "four words"],
        ),
        (
            "torchvision/dtd",
            |_, path| fs::write(path.join("dtd/dtd/labels/test1.txt"), "plain/1.jpg\n").unwrap(),
            &["test1.txt: line 1, plain/1.jpg, is in no folder"],
        ),
        (
            "torchvision/food",
            |_, path| fs::remove_file(path.join("food-101/meta/test.txt")).unwrap(),
            &["meta/test.txt", "No such file"],
        ),
    ];
    for (text, change, parts) in cases {
        let top = fixture();
        let path = top.path().join(text.split(' ').next().unwrap());
        change(top.path(), &path);
        refused(open(top.path(), text), parts);
    }
    // An image that cannot be read is one image.
    let top = fixture();
    fs::remove_file(top.path().join("folder/cat/1.png")).unwrap();
    let set = open(top.path(), "cifar10.csv").unwrap();
    refused(set.get(1), &["reading the image", "cat/1.png", "No such file"]);
    assert!(set.get(0).is_ok());
}
