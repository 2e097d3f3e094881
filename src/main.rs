//! The `holt` binary: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    holt::cli::run()
}
