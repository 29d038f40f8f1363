//! The command line: reads it, calls who does the work, prints what came out. Knows everyone through `app`; must not
//! hold logic that a running proxy needs.
//!
//! Exit status: 0 done, 1 it failed or found something wrong, 2 the command line is wrong.

mod check;
mod pcp;
pub mod pid;
mod process;
mod report;
mod rights;
mod servers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where packages put it.
const DEFAULT_FILE: &str = "/etc/pgherd/pgherd.toml";

/// A PostgreSQL proxy: pooling, read/write splitting, failover and a watchdog in one binary.
#[derive(Debug, Parser)]
#[command(name = "pgherd", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until a signal ends it: SIGTERM, SIGINT and SIGQUIT stop, SIGHUP reloads.
    Run(ServeArgs),
    /// Validate a configuration file, try its servers, and report.
    Check(CheckArgs),
    /// Play with a private primary and two standbys, made from the PostgreSQL on this machine; Ctrl-C removes all of it.
    Demo(DemoArgs),
    /// Let the running proxy read its configuration file again.
    Reload(ConfigArg),
    /// Stop the running proxy.
    Stop(StopArgs),
    /// Vote for one of the proxies that the file's watchdog section names, and serve nobody: the third member of a pair.
    Witness(RunArgs),
    /// Administer a running proxy over its administration port.
    Pcp(pcp::PcpArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    file: RunArgs,
    /// Among partner proxies: end with an error, instead of trying again, if no trusted server answers, somebody else has the virtual address, it
    /// cannot be held, a partner has other settings, or no majority is there.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    file: ConfigArg,
    /// Print a sample configuration file with every parameter, and do nothing else.
    #[arg(long)]
    print_sample: bool,
    /// Do not connect to the servers.
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// The proxy's port on 127.0.0.1; 0: any free one.
    #[arg(long, short, default_value_t = 9999)]
    port: u16,
    /// Run a small load by itself for so long, show where it went, and end; status 1 if anything was wrong.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
}

#[derive(Debug, Args)]
struct StopArgs {
    #[command(flatten)]
    file: ConfigArg,
    /// How: wait for clients to leave; end sessions once their transactions end; or at once.
    #[arg(long, short, value_enum, default_value = "fast")]
    mode: StopMode,
    /// Longest wait for its end, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// How to stop, as `pg_ctl` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StopMode {
    /// No new clients; ends when the last one has left.
    Smart,
    /// Sessions end with their transactions, within `listen.stop_timeout`.
    Fast,
    /// At once.
    Immediate,
}

/// A failure as the user reads it.
type Failure = Box<dyn std::error::Error>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("pgherd: {}", failure.to_string().trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => {
            let settings = crate::config::Settings::load(&args.file.config)?;
            let _held = pid::PidFile::acquire(&settings.pid_file)?;
            crate::app::run(args.file.config, args.once)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Witness(args) => {
            let settings = crate::config::Settings::load(&args.config)?;
            let _held = pid::PidFile::acquire(&settings.pid_file)?;
            crate::app::witness::run(&args.config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) if args.print_sample => {
            report::print(&crate::config::sample());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => check::run(&args.file.config, args.file.json, args.offline),
        Command::Demo(args) => {
            let wishes = crate::app::demo::play::Wishes { port: args.port, seconds: args.seconds };
            let well = crate::app::demo::play::run(wishes)?;
            Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Reload(args) => process::reload(&args.config, args.json),
        Command::Pcp(args) => pcp::run(&args),
        Command::Stop(args) => {
            process::stop(&args.file.config, args.mode, Duration::from_secs(args.timeout), args.file.json)
        }
    }
}
