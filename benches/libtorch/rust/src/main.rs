//! MEMO as the notebook does it, in Rust on libtorch: one image at a time, given views, a deep copy of the model for each.
//!
//!     LIBTORCH_USE_PYTORCH=1 cargo build --release     with torch 2.13.0 in the `python` on the path; or memo bench builds it
//!     target/release/memo-tch JOB_FOLDER
//!
//! ../common.py says what is in the folder, and what to type. Views are not made here but read from there, so that a
//! run's seconds are those of zero-shot, copy, step and prediction. It is float32; tch has no autocast or tf32 to ask
//! for, and no figure for a GPU's memory: `peak_bytes` is 0 there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};

#[derive(Deserialize)]
struct Job {
    model: PathBuf,
    device: String,
    threads: i32,
    views: i64,
    lr: f64,
    steps: i64,
    precision: String,
    logit_scale: f64,
}

#[derive(Deserialize)]
#[serde(default)]
struct Vision {
    num_hidden_layers: usize,
    num_attention_heads: i64,
    hidden_act: String,
    layer_norm_eps: f64,
}

impl Default for Vision {
    fn default() -> Vision {
        Vision {
            num_hidden_layers: 12,
            num_attention_heads: 12,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

#[derive(Deserialize)]
struct Config {
    vision_config: Vision,
}

/// CLIP's vision tower by Hugging Face's names.
struct Tower<'a> {
    config: &'a Vision,
    weights: BTreeMap<String, Tensor>,
}

impl<'a> Tower<'a> {
    fn load(path: &Path, config: &'a Vision, device: Device) -> Result<Tower<'a>> {
        let is_vision = |name: &str| name.starts_with("vis") && !name.ends_with("position_ids");
        let weights = Tensor::read_safetensors(path)?.into_iter().filter(|(name, _)| is_vision(name));
        let weights = weights.map(|(name, w)| (name, w.to_device(device).to_kind(Kind::Float))).collect();
        Ok(Tower { config, weights })
    }

    fn deep_copy(&self) -> Tower<'a> {
        let copy = |(name, w): (&String, &Tensor)| (name.clone(), w.copy().set_requires_grad(true));
        Tower { config: self.config, weights: self.weights.iter().map(copy).collect() }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.weights.get(name).unwrap_or_else(|| panic!("model: no {name}"))
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        x.linear(self.get(&format!("{name}.weight")), self.weights.get(&format!("{name}.bias")))
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let (gain, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        x.layer_norm(gain.size(), Some(gain), Some(bias), self.config.layer_norm_eps, true)
    }

    fn activation(&self, x: &Tensor) -> Tensor {
        if self.config.hidden_act == "gelu" { x.gelu("none") } else { x * (x * 1.702).sigmoid() }
    }

    fn attention(&self, x: &Tensor, name: &str) -> Tensor {
        let [b, t, _] = x.size()[..] else { unreachable!() };
        let heads = |part: &str| {
            self.linear(x, &format!("{name}.{part}"))
                .view([b, t, self.config.num_attention_heads, -1])
                .transpose(1, 2)
        };
        let (q, k, v) = (heads("q_proj"), heads("k_proj"), heads("v_proj"));
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false);
        self.linear(&y.transpose(1, 2).reshape([b, t, -1]), &format!("{name}.out_proj"))
    }

    /// (B, 3, H, H) to (B, D)
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let b = pixels.size()[0];
        let kernel = self.get("vision_model.embeddings.patch_embedding.weight");
        let side = kernel.size()[3];
        let patches = pixels.conv2d(kernel, None::<Tensor>, side, 0, 1, 1).flatten(2, 3).transpose(1, 2);
        let token = self.get("vision_model.embeddings.class_embedding").expand([b, 1, -1], false);
        let x =
            Tensor::cat(&[token, patches], 1) + self.get("vision_model.embeddings.position_embedding.weight");
        let mut x = self.norm(&x, "vision_model.pre_layrnorm");
        for layer in 0..self.config.num_hidden_layers {
            let name = format!("vision_model.encoder.layers.{layer}");
            x = &x
                + self
                    .attention(&self.norm(&x, &format!("{name}.layer_norm1")), &format!("{name}.self_attn"));
            let h = self.linear(&self.norm(&x, &format!("{name}.layer_norm2")), &format!("{name}.mlp.fc1"));
            x = &x + self.linear(&self.activation(&h), &format!("{name}.mlp.fc2"));
        }
        self.linear(&self.norm(&x.select(1, 0), "vision_model.post_layernorm"), "visual_projection")
    }

    /// (B, 3, H, H) to (B, K), of text features times the logit scale.
    fn logits(&self, pixels: &Tensor, text: &Tensor) -> Tensor {
        let features = self.forward(pixels);
        let length = features.norm_scalaropt_dim(2, [-1], true);
        (features / length).matmul(&text.tr())
    }
}

fn marginal_entropy(logits: &Tensor) -> Tensor {
    let n = logits.size()[0] as f64;
    let average = logits.log_softmax(-1, None).logsumexp([0], false) - n.ln();
    let average = average.clamp_min(f64::from(f32::MIN));
    -(average.exp() * average).sum(None)
}

/// In the order in which they are answered; views are not made here.
const STAGES: [&str; 5] = ["views", "forward", "backward", "step", "predict"];

struct Bench<'a> {
    job: &'a Job,
    tower: Tower<'a>,
    device: Device,
    tensors: BTreeMap<String, Tensor>,
    text: Tensor,
    turn: i64,
    /// Seconds of each stage, where they are timed.
    clock: RefCell<Option<BTreeMap<&'static str, f64>>>,
}

