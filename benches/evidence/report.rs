//! The table as files: Markdown to read, and every number as CSV.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use memo::gpu::Nvrtc;
use vcuda::exec::profile::{Gpu, gpu};

use crate::Count;
use crate::alike::{ctas, scaled};
use crate::cases::{Architecture, Case, VIEWS};
use crate::counted::Counted;
use crate::lines::{TABLE_HEAD, compiled_with, csv, line, raw_defines};
use crate::rows::{Kernels, Row, rows};
use crate::sass::Assembled;
use crate::sums;

/// Instructions that are counted: multiplications and copies of tensor cores, of Hopper and of the generation before.
pub const INSTRUCTIONS: [&str; 4] = ["HGMMA", "HMMA", "UTMALDG", "LDGSTS"];

/// GPUs of an architecture whose time is modelled.
fn gpus(architecture: &Architecture) -> Vec<Gpu> {
    match architecture.name {
        "90a" => vec![gpu::H100, gpu::H200],
        _ => vec![architecture.gpu],
    }
}

/// The best rate of large products that was seen on an H100 or H200 over the peak, TFLOP/s.
const SEEN_OF_PEAK: f64 = 790.0 / 989.4;

/// What to look at in a table: beyond these times the least, of at least this share of a batch's time.
const NOTABLE: f64 = 1.1;
const NOTABLE_SHARE: f64 = 0.002;

