//! The command line.

mod cli;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request by HTTP/2 is some thirty small allocations: with glibc's, a tenth of the proxy's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