impl<'a> Bench<'a> {
    fn given(&self, name: &str, image: i64) -> Tensor {
        self.tensors[name].get(image).to_device(self.device)
    }

    /// Does a part of the work, and adds its time to a stage's where stages are timed: then the device is waited for.
    fn stage<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        if self.clock.borrow().is_none() {
            return work();
        }
        let (start, done) = (Instant::now(), work());
        if let Device::Cuda(index) = self.device {
            tch::Cuda::synchronize(index as i64);
        }
        if let Some(clock) = self.clock.borrow_mut().as_mut() {
            *clock.entry(name).or_default() += start.elapsed().as_secs_f64();
        }
        done
    }

    /// An adapted copy, and the entropy before its first step.
    fn step(&self, views: &Tensor) -> (Tower<'a>, f64) {
        let mut tower = self.stage("step", || self.tower.deep_copy());
        let mut entropies = Vec::new();
        for pixels in views.split(self.job.views, 0) {
            let entropy = self.stage("forward", || marginal_entropy(&tower.logits(&pixels, &self.text)));
            self.stage("backward", || entropy.backward());
            self.stage("step", || {
                no_grad(|| {
                    for w in tower.weights.values_mut() {
                        let mut gradient = w.grad();
                        let _ = w.g_sub_(&(&gradient * self.job.lr));
                        let _ = gradient.zero_();
                    }
                })
            });
            entropies.push(entropy);
        }
        (tower, entropies[0].double_value(&[]))
    }

    /// Zero-shot logits, logits after the step, and the entropy.
    fn adapt(&self, image: i64) -> Result<(Vec<f64>, Vec<f64>, f64)> {
        let (original, views) = (self.given("originals", image).unsqueeze(0), self.given("views", image));
        let logits = |tower: &Tower| {
            let logits = || no_grad(|| tower.logits(&original, &self.text));
            Vec::<f64>::try_from(self.stage("predict", logits).squeeze_dim(0))
        };
        let zero_shot = logits(&self.tower)?;
        let (adapted, entropy) = self.step(&views);
        Ok((zero_shot, logits(&adapted)?, entropy))
    }

    fn check(&self) -> Result<Value> {
        let outcomes =
            (0..self.tensors["originals"].size()[0]).map(|i| self.adapt(i)).collect::<Result<Vec<_>>>()?;
        let (adapted, _) = self.step(&self.given("views", 0));
        let moved: i64 = self
            .tower
            .weights
            .iter()
            .map(|(name, w)| w.ne_tensor(&adapted.weights[name]).sum(None).int64_value(&[]))
            .sum();
        Ok(json!({
            "zero_shot": outcomes.iter().map(|o| &o.0).collect::<Vec<_>>(), "memo": outcomes.iter().map(|o| &o.1).collect::<Vec<_>>(),
            "entropy": outcomes.iter().map(|o| o.2).collect::<Vec<_>>(), "moved": moved as f64 / self.parameters() as f64}))
    }

    fn run(&mut self, count: u64) -> Result<Vec<f64>> {
        let images = self.tensors["originals"].size()[0];
        (0..count)
            .map(|_| {
                let start = Instant::now();
                self.adapt(self.turn % images)?; // its results are on the host
                self.turn += 1;
                Ok(start.elapsed().as_secs_f64())
            })
            .collect()
    }

    /// Seconds an image. What comes first on a GPU has been tried before: nothing is compiled or recorded here.
    fn stages(&mut self, count: u64) -> Result<Value> {
        self.clock.replace(Some(BTreeMap::new()));
        self.run(count)?;
        let seconds = self.clock.replace(None).unwrap_or_default();
        let of_image = |name: &str| seconds.get(name).map(|seconds| seconds / count as f64);
        let stages = STAGES.into_iter().map(|name| (name.to_string(), json!(of_image(name))));
        Ok(json!({"stages": Value::Object(stages.collect())}))
    }

    fn parameters(&self) -> usize {
        self.tower.weights.values().map(Tensor::numel).sum()
    }

    fn answer(&mut self, line: &str) -> Result<Value> {
        let request: Value = serde_json::from_str(line)?;
        if request == json!({"check": true}) {
            return self.check();
        }
        if request == json!({"warm_up": true}) {
            let (seconds, turn) = (self.run(2)?, self.turn);
            self.turn = turn - 2;
            return Ok(json!({"warm_up_s": seconds.iter().sum::<f64>()}));
        }
        if let Some(count) = request["stages"].as_u64().filter(|count| *count > 0) {
            return self.stages(count);
        }
        let count = request["run"].as_u64().filter(|count| *count > 0).context("no such request")?;
        std::fs::write("/proc/self/clear_refs", "5")?; // the peak starts anew
        let seconds = self.run(count)?;
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status
            .split("VmHWM:")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let peak = peak.filter(|_| self.device == Device::Cpu).unwrap_or(0);
        Ok(json!({"seconds": seconds, "peak_bytes": 1024 * peak}))
    }
}

