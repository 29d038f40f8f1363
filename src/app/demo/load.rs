//! A small load through the proxy, and the judgement of what came of it: `pgherd demo --seconds N`.
//!
//! Owned by [`super::play`]. Must not print.

use std::time::Duration;

use super::cluster::Cluster;
use super::stage::{DATABASE, Stage, Work, pgbench};
use super::{Error, programs};

/// How much longer than its own time pgbench may take.
const GRACE: Duration = Duration::from_secs(60);
/// How long the standbys may take to have what was written.
const REPLAY: Duration = Duration::from_secs(60);

/// Each session stays with the server that it drew for its reads: of so many, some draw each of three.
pub const READERS: &str = "24";

/// What pgbench says that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Transactions of one SELECT each.
    pub reads: u64,
    /// Transactions that wrote.
    pub writes: u64,
}

/// The load to run, taken from the stage so that it can run on a thread of its own.
#[derive(Debug)]
pub struct Load {
    readers: std::process::Command,
    writers: std::process::Command,
    limit: Duration,
}

impl Load {
    /// Many clients that only read, and two with pgbench's own mix of three updates, one read and one insert in a
    /// transaction, for that many seconds.
    pub fn new(stage: &Stage, seconds: u64) -> Self {
        let command = |clients: &str, script: &str| {
            let mut command = pgbench(stage.cluster(), stage.port());
            command.args(["-n", "-c", clients, "-b", script, "-T"]).arg(seconds.to_string()).arg(DATABASE);
            command
        };
        Self {
            readers: command(READERS, "select-only"),
            writers: command("2", "tpcb-like"),
            limit: Duration::from_secs(seconds) + GRACE,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// What pgbench said when one of its clients met an error.
    pub fn run(mut self) -> Result<Done, Error> {
        let limit = self.limit;
        let reading = std::thread::spawn(move || programs::succeed(&mut self.readers, &[], limit));
        let written = programs::succeed(&mut self.writers, &[], limit);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(Done { reads: processed(&read?.text()), writes: processed(&written?.text()) })
    }
}

/// What is wrong with the outcome; nothing if all is well. The proxy has stopped by now, so the servers' counts are
/// complete.
///
/// # Errors
/// A server that does not answer.
pub fn faults(cluster: &Cluster, done: Done, work: &[Work]) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    if done.reads == 0 || done.writes == 0 {
        faults.push(format!("pgbench did {} reads and {} writes", done.reads, done.writes));
    }
    for (server, work) in cluster.servers().iter().zip(work).skip(1) {
        // With equal weights a third is its share of the sessions; one session of them all is enough to show it.
        if work.transactions == 0 || work.transactions < done.reads / 50 {
            let (name, got, all) = (server.name(), work.transactions, done.reads);
            faults.push(format!("{name} answered {got} of {all} reads"));
        }
    }
    cluster.wait_replayed(REPLAY)?;
    for server in cluster.servers() {
        let rows = server.psql(DATABASE, "SELECT count(*) FROM pgbench_history")?;
        if rows != done.writes.to_string() {
            faults.push(format!("{} has {rows} rows of {} that were written", server.name(), done.writes));
        }
    }
    Ok(faults)
}

/// Reads `812` out of `number of transactions actually processed: 812`, which older versions follow with `/…`.
fn processed(said: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let digits = line.map(|line| line.split(|c: char| !c.is_ascii_digit()).next().unwrap_or(""));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_transactions_is_found() {
        let said = "query mode: simple\nnumber of transactions actually processed: 812\nlatency average = 1 ms\n";
        assert_eq!(processed(said), 812);
        assert_eq!(processed("number of transactions actually processed: 80/80\n"), 80);
        assert_eq!(processed("something else"), 0);
    }
}
