//! Images, folders of them, and tensors of them, through the library's front door.

use std::fs;
use std::path::Path;

use image::{DynamicImage, ExtendedColorType, ImageBuffer, ImageEncoder, ImageFormat, Luma, Rgb, Rgba};
use memo::data::{Dataset, Rgb8, read_image};
use safetensors::{Dtype, tensor::TensorView};

/// The error of `result`, which names every one of `parts`.
fn refused<T>(result: anyhow::Result<T>, parts: &[&str]) {
    let error = format!("{:#}", result.err().unwrap_or_else(|| panic!("accepted: {parts:?}")));
    assert!(parts.iter().all(|part| error.contains(part)), "{error}: {parts:?}");
}

fn rgb(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| Rgb([x * 20, y * 30, (x * y * 7) % 256].map(|v| v as u8)))
}

#[test]
fn lossless_formats_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let picture = rgb(7, 5);
    for name in ["a.png", "a.bmp", "a.webp", "a.tiff", "a.ppm"] {
        let path = folder.path().join(name);
        picture.save(&path).unwrap();
        let want = Rgb8 { width: 7, height: 5, pixels: picture.as_raw().clone() };
        assert_eq!(read_image(&path).unwrap(), want, "{name}");
        // The contents say what it is, not the name.
        let misnamed = folder.path().join("misnamed.jpg");
        fs::copy(&path, &misnamed).unwrap();
        assert_eq!(read_image(&misnamed).unwrap(), want, "{name}");
    }
}

#[test]
fn colours_become_rgb_as_in_pil() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let pixels_of = |image: DynamicImage| {
        image.save(&path).unwrap();
        read_image(&path).unwrap().pixels
    };
    // Alpha is dropped, not blended.
    assert_eq!(pixels_of(ImageBuffer::from_pixel(1, 1, Rgba([10u8, 20, 30, 0])).into()), [10, 20, 30]);
    assert_eq!(pixels_of(ImageBuffer::from_pixel(1, 1, Luma([77u8])).into()), [77; 3]);
    // 16 bits keep the high byte; 0x80ff would round to 0x81.
    assert_eq!(
        pixels_of(ImageBuffer::from_pixel(1, 1, Rgb([0x80ffu16, 0xffff, 0x00ff])).into()),
        [128, 255, 0]
    );
    assert_eq!(pixels_of(ImageBuffer::from_pixel(1, 1, Luma([0x80ffu16])).into()), [128; 3]);
}

#[test]
fn cut_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let formats = [
        ("a.png", ImageFormat::Png),
        ("a.jpg", ImageFormat::Jpeg),
        ("a.bmp", ImageFormat::Bmp),
        ("a.gif", ImageFormat::Gif),
        ("a.webp", ImageFormat::WebP),
        ("a.tiff", ImageFormat::Tiff),
        ("a.ppm", ImageFormat::Pnm),
    ];
    for (name, format) in formats {
        let path = folder.path().join(name);
        rgb(40, 30).save_with_format(&path, format).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in [0, 1, 10, whole.len() / 4, whole.len() / 2, whole.len() * 9 / 10] {
            fs::write(&path, &whole[..len]).unwrap();
            refused(read_image(&path), &["reading the image", name]);
        }
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    refused(read_image(&path), &["a.png", "No such file"]);
    refused(read_image(folder.path()), &["it is a folder"]);
    fs::write(&path, "a letter").unwrap();
    refused(read_image(&path), &["a.png"]);
    // A small file that claims more pixels than there is memory.
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(&[0; 3], 1, 1, ExtendedColorType::Rgb8).unwrap();
    bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    refused(read_image(&path), &["a.png", "65536x65536", "is the most"]);
}

/// PNG's checksum, CRC-32.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn a_folder_a_class_in_torchvisions_order() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        ["zebra/b.png", "zebra/a.png", "zebra/a/b/c.png", "zebra/a-b/d.png", "Ant/x.png", "ant/y.png"];
    for (i, file) in files.iter().enumerate() {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        rgb(i as u32 + 1, 1).save(&path).unwrap();
    }
    fs::write(folder.path().join("zebra/notes.txt"), "no image").unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("zebra/circle")).unwrap();
    let set = Dataset::open(folder.path()).unwrap();
    assert_eq!(set.labels(), ["Ant", "ant", "zebra"]);
    let got: Vec<(u32, usize)> =
        (0..set.len()).map(|i| set.get(i).unwrap()).map(|s| (s.image.width, s.label)).collect();
    assert_eq!(got, [(5, 0), (6, 1), (2, 2), (1, 2), (4, 2), (3, 2)]);
}

#[test]
fn folders_without_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(Dataset::open(folder.path()), &["neither CIFAR's files", "nor one subfolder"]);
    refused(Dataset::open(&folder.path().join("none")), &["none", "No such file"]);
    let class = folder.path().join("cat");
    fs::create_dir(&class).unwrap();
    refused(Dataset::open(folder.path()), &["class folder cat has no images"]);
    fs::write(class.join("a.png"), "a letter").unwrap();
    refused(Dataset::open(folder.path()).unwrap().get(0), &["reading the image", "a.png"]);
}

#[test]
fn tensors_are_read_and_their_faults_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, names) = (folder.path().join("set-images.safetensors"), folder.path().join("set-labels.txt"));
    fs::write(&names, "cat\ndog\n").unwrap();
    let write = |shape: &[usize], classes: &[u8]| {
        let pixels: Vec<u8> = (0..shape.iter().product::<usize>()).map(|i| i as u8).collect();
        let tensors = [
            ("noise", TensorView::new(Dtype::U8, shape.to_vec(), &pixels).unwrap()),
            ("labels", TensorView::new(Dtype::U8, vec![classes.len()], classes).unwrap()),
        ];
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
    };
    let open = |tensor: &str| Dataset::open(Path::new(&format!("{}#{tensor}", path.display())));

    write(&[2, 2, 3, 3], &[1, 0]);
    let set = open("noise").unwrap();
    assert_eq!(set.labels(), ["cat", "dog"]);
    let sample = set.get(1).unwrap();
    assert_eq!((sample.image.width, sample.image.height, sample.label), (3, 2, 0));
    assert_eq!(sample.image.pixels, (18..36).collect::<Vec<u8>>());
    refused(open("blur"), &["set-images.safetensors", "tensor blur"]);

    write(&[2, 2, 3, 3], &[1, 2]);
    refused(open("noise"), &["image 1 has label 2", "2 classes"]);
    write(&[2, 2, 3, 3], &[1]);
    refused(open("noise"), &["labels has shape [1] for 2 images"]);
    write(&[2, 3, 2, 2], &[1, 0]);
    refused(open("noise"), &["(N, H, W, 3) is expected"]);
    write(&[0, 2, 3, 3], &[]);
    refused(open("noise"), &["no pixels"]);
    fs::write(&path, "cut").unwrap();
    refused(open("noise"), &["set-images.safetensors", "not a whole safetensors file"]);
}