/// Writes all files.
///
/// # Errors
/// The folder cannot be written; a launch that was not counted.
pub fn write(
    folder: &Path,
    device: &memo::gpu::Gpu,
    tables: &[(&Architecture, Kernels)],
    found: &[(Case, &str, Count)],
) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    let mut kernels_csv = "architecture,source,compiled_with,kernel,registers,stack_bytes,spill_store_bytes,spill_load_bytes,static_shared_bytes,hgmma,hmma,utmaldg,ldgsts\n".to_string();
    let mut launches_csv = "model,way,images,architecture,source,compiled_with,kernel,batch,m,n,k,launches,grid_x,grid_y,grid_z,cluster,threads,registers,static_shared_bytes,dynamic_shared_bytes,ctas_per_sm,occupancy,needed_flops,tensor_flops,least_bytes,touched_bytes,moved_bytes,coalesced_moved_bytes,wavefronts,wavefronts_without_conflicts,worst_access,scaled_by,gpu,roofline_us\n".to_string();
    let mut rates_csv =
        "model,way,images,architecture,gpu,launches,roofline_us,images_per_s,images_per_s_at_790_tflops\n"
            .to_string();
    let (mut rates, mut all_sums, mut notable) = (String::new(), String::new(), Notable::new());
    for (architecture, kernels) in tables {
        let name = architecture.name;
        let mut text = format!("# sm_{name}\n\n[What the columns are](README.md)\n\n## Kernels\n\n");
        text += "| kernel | compiled with | registers | stack | spilled | shared | HGMMA | HMMA | UTMALDG | LDGSTS |\n";
        text += "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for (((stem, defines), _), kernel) in kernels {
            let [hgmma, hmma, utmaldg, ldgsts] = INSTRUCTIONS.map(|instruction| kernel.count(instruction));
            let Assembled {
                registers,
                stack_bytes,
                spill_store_bytes,
                spill_load_bytes,
                static_shared_bytes,
                ..
            } = kernel;
            let _ = writeln!(
                text,
                "| {} | {} | {registers} | {stack_bytes} | {spill_store_bytes} | {static_shared_bytes} | {hgmma} | {hmma} | {utmaldg} | {ldgsts} |",
                kernel.kernel,
                compiled_with(defines),
            );
            let _ = writeln!(
                kernels_csv,
                "{name},{stem},{},{},{registers},{stack_bytes},{spill_store_bytes},{spill_load_bytes},{static_shared_bytes},{hgmma},{hmma},{utmaldg},{ldgsts}",
                raw_defines(defines),
                kernel.kernel,
            );
        }
        for (case, counted_as, count) in
            found.iter().filter(|(_, as_what, _)| *as_what == architecture.counted_as)
        {
            let whole = (case.model.config)().vision.layers;
            let all = case.launches(device, name, whole)?;
            let rows = rows(case, architecture, kernels, &all, (&count.launches, &count.counted))?;
            let model = &architecture.gpu;
            let total_us: f64 = rows.iter().map(|row| row.roofline(model, 1.0).0).sum();
            let _ = writeln!(
                text,
                "\n## {}\n\n{} launches, {:.2} ms on the model of the {}; {}.\n",
                case.name(),
                all.len(),
                total_us / 1e3,
                model.name,
                how(case, counted_as, count)
            );
            text += TABLE_HEAD;
            let mut sorted: Vec<&Row> = rows.iter().collect();
            sorted.sort_by(|a, b| b.roofline(model, 1.0).0.total_cmp(&a.roofline(model, 1.0).0));
            for row in sorted {
                let share = row.roofline(model, 1.0).0 / total_us;
                text += &line(row, model, share);
                remark(&mut notable, case, name, row, share);
            }
            for row in &rows {
                for gpu in gpus(architecture) {
                    launches_csv += &csv(case, name, row, &gpu);
                }
            }
            all_sums += &sums::line(case, name, &rows, &gpus(architecture));
            for gpu in gpus(architecture) {
                let us: f64 = rows.iter().map(|row| row.roofline(&gpu, 1.0).0).sum();
                let rate = case.images as f64 / us * 1e6;
                let seen = (name == "90a").then(|| {
                    let us: f64 = rows.iter().map(|row| row.roofline(&gpu, SEEN_OF_PEAK).0).sum();
                    case.images as f64 / us * 1e6
                });
                let (at_790, at_790_csv) = (
                    seen.map_or("".to_string(), |rate| format!("{rate:.0}")),
                    seen.map_or(String::new(), |rate| format!("{rate:.2}")),
                );
                let _ = writeln!(
                    rates,
                    "| {} | {} | {} | {} | {} | {:.2} | {rate:.0} | {at_790} |",
                    case.model.name,
                    case.way,
                    case.images,
                    gpu.name,
                    all.len(),
                    us / 1e3,
                );
                let _ = writeln!(
                    rates_csv,
                    "{},{},{},{name},{},{},{us:.2},{rate:.2},{at_790_csv}",
                    case.model.name,
                    case.way,
                    case.images,
                    gpu.name,
                    all.len()
                );
            }
        }
        write(&format!("sm_{name}.md"), &text)?;
    }
    write("kernels.csv", &kernels_csv)?;
    write("launches.csv", &launches_csv)?;
    write("rates.csv", &rates_csv)?;
    write("README.md", &summary(tables, [&rates, &all_sums], &notable, &how_far_scaling_is_off(found)?)?)
}

/// How a batch's launches were counted, in words.
fn how(case: &Case, counted_as: &str, count: &Count) -> String {
    let Case { images, views, .. } = count.by;
    let mut text = format!(
        "counted as sm_{counted_as} with {} of {} blocks",
        count.layers,
        (case.model.config)().vision.layers
    );
    if (images, views) != (case.images, case.views) {
        text += &format!(", S = {images} and {views} views, and scaled from there");
    }
    text
}

/// Launches that are worth a look: their shares of batches' time.
type Notable = BTreeMap<String, Vec<(f64, String)>>;

/// Notes what is worth a look in a row.
fn remark(notable: &mut Notable, case: &Case, architecture: &str, row: &Row, share: f64) {
    let mut remarks = Vec::new();
    if let Some(ratio) = row.wavefronts_over_least().filter(|&ratio| ratio > NOTABLE) {
        let worst: Vec<&str> = row.counted.worst.iter().take(2).map(|(place, _)| &place[..]).collect();
        remarks
            .push(format!("{ratio:.2} times the wavefronts without bank conflicts ({})", worst.join(", ")));
    }
    if row.touched_over_least() > NOTABLE {
        remarks.push(format!("touches {:.2} times the least bytes", row.touched_over_least()));
    }
    if remarks.is_empty() || share < NOTABLE_SHARE {
        return;
    }
    notable
        .entry(format!(
            "| {} | {} | {} |",
            row.launched.kernel,
            compiled_with(&row.launched.module.1),
            remarks.join("; ")
        ))
        .or_default()
        .push((share, format!("{} on sm_{architecture}", case.name())));
}

