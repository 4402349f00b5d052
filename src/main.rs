//! Arguments to library to exit code: 0 done, 1 failed, 2 misused, 128 and more ended by a signal.

mod out_of_memory;

use std::process::ExitCode;

use clap::Parser;
use memo::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: out_of_memory::Allocator = out_of_memory::Allocator;

fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => cli::run(cli),
        // What --help says is a result as others are.
        Err(error) if !error.use_stderr() => cli::written(error.print()),
        Err(error) => error.exit(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::end(&error),
    }
}