fn say(value: &Value) {
    println!("{value}");
    std::io::stdout().flush().expect("stdout");
}

/// The version that the library in use says it is, in the Python package around it.
fn torch_version() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?.split_whitespace().last()?;
    let text = std::fs::read_to_string(Path::new(library).parent()?.parent()?.join("version.py")).ok()?;
    Some(text.split("__version__ = '").nth(1)?.split('\'').next()?.to_string())
}

fn start<'a>(folder: &Path, job: &'a Job, config: &'a Vision) -> Result<Bench<'a>> {
    ensure!(job.precision == "float32", "precision {}: this is float32", job.precision);
    let device = match job.device.split_once(':') {
        None if job.device == "cpu" => Device::Cpu,
        Some(("cuda", index)) => Device::Cuda(index.parse()?),
        _ => bail!("device {}: expected cpu or cuda:N", job.device),
    };
    ensure!(
        device == Device::Cpu || tch::Cuda::is_available(),
        "device {}: libtorch finds no GPU",
        job.device
    );
    tch::set_num_threads(job.threads);
    let file = if job.model.is_dir() { job.model.join("model.safetensors") } else { job.model.clone() };
    let tower = Tower::load(&file, config, device)?;
    let tensors: BTreeMap<_, _> =
        Tensor::read_safetensors(folder.join("tensors.safetensors"))?.into_iter().collect();
    let drawn = tensors["views"].size()[1];
    ensure!(
        drawn == job.steps * job.views,
        "views: {drawn} an image, not {} steps of {}",
        job.steps,
        job.views
    );
    let text = tensors["text"].to_device(device) * job.logit_scale;
    Ok(Bench { job, tower, device, tensors, text, turn: 0, clock: RefCell::new(None) })
}

fn serve(what: &mut String) -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: memo-tch JOB_FOLDER")?);
    let job: Job = serde_json::from_slice(&std::fs::read(folder.join("job.json"))?)?;
    let beside =
        if job.model.is_dir() { &job.model } else { job.model.parent().context("model: no folder")? };
    let config: Config =
        serde_json::from_slice(&std::fs::read(beside.join("config.json")).context("model: no config.json")?)?;
    let mut bench = start(&folder, &job, &config.vision_config)?;
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    say(&json!({"ready": {
        "torch": torch_version().unwrap_or_default(), "transformers": "none (tch 0.26.0)",
        "device": if bench.device == Device::Cpu { cpu.unwrap_or("cpu") } else { &job.device },
        "note": "its views are given, not made: its time is without them",
        "dtype": "float32", "threads": tch::get_num_threads(), "parameters": bench.parameters()}}));
    for line in std::io::stdin().lock().lines() {
        *what = line?.trim().to_string();
        say(&bench.answer(what)?);
    }
    Ok(())
}

fn main() {
    let mut what = "start".to_string();
    // Tensor operations of tch panic where libtorch throws.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(&mut what)));
    let why = match done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => panic
            .downcast_ref::<String>()
            .map_or("a panic", |text| text.lines().next().unwrap_or(""))
            .to_string(),
    };
    say(&json!({"error": format!("{what}: {why}")}));
    std::process::exit(1);
}