/// How far counts that are scaled from S = 1 are from counts of S = 9, where both were made; in words.
fn how_far_scaling_is_off(found: &[(Case, &str, Count)]) -> Result<String> {
    let mut text = String::new();
    let whole = |count: &Count, case: &Case| (count.by.images, count.by.views) == (case.images, case.views);
    for (large, architecture, count) in
        found.iter().filter(|(case, _, count)| case.images > 1 && whole(count, case))
    {
        let is_small = |(case, of, _): &&(Case, &str, Count)| {
            case.images == 1
                && of == architecture
                && case.model.name == large.model.name
                && case.way == large.way
        };
        let Some((_, _, small)) = found.iter().find(is_small) else { continue };
        let scaled = scaled(&count.launches, &small.launches, &small.counted)?;
        let off = |value: &dyn Fn(&Counted) -> f64| {
            let [scaled, counted] = [&scaled, &count.counted].map(|all| all.iter().map(value).sum::<f64>());
            format!("{:+.1} %", 100.0 * (scaled / counted - 1.0))
        };
        let time_us = |all: &[Counted]| -> f64 {
            let launches = all.iter().zip(&count.launches);
            launches.map(|(counted, launched)| counted.roofline(&gpu::H100, ctas(launched), 1.0).0).sum()
        };
        let time = 100.0 * (time_us(&scaled) / time_us(&count.counted) - 1.0);
        let _ = writeln!(
            text,
            "| {} on sm_{architecture} | {} | {} | {} | {} | {time:+.1} % |",
            large.name(),
            off(&Counted::tensor_flops),
            off(&|counted| counted.touched_bytes),
            off(&|counted| counted.sectors),
            off(&|counted| counted.wavefronts),
        );
    }
    Ok(text)
}

fn summary(
    tables: &[(&Architecture, Kernels)],
    [rates, all_sums]: [&str; 2],
    notable: &Notable,
    scaling: &str,
) -> Result<String> {
    let mut text = format!(
        "# What the kernels are, and what they do\n\nMade by `make evidence` with NVRTC {}. No GPU was asked: what a kernel is comes from the compiler that a GPU's code comes from; what a launch does \
         was counted on the virtual device; times are a model, the least that such a GPU could take, **not a measurement**.\n\n",
        Nvrtc::any()?.release()?
    );
    text += "## Spills, and tensor instructions\n\n";
    text += "| | kernels | most registers | spilling | with a stack | HGMMA in | UTMALDG in | HMMA in | LDGSTS in |\n|---|---:|---:|---|---|---|---|---|---|\n";
    for (architecture, kernels) in tables {
        let those = |is: &dyn Fn(&Assembled) -> bool| {
            let mut names: Vec<&str> = kernels.values().filter(|k| is(k)).map(|k| &k.kernel[..]).collect();
            names.sort_unstable();
            names.dedup();
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        };
        let _ = writeln!(
            text,
            "| [sm_{0}](sm_{0}.md) | {1} | {2} | {3} | {4} | {5} | {6} | {7} | {8} |",
            architecture.name,
            kernels.len(),
            kernels.values().map(|kernel| kernel.registers).max().unwrap_or(0),
            those(&|k| k.spill_store_bytes + k.spill_load_bytes > 0),
            those(&|k| k.stack_bytes > 0),
            those(&|k| k.count("HGMMA") > 0),
            those(&|k| k.count("UTMALDG") > 0),
            those(&|k| k.count("HMMA") > 0),
            those(&|k| k.count("LDGSTS") > 0),
        );
    }
    let _ = write!(
        text,
        "\nThese are all kernels that `memo` may load for a ViT-B/32 or ViT-L/14, {VIEWS} views, a step of plain SGD: for batches, for the \
         proofs before them, and in float32 for images whose gradients overflow.\n\n## Images a second, at most\n\n"
    );
    text += "| model | step | images at once | GPU | launches | ms a batch, at least | images/s, at most | the same at 790 TFLOP/s |\n|---|---|---:|---|---:|---:|---:|---:|\n";
    text += rates;
    text += "\nA launch takes the time of its busiest resource, and 2 µs. The last column has tensor cores at the best rate that was seen of a large product on an H100 or \
             H200, in the place of their peak of 989. A B200's peak is that of `tcgen05`, which these kernels do not use: they come less near to it.\n\n";
    let _ = write!(text, "## A batch over what it needs\n\n{}{all_sums}\n", sums::HEAD);
    text += "## What stands out\n\n";
    if notable.is_empty() {
        text += "No launch of more than 0.2 % of a batch's time has bank conflicts or touches bytes beyond a tenth of the least.\n\n";
    } else {
        let _ = write!(
            text,
            "Launches of more than {:.1} % of a batch's time that are more than a tenth over the least of something:\n\n| kernel | compiled with | | batches | share at most |\n|---|---|---|---:|---|\n",
            100.0 * NOTABLE_SHARE
        );
        for (line, batches) in notable {
            let most = batches.iter().max_by(|a, b| a.0.total_cmp(&b.0));
            let (share, batch) = most.map_or((0.0, ""), |(share, batch)| (*share, &batch[..]));
            let _ = writeln!(text, "{line} {} | {:.1} %: {batch} |", batches.len(), 100.0 * share);
        }
        text.push('\n');
    }
    text += COLUMNS;
    let _ = write!(text, "{SCALING}{scaling}");
    Ok(text)
}

