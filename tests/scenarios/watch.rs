//! What the kernels of all hosts say of one address, by netlink events. Must not judge but this: at no instant do two hosts have it.
#![allow(dead_code, unreachable_pub, reason = "shared by the modules of one test binary")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::net::Net;

/// One word of a kernel about the address.
#[derive(Debug, Clone)]
struct Word {
    at: Instant,
    host: &'static str,
    here: bool,
}

/// Listens to the netlink events of all hosts: nothing is sampled.
pub struct Watch {
    monitors: Vec<Child>,
    readers: Vec<JoinHandle<()>>,
    words: Arc<Mutex<Vec<Word>>>,
}

impl Watch {
    pub fn start(net: &Net, hosts: &[&'static str], address: &str) -> Self {
        let words = Arc::new(Mutex::new(Vec::new()));
        let (mut monitors, mut readers) = (Vec::new(), Vec::new());
        for &host in hosts {
            let mut command = Command::new("ip");
            command.args(["-o", "monitor", "address"]).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = net.host(host).inside(|| command.spawn().expect("ip starts"));
            let output = BufReader::new(child.stdout.take().expect("a pipe"));
            let (words, address) = (words.clone(), format!(" {address}/"));
            readers.push(std::thread::spawn(move || {
                for line in output.lines().map_while(Result::ok).filter(|line| line.contains(&address)) {
                    let word = Word { at: Instant::now(), host, here: !line.contains("Deleted") };
                    words.lock().expect("no panic inside").push(word);
                }
            }));
            monitors.push(child);
        }
        Self { monitors, readers, words }
    }

    fn words(&self) -> Vec<Word> {
        self.words.lock().expect("no panic inside").clone()
    }

    /// Who has it now.
    pub fn holders(&self) -> Vec<&'static str> {
        let mut now = Vec::new();
        for word in self.words() {
            now.retain(|host| *host != word.host);
            if word.here {
                now.push(word.host);
            }
        }
        now
    }

    /// When a host's kernel said last that it has the address no more.
    pub fn gone(&self, host: &str) -> Option<Instant> {
        self.words().iter().rev().find(|word| word.host == host && !word.here).map(|word| word.at)
    }

    /// At no instant did two hosts have it; the longest time when nobody had, behind the first take.
    pub fn judge(&self) -> Duration {
        let (mut now, mut gone, mut longest): (Vec<&str>, Option<Instant>, Duration) =
            (Vec::new(), None, Duration::ZERO);
        for word in self.words() {
            now.retain(|host| *host != word.host);
            if word.here {
                now.push(word.host);
                longest = longest.max(gone.take().map_or(Duration::ZERO, |at| word.at - at));
            } else if now.is_empty() {
                gone = gone.or(Some(word.at));
            }
            assert!(now.len() <= 1, "two have the address: {:#?}", self.words());
        }
        longest
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for child in &mut self.monitors {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }
}
