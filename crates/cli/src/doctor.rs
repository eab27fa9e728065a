//! `vlm doctor`

use crate::output::Output;
use crate::{Common, Outcome};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use vlm_kernels::report::{self, Amx};
use vlm_tasks::table::Table;

/// Say what this machine offers and what is used of it
#[derive(Args)]
#[command(after_help = "\
VLM_CPU=portable, avx2, avx-vnni, avx512 or avx512-bf16 in the environment masks what is better, for tests.

With --json the line has cpu, features, vlm_cpu, amx, kernels, threads, memory_mb, available_mb, tools and gpus.

Exit codes: 0 done; 2 wrong usage.

Example:
  vlm doctor
  VLM_CPU=avx2 vlm doctor --json")]
pub struct DoctorArgs {}

#[derive(Serialize)]
struct Record {
    cpu: String,
    features: Vec<Feature>,
    vlm_cpu: Option<String>,
    amx: &'static str,
    kernels: Vec<Kernel>,
    threads: usize,
    memory_mb: Option<u64>,
    available_mb: Option<u64>,
    tools: Vec<Tool>,
    gpus: Vec<String>,
}

#[derive(Serialize)]
struct Feature {
    name: &'static str,
    found: bool,
    used: bool,
}

#[derive(Serialize)]
struct Kernel {
    operation: &'static str,
    precision: &'static str,
    kernel: &'static str,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    path: Option<PathBuf>,
    purpose: &'static str,
}

/// Programs that are used where they are installed.
const TOOLS: [(&str, &str); 2] = [
    ("ffmpeg", "decodes video"),
    ("python3", "runs the peers of bench/compare"),
];

pub fn run(_: &DoctorArgs, common: &Common) -> anyhow::Result<Outcome> {
    let record = examine();
    let text = describe(&record);
    Output::new(common.json).result(&record, &text)?;
    Ok(Outcome::Done)
}

fn examine() -> Record {
    Record {
        cpu: cpu_model(),
        features: report::features()
            .into_iter()
            .map(|f| Feature {
                name: f.name,
                found: f.found,
                used: f.used,
            })
            .collect(),
        vlm_cpu: report::bound(),
        amx: match report::amx() {
            Amx::Missing => "missing",
            Amx::Masked => "masked",
            Amx::Refused => "refused",
            Amx::SelfCheckFailed => "self-check failed",
            Amx::Used => "used",
        },
        kernels: report::choices()
            .into_iter()
            .map(|c| Kernel {
                operation: c.operation,
                precision: c.precision,
                kernel: c.kernel,
            })
            .collect(),
        threads: rayon::current_num_threads(),
        memory_mb: meminfo("MemTotal"),
        available_mb: meminfo("MemAvailable"),
        tools: TOOLS
            .iter()
            .map(|&(name, purpose)| Tool {
                name,
                path: find_program(name),
                purpose,
            })
            .collect(),
        gpus: gpus(),
    }
}

fn describe(r: &Record) -> String {
    let none = || "unknown".to_owned();
    let feature = |f: &Feature| {
        let state = match (f.found, f.used) {
            (false, _) => "missing",
            (true, true) => "used",
            (true, false) => "found, not used",
        };
        format!("{} {state}", f.name)
    };
    let features: Vec<String> = r.features.iter().map(feature).collect();
    let amx = match r.amx {
        "missing" => "not in this processor",
        "masked" => "in this processor, masked by VLM_CPU",
        "refused" => "in this processor, refused by the system; the next best is used",
        "self-check failed" => "granted, but a first product came out wrong; the next best is used",
        _ => "granted and used",
    };
    let memory = match (r.memory_mb, r.available_mb) {
        (Some(total), Some(free)) => format!("{total} MB, {free} MB available"),
        _ => none(),
    };
    let gpus = if r.gpus.is_empty() {
        "none found".to_owned()
    } else {
        format!("{}; not used by this build", r.gpus.join(", "))
    };
    let mut lines = vec![
        ("cpu", r.cpu.clone()),
        (
            "features",
            if features.is_empty() {
                "none that kernels are written for".to_owned()
            } else {
                features.join(", ")
            },
        ),
        ("amx", amx.to_owned()),
        (
            "VLM_CPU",
            r.vlm_cpu.clone().unwrap_or_else(|| "not set".to_owned()),
        ),
        ("threads", r.threads.to_string()),
        ("memory", memory),
        ("gpu", gpus),
    ];
    for tool in &r.tools {
        let found = match &tool.path {
            Some(path) => path.display().to_string(),
            None => format!("not found; {} where it is installed", tool.purpose),
        };
        lines.push((tool.name, found));
    }
    let mut text = String::new();
    for (name, value) in lines {
        text += &format!("{name:<9} {}\n", printable(&value));
    }
    let mut table = Table::new(["operation", "precision", "kernel"]);
    for k in &r.kernels {
        table.row([k.operation, k.precision, k.kernel]);
    }
    format!("{text}\n{}", table.render(false))
}

/// Names of devices and the environment are not ours: nothing of them may steer the terminal.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()));
    match model {
        Some(model) => format!("{model} ({})", std::env::consts::ARCH),
        None => std::env::consts::ARCH.to_owned(),
    }
}

/// A line of `/proc/meminfo`, in MB.
fn meminfo(key: &str) -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    kilobytes(&info, key).map(|kb| kb / 1024)
}

/// The number of a line `KEY: NUMBER kB`.
pub fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Names of the graphics processors that their driver lists.
fn gpus() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(Path::new("/proc/driver/nvidia/gpus")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let information = std::fs::read_to_string(entry.path().join("information")).ok()?;
            let model = information
                .lines()
                .find_map(|l| l.strip_prefix("Model:").map(str::trim))?;
            Some(model.to_owned())
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_are_read_of_the_line_with_that_very_key() {
        let text = "MemTotalHuge:  1 kB\nMemTotal:       24574000 kB\nMemFree: many kB\n";
        assert_eq!(kilobytes(text, "MemTotal"), Some(24_574_000));
        assert_eq!(kilobytes(text, "MemFree"), None);
        assert_eq!(kilobytes(text, "Swap"), None);
    }

    #[test]
    fn what_was_found_steers_no_terminal() {
        let mut record = examine();
        record.vlm_cpu = Some("\u{1b}[31mred".to_owned());
        assert!(!describe(&record).contains('\u{1b}'));
    }
}