const COLUMNS: &str = "## How each number was got

| column | how |
|---|---|
| registers, stack, spilled, shared | `ptxas -v` in NVRTC, of the very code that a GPU is given; bytes a thread, shared bytes a CTA |
| HGMMA, HMMA, UTMALDG, LDGSTS | how often each is in the SASS, by `nvdisasm`: `wgmma`, `mma.sync`, tensor copies, `cp.async` |
| what, launches, CTAs, threads, shared KB | by going through a batch without doing it: CIFAR's pictures, 100 classes, weights that float16 holds as it does OpenAI's; a product's M × N × K |
| CTAs an SM, warps | NVIDIA's rules of occupancy on these registers and shared bytes, of A100, H100, B200 and RTX 5090 |
| tensor FLOPs | those that the tensor cores do, counted, over those of the products that are needed: whole tiles do more than parts of them, and an operand in two terms is multiplied twice |
| touched | sectors of device memory, counted, each once for reads and once for writes, over the bytes of the tensors that are its arguments: below 1 where it needs a part of them |
| moved | sectors between L2 and multiprocessors, counted, over the same |
| conflicts | wavefronts of shared memory, counted, over those that would do without bank conflicts |
| µs each, bound by, share | the [roofline](../../../vcuda/README.md#counters-and-the-roofline) of those counts, launch by launch |

Counted: a batch was run on the virtual device, by a model of the same sizes with fewer blocks, and each launch of the whole model is
one of those, alike in kernel, grid, product and bytes; the launches that were run were those that going through the batch had found,
one by one. Where a batch would run for hours a smaller one was run and its launches *scaled*, as is said above each table: instructions,
traffic and wavefronts by whole tiles and the length of sums, or by CTAs; touched bytes by the least ones. So, too, what goes over all
parameters at once, which is longer in the whole model: \"scaled\" and by how much is said in its row. The virtual device plays sm_80 and
sm_90a. What sm_100 and sm_120 run are the sources of sm_80, for sm_120 with fewer stages; their counts are sm_80's.

`kernels.csv`, `launches.csv` and `rates.csv` have all of it.
";

const SCALING: &str = "
How far scaling is off, where the larger batch was counted as well:

| batch, from S = 1 | tensor FLOPs | touched | moved | wavefronts | roofline |
|---|---:|---:|---:|---:|---:|
";
