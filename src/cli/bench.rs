//! `tertulia bench`: figures of F4 to F6, measured inside one run.

use super::Failure;
use super::args::BenchArgs;

pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    Err(Failure::Usage(format!("there is no bench {:?} yet", args.what)))
}
