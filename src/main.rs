//! Arguments to library to exit code: 0 done, 1 failed, 2 misused.

mod out_of_memory;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: out_of_memory::Allocator = out_of_memory::Allocator;

fn main() -> ExitCode {
    match memo::cli::run(memo::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<memo::cli::Usage>() { 2 } else { 1 })
        }
    }
}
