//! Command line.

/// Parses the arguments, runs the command, returns the exit code.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
