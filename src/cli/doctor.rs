//! `memo doctor`: what is in use on this machine, and how to get what is missing.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::Path;

use super::options::DeviceOptions;
use super::plan::PlanOptions;
use super::print;
use crate::clip::ClipConfig;
use crate::engine::{Settings, prepare};
use crate::gpu::{Cache, CudaVersion, Gpu, Nvrtc, find_virtual_driver, how_to_get, human_bytes, installed};
use crate::policy::Policy;
use crate::report::counted;

#[derive(Args)]
#[command(mut_args(|flag| match flag.get_help_heading() {
    Some(PlanOptions::HEADING) => flag.requires("plan"),
    _ => flag,
}))]
pub struct Doctor {
    #[command(flatten)]
    device: DeviceOptions,
    /// A JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Print instead what pip calls the NVRTC that fits the driver; nothing where one that fits is here
    #[arg(long, conflicts_with_all = ["json", "plan"])]
    wheel: bool,
    /// Explain instead the device memory that adapting --model takes, tensor by tensor
    #[arg(long, requires = "model")]
    plan: bool,
    #[command(flatten)]
    options: PlanOptions,
}

impl Doctor {
    pub fn run(self) -> Result<()> {
        if self.plan {
            return print(&self.options.run(self.device, self.json)?);
        }
        if self.wheel {
            let compiler = self.compiler();
            return match compiler.nvrtc.is_ok() && compiler.fits {
                true => Ok(()),
                false => print(&format!("{}\n", compiler.fitting.wheel())),
            };
        }
        let checks = [
            ("nvidia_driver", nvidia_driver()),
            ("virtual_driver", virtual_driver()),
            ("nvrtc", self.nvrtc()),
            ("cache", cache()),
            ("device", self.device()),
            ("kernels", self.kernels()),
        ];
        // Without a GPU the virtual driver serves, and without vcuda a GPU does.
        let needed = ["nvrtc", "device", "kernels"];
        let broken = checks.iter().filter(|(name, check)| needed.contains(name) && check.is_err()).count();
        if self.json {
            let object: Map<String, Value> = checks
                .into_iter()
                .map(|(name, check)| match check {
                    Ok(value) => (name.to_string(), json!({ "ok": true, "is": value })),
                    Err(error) => (name.to_string(), json!({ "ok": false, "is": format!("{error:#}") })),
                })
                .collect();
            print(&format!("{}\n", Value::Object(object)))?;
        } else {
            let mut text = String::new();
            for (name, check) in checks {
                let (mark, value) = match check {
                    Ok(value) => ("ok", value),
                    Err(error) => ("--", format!("{error:#}")),
                };
                text += &format!("{mark}  {:<15} {value}\n", name.replace('_', " "));
            }
            print(&text)?;
        }
        match broken {
            0 => Ok(()),
            _ => bail!("this machine is not ready: {broken} of the checks above failed"),
        }
    }

    /// The compiler for the device that is asked for; where that does not open, for any.
    fn compiler(&self) -> Compiler {
        let Ok(gpu) = Gpu::open(self.device.device) else {
            return Compiler { nvrtc: Nvrtc::any(), fits: true, fitting: CudaVersion::TESTED };
        };
        let compiler = gpu.compiler();
        let fits = compiler.as_ref().is_ok_and(|(nvrtc, _)| gpu.suits(nvrtc));
        Compiler { nvrtc: compiler.map(|(nvrtc, _)| nvrtc), fits, fitting: gpu.fitting() }
    }

    fn nvrtc(&self) -> Result<String> {
        let Compiler { nvrtc, fits, fitting } = self.compiler();
        let nvrtc = nvrtc?;
        let misfit = match fits {
            true => String::new(),
            false => format!(
                "; the driver has to compile its PTX, since it is newer than that or does not know the device; one that fits: {}",
                how_to_get(fitting)
            ),
        };
        Ok(format!("{}, {}{misfit}", nvrtc.release()?, nvrtc.file()?.display()))
    }

    fn device(&self) -> Result<String> {
        let gpu = Gpu::open(self.device.device)?;
        let (free, total) = gpu.memory_bytes()?;
        Ok(format!(
            "{}, sm_{}, driver of CUDA {}, {} multiprocessors, {} of {} free",
            gpu.name()?,
            gpu.architecture(),
            gpu.driver_version(),
            gpu.multiprocessors()?,
            human_bytes(free),
            human_bytes(total)
        ))
    }

    fn kernels(&self) -> Result<String> {
        let start = std::time::Instant::now();
        let stream = Gpu::open(self.device.device)?.stream()?;
        let settings = Settings::one_step(Policy::notebook());
        prepare(&stream, &ClipConfig::vit_b_32(), 100, &settings)?;
        Ok(format!("compiled or cached, loaded and tried, in {:.2} s", start.elapsed().as_secs_f64()))
    }
}

/// NVRTC as far as it is there, whether the driver loads its cubins, and the version that fits.
struct Compiler {
    nvrtc: Result<&'static Nvrtc>,
    fits: bool,
    fitting: CudaVersion,
}

fn nvidia_driver() -> Result<String> {
    let driver = installed()?;
    match driver.gpus {
        0 => bail!("libcuda.so.1, CUDA {}, shows no GPU", driver.version),
        gpus => Ok(format!("libcuda.so.1, CUDA {}, {}", driver.version, counted(gpus, "GPU"))),
    }
}

fn virtual_driver() -> Result<String> {
    Ok(find_virtual_driver()?.display().to_string())
}

fn cache() -> Result<String> {
    let cache = Cache::from_environment();
    let owner = cache.owner().context("kernels are compiled at every start")?;
    let folder = cache.folder().unwrap_or(Path::new(""));
    let entries: Vec<u64> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .collect();
    let bytes = entries.iter().sum::<u64>() as usize;
    let whose = owner.map_or(String::new(), |owner| {
        format!("; it belongs to user {owner}, who can change the kernels that run here")
    });
    Ok(format!("{}, {} entries, {}{whose}", folder.display(), entries.len(), human_bytes(bytes)))
}
