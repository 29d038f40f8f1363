//! `pgherd pcp`: pgherd's own client of the administration port: pgpool-II's commands and more, with tables or JSON, progress, and an exit
//! status that says what came of it. Must not hold what a running proxy needs.

mod link;
mod password;
mod show;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use serde_json::Value;

use super::{Failure, StopMode, report};
use crate::pcp::{MOST_EVENTS, Own, Which, request};
use link::{Link, Refused};

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// `pgherd pcp`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct PcpArgs {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: PcpCommand,
}

/// Where, as whom, and how it is shown.
#[derive(Debug, Args)]
struct Reach {
    /// Host name or address, or the folder of a Unix socket.
    #[arg(long, short = 'h', global = true, default_value = "localhost")]
    host: String,
    /// Its port.
    #[arg(long, short = 'p', global = true, default_value_t = 9898)]
    port: u16,
    /// The administrator; the user of the system unless given.
    #[arg(long = "username", short = 'U', global = true)]
    user: Option<String>,
    /// Never ask for a password: it comes from PCPPASSFILE or ~/.pcppass.
    #[arg(long, short = 'w', global = true)]
    no_password: bool,
    /// Longest wait for a sign of life in an answer, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Answer in JSON; progress goes to standard error, one object per line.
    #[arg(long, global = true)]
    json: bool,
    /// Print help.
    #[arg(long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

/// A node, as pgpool-II's programs take it.
#[derive(Debug, Args)]
struct OneNode {
    /// The node's number.
    #[arg(short = 'n', long = "node-id", value_name = "NODE", conflicts_with = "node")]
    id: Option<u16>,
    /// The node's number.
    #[arg(required_unless_present = "id")]
    node: Option<u16>,
}

impl OneNode {
    fn number(&self) -> u16 {
        self.id.or(self.node).unwrap_or_default()
    }
}

/// A node, or none.
#[derive(Debug, Args)]
struct SomeNode {
    /// The node's number.
    #[arg(short = 'n', long = "node-id", value_name = "NODE", conflicts_with = "node")]
    id: Option<u16>,
    /// The node's number.
    node: Option<u16>,
}

#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
enum PcpCommand {
    /// Nodes, pools, waiting clients and the newest events.
    #[command(disable_help_flag = true)]
    Overview {
        /// Show it again every so many seconds, until Ctrl-C.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
        watch: Option<u64>,
        /// End after so many times.
        #[arg(long, requires = "watch")]
        times: Option<u64>,
    },
    /// How many nodes there are.
    #[command(disable_help_flag = true)]
    NodeCount,
    /// The nodes: status, role, lag.
    #[command(disable_help_flag = true)]
    NodeInfo(SomeNode),
    /// How the health checks went.
    #[command(disable_help_flag = true)]
    HealthCheckStats(SomeNode),
    /// How many clients there are.
    #[command(disable_help_flag = true)]
    ProcCount,
    /// The sessions: one for each client.
    #[command(disable_help_flag = true)]
    ProcInfo {
        /// Only this one.
        #[arg(short = 'P', long = "process-id", value_name = "SESSION")]
        session: Option<i32>,
    },
    /// The pools: sizes, connections, who waits.
    #[command(disable_help_flag = true)]
    Pools,
    /// The settings.
    #[command(disable_help_flag = true)]
    PoolStatus,
    /// The partner proxies.
    #[command(disable_help_flag = true)]
    #[command(alias = "watchdog-info")]
    WatchdogInfo,
    /// Do not use a node any more, until it is attached.
    #[command(disable_help_flag = true)]
    DetachNode {
        #[command(flatten)]
        node: OneNode,
        /// Answer when no transaction uses it any more.
        #[arg(short = 'g', long)]
        gracefully: bool,
    },
    /// Use a node again.
    #[command(disable_help_flag = true)]
    AttachNode(OneNode),
    /// Make a standby primary in place of a dead one or, with --switchover, of one that answers.
    #[command(disable_help_flag = true)]
    PromoteNode {
        #[command(flatten)]
        node: OneNode,
        /// Move the role of a primary that answers.
        #[arg(short = 's', long)]
        switchover: bool,
    },
    /// Move the primary's role to a standby; to the best one unless it is named.
    #[command(disable_help_flag = true)]
    SwitchOver(SomeNode),
    /// Rebuild a node from the primary.
    #[command(disable_help_flag = true)]
    RecoveryNode(OneNode),
    /// Read the configuration file again, and say what came of it.
    #[command(disable_help_flag = true)]
    ReloadConfig {
        /// All partner proxies, too.
        #[arg(long)]
        group: bool,
    },
    /// Stop pgherd.
    #[command(name = "stop_pgpool", visible_alias = "stop", disable_help_flag = true)]
    Stop {
        /// How: wait for clients to leave; end sessions once their transactions end; or at once.
        #[arg(long, short, default_value = "smart")]
        mode: StopMode,
        /// All partner proxies, too.
        #[arg(long)]
        group: bool,
    },
    /// Let no new statement begin; transactions under way go on.
    #[command(disable_help_flag = true)]
    Pause {
        /// It ends by itself after so many seconds.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = 30)]
        seconds: u32,
        /// Answer when no server connection is at work any more; status 1 if the pause ends before.
        #[arg(long)]
        wait: bool,
    },
    /// Let statements go on.
    #[command(disable_help_flag = true)]
    Resume,
    /// Cancel what a session does.
    #[command(disable_help_flag = true)]
    Cancel {
        /// Its number, as proc_info shows it.
        session: i32,
    },
    /// End a session.
    #[command(disable_help_flag = true)]
    End {
        /// Its number, as proc_info shows it.
        session: i32,
    },
    /// Replace server connections by new ones: those that are open end as soon as they are idle.
    #[command(disable_help_flag = true)]
    ResetPool {
        /// Only to this node.
        #[arg(long, short = 'n')]
        node: Option<u16>,
        /// Only to this database.
        #[arg(long, short = 'd')]
        database: Option<String>,
        /// Only of this user, who is another one than the administrator.
        #[arg(id = "pool_user", long = "user", short = 'u')]
        user: Option<String>,
    },
    /// What has happened.
    #[command(disable_help_flag = true)]
    Events {
        /// The newest so many.
        #[arg(long, default_value_t = 50)]
        most: usize,
        /// Only those with a greater number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
}

/// What is asked.
fn wish(command: &PcpCommand) -> Own {
    use PcpCommand as C;
    let either = |node: &SomeNode| node.id.or(node.node);
    match command {
        C::Overview { .. } | C::ProcCount => Own::Overview,
        C::NodeCount => Own::Nodes { node: None },
        C::NodeInfo(node) => Own::Nodes { node: either(node) },
        C::HealthCheckStats(node) => Own::HealthChecks { node: either(node) },
        C::ProcInfo { session } => Own::Sessions { session: *session },
        C::Pools => Own::Pools,
        C::PoolStatus => Own::Settings,
        C::WatchdogInfo => Own::Watchdog,
        C::DetachNode { node, gracefully } => Own::Detach { node: node.number(), gracefully: *gracefully },
        C::AttachNode(node) => Own::Attach { node: node.number() },
        C::PromoteNode { node, switchover: true } => Own::SwitchOver { node: Some(node.number()) },
        C::PromoteNode { node, switchover: false } => Own::Promote { node: node.number() },
        C::SwitchOver(node) => Own::SwitchOver { node: either(node) },
        C::RecoveryNode(node) => Own::Recover { node: node.number() },
        C::ReloadConfig { group } => Own::Reload { group: *group },
        C::Stop { mode, group } => Own::Stop {
            group: *group,
            mode: match mode {
                StopMode::Smart => request::StopMode::Smart,
                StopMode::Fast => request::StopMode::Fast,
                StopMode::Immediate => request::StopMode::Immediate,
            },
        },
        C::Pause { seconds, wait } => Own::Pause { seconds: *seconds, wait: *wait },
        C::Resume => Own::Resume,
        C::Cancel { session } => Own::Cancel { session: *session },
        C::End { session } => Own::End { session: *session },
        C::ResetPool { node, database, user } => {
            Own::ResetPool(Which { node: *node, database: database.clone(), user: user.clone() })
        }
        C::Events { most, after } => Own::Events { after: *after, most: (*most).min(MOST_EVENTS) },
    }
}

/// Asks, and shows what was told.
pub(super) fn run(args: &PcpArgs) -> Result<ExitCode, Failure> {
    let reach = &args.reach;
    let mut link = open(reach)?;
    let own = wish(&args.command);
    match &args.command {
        PcpCommand::Overview { watch: Some(seconds), times } => watch(&mut link, reach, *seconds, *times)?,
        PcpCommand::NodeCount => count(&mut link, reach, &own, "nodes")?,
        PcpCommand::ProcCount => count(&mut link, reach, &own, "clients")?,
        _ => {
            let told = ask(&mut link, reach, &own)?;
            print(reach, &told, || show::answer(&own, &told));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(reach: &Reach) -> Result<Link, Failure> {
    let user = match &reach.user {
        Some(user) => user.clone(),
        None => nix::unistd::User::from_uid(nix::unistd::geteuid())?.map_or_else(String::new, |user| user.name),
    };
    let found = match password::file().map(|file| password::look_up(&file, &reach.host, reach.port, &user)) {
        Some(Ok(found)) => found,
        Some(Err(warning)) => {
            eprintln!("pgherd: {warning}");
            None
        }
        None => None,
    };
    let password = match found {
        Some(password) => password,
        None if reach.no_password => String::new(),
        None => password::ask(&user)?,
    };
    Ok(Link::open(&reach.host, reach.port, &user, &password)?)
}

fn ask(link: &mut Link, reach: &Reach, own: &Own) -> Result<Value, Refused> {
    let quiet = !reach.json && !std::io::stderr().is_terminal();
    link.ask(own, Duration::from_secs(reach.timeout), |told| match reach.json {
        true => eprintln!("{told}"),
        false if quiet && told["event"].is_null() => {}
        false => eprintln!("{}", show::progress(told)),
    })
}

fn print(reach: &Reach, told: &Value, shown: impl FnOnce() -> String) {
    report::print(&if reach.json { format!("{told}\n") } else { shown() });
}

fn count(link: &mut Link, reach: &Reach, own: &Own, what: &str) -> Result<(), Failure> {
    let told = ask(link, reach, own)?;
    let count = told[what].as_u64().unwrap_or(told[what].as_array().map_or(0, Vec::len) as u64);
    print(reach, &serde_json::json!({ what: count }), || format!("{count}\n"));
    Ok(())
}

/// Shows the overview again and again; a screen of its own on a terminal, one after the other elsewhere.
fn watch(link: &mut Link, reach: &Reach, seconds: u64, times: Option<u64>) -> Result<(), Failure> {
    let clear = std::io::stdout().is_terminal() && !reach.json;
    for round in 1.. {
        let told = ask(link, reach, &Own::Overview)?;
        print(reach, &told, || format!("{}{}\n", if clear { CLEAR } else { "" }, show::answer(&Own::Overview, &told)));
        if times.is_some_and(|times| round >= times) {
            break;
        }
        std::thread::sleep(Duration::from_secs(seconds.max(1)));
    }
    Ok(())
}
