//! `tertulia bench`: figures of F4 to F6, measured inside one run.

use super::Failure;
use super::args::BenchArgs;

pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    match args.what.as_str() {
        other => Err(Failure::Usage(format!("there is no bench {other:?}; there are: sfu, join"))),
    }
}
