//! The helper thread: parses texts that are too long for a data thread (SESSIONS R14). Its queue is bounded; what does not fit is not
//! parsed, and its statement stays on the primary. Must not look at anything but texts.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::session::LongText;
use crate::sql::{self, HELPER_STACK};

use super::data::ThreadMail;

/// Texts that may wait: 2 MiB at most.
const QUEUE: usize = 64;

/// A text and the data thread that wants to know.
pub(super) type Job = (usize, LongText);

/// Starts the thread. It ends when every sender is gone.
pub(super) fn start(mail: Vec<mpsc::Sender<ThreadMail>>) -> std::io::Result<(SyncSender<Job>, JoinHandle<()>)> {
    let (sender, jobs) = sync_channel(QUEUE);
    let builder = std::thread::Builder::new().name("parser".to_owned()).stack_size(HELPER_STACK);
    let thread = builder.spawn(move || work(&jobs, &mail))?;
    Ok((sender, thread))
}

fn work(jobs: &Receiver<Job>, mail: &[mpsc::Sender<ThreadMail>]) {
    for (thread, job) in jobs {
        let facts = Box::new(sql::analyze(&job.text, job.mode));
        // A full mailbox: the text is looked at again when it falls out of the cache.
        let _ = mail[thread].try_send(ThreadMail::Facts(job.fingerprint, facts));
    }
}
