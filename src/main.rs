//! The `pgherd` program: hands the command line to [`pgherd::cli`] and its answer to the system. Nothing else.

fn main() -> std::process::ExitCode {
    pgherd::cli::main()
}
