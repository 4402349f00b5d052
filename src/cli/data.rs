//! `memo data`: what a path is, before hours of work with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::options::{DataOptions, LabelOptions};
use super::{Usage, print};
use crate::data::{DataSource, Dataset, Parts, Rgb8, Several};
use crate::report::grid;
use crate::{notice, output};

const EXAMPLES: &str = "\
Examples:
  memo data cifar-100-binary.tar.gz
  memo data CIFAR-10-C --corruptions fog --severity 5 --sheet fog.png
  memo data imagenet --split val --json";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Data {
    /// A folder or file of images, as --data of eval takes it
    #[arg(value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    part: DataOptions,
    #[command(flatten)]
    labels: LabelOptions,
    /// Write its first images as a contact sheet
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// A JSON object for each dataset, instead of text
    #[arg(long)]
    json: bool,
}

/// Images that are looked at, and shown.
const FIRST: usize = 64;

impl Data {
    pub fn run(self) -> Result<()> {
        if let Some(path) = self.sheet.as_ref().filter(|path| output::is_plain(path)) {
            if path.extension().is_none_or(|end| !end.eq_ignore_ascii_case("png")) {
                return Err(
                    Usage(format!("--sheet {}: the sheet is a PNG; name it .png", path.display())).into()
                );
            }
            output::check(path)?;
        }
        let datasets = all_of(&self.part.source(&self.data))?;
        let mut text = String::new();
        let mut pictures = Vec::new();
        for (part, dataset) in &datasets {
            for notice in dataset.notices() {
                notice!("note: {notice}");
            }
            let named = self.labels.names(dataset, &self.data)?;
            let (sizes, first) = Sizes::of(dataset);
            let json = described(&self.data, part.as_deref(), dataset, &named, &sizes);
            match self.json {
                true => writeln!(text, "{json}")?,
                false => text += &lines(&json),
            }
            pictures.extend(first);
        }
        if let Some(path) = &self.sheet {
            pictures.truncate(FIRST);
            output::write(path, &grid::square(&pictures)?)?;
        }
        match self.sheet.as_ref().is_some_and(|path| output::is_stdout(path)) {
            true => Ok(()),
            false => print(&text),
        }
    }
}

/// The dataset at a path, or each of several that lie there; what each must be asked for by.
fn all_of(source: &DataSource) -> Result<Vec<(Option<String>, Dataset)>> {
    let error = match Dataset::open(source) {
        Ok(dataset) => return Ok(vec![(None, dataset)]),
        Err(error) => error,
    };
    match error.downcast_ref::<Several>().map(|several| several.parts.clone()) {
        None => Err(error),
        Some(Parts::Corruptions) => {
            let all = DataSource { corruptions: vec!["all".to_string()], ..source.clone() };
            Ok(vec![(Some("--corruptions all".to_string()), Dataset::open(&all)?)])
        }
        Some(Parts::Splits(splits)) => {
            let open = |split: String| {
                let asked = format!("--split {split}");
                Ok((Some(asked), Dataset::open(&DataSource { split: Some(split), ..source.clone() })?))
            };
            splits.into_iter().map(open).collect()
        }
    }
}

/// Of the first images.
#[derive(Default)]
struct Sizes {
    looked_at: usize,
    unread: usize,
    width: Option<(u32, u32)>,
    height: Option<(u32, u32)>,
}

impl Sizes {
    /// Reads them; what cannot be read is told.
    fn of(dataset: &Dataset) -> (Sizes, Vec<Rgb8>) {
        let (mut sizes, mut images) = (Sizes::default(), Vec::new());
        for index in 0..dataset.len().min(FIRST) {
            sizes.looked_at += 1;
            match dataset.get(index) {
                Ok(sample) => {
                    let wider = |range: Option<(u32, u32)>, side: u32| {
                        Some(range.map_or((side, side), |(least, most)| (least.min(side), most.max(side))))
                    };
                    sizes.width = wider(sizes.width, sample.image.width);
                    sizes.height = wider(sizes.height, sample.image.height);
                    images.push(sample.image);
                }
                Err(error) => {
                    sizes.unread += 1;
                    notice!("note: {error:#}");
                }
            }
        }
        (sizes, images)
    }
}

fn described(path: &Path, part: Option<&str>, dataset: &Dataset, names: &[String], sizes: &Sizes) -> Value {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut of_class = vec![0usize; names.len()];
    for index in 0..dataset.len() {
        of_class[dataset.label(index)] += 1;
        if let Some(group) = dataset.group(index) {
            let at = *places.entry(group).or_insert_with(|| {
                groups.push((group, 0));
                groups.len() - 1
            });
            groups[at].1 += 1;
        }
    }
    let groups: Vec<Value> =
        groups.into_iter().map(|(name, images)| json!({ "name": name, "images": images })).collect();
    json!({
        "path": path.to_string_lossy(),
        "part": part,
        "format": dataset.format(),
        "images": dataset.len(),
        "classes": names.len(),
        "names": names,
        "images_of_a_class": [of_class.iter().min(), of_class.iter().max()],
        "groups": groups,
        "width": sizes.width,
        "height": sizes.height,
        "looked_at": sizes.looked_at,
        "unread": sizes.unread,
        "templates": dataset.templates().map(|file| file.to_string_lossy()),
    })
}

/// The same for a person.
fn lines(of: &Value) -> String {
    let text = |key: &str| of[key].as_str().unwrap_or_default();
    let range = |of: &Value| match (&of[0], &of[1]) {
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    let mut out =
        format!("{}{}{}\n", text("path"), if of["part"].is_null() { "" } else { " " }, text("part"));
    let mut line = |name: &str, value: String| out += &format!("  {name:<10} {value}\n");
    line("format", text("format").to_string());
    line("images", of["images"].to_string());
    line("classes", format!("{}, of {} images each", of["classes"], range(&of["images_of_a_class"])));
    let few = |key: &Value, name: fn(&Value) -> &str| -> String {
        let all: Vec<&str> = key.as_array().map(|all| all.iter().map(name).collect()).unwrap_or_default();
        match &all[..] {
            [few @ .., _, _] if few.len() > 8 => format!("{}, … {}", all[..8].join(", "), all[all.len() - 1]),
            all => all.join(", "),
        }
    };
    line("names", few(&of["names"], |name| name.as_str().unwrap_or_default()));
    let groups = of["groups"].as_array().map_or(0, Vec::len);
    if groups > 0 {
        line(
            "groups",
            format!("{groups}: {}", few(&of["groups"], |group| group["name"].as_str().unwrap_or_default())),
        );
    }
    let sides = match of["width"].is_null() {
        true => "none could be read".to_string(),
        false => format!("{} by {} pixels", range(&of["width"]), range(&of["height"])),
    };
    let unread = match of["unread"].as_u64() {
        Some(0) | None => String::new(),
        Some(unread) => format!(", {unread} of which could not be read"),
    };
    line("sizes", format!("{sides}, of the first {}{unread}", of["looked_at"]));
    if let Some(templates) = of["templates"].as_str() {
        line("prompts", templates.to_string());
    }
    out
}
