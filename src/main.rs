//! The `tertulia` binary: hands the command line to [`tertulia::cli`].

fn main() -> std::process::ExitCode {
    tertulia::cli::main()
}
