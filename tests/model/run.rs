//! Runs programs on both sides, compares, and makes a program that differs smaller.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::collections::BTreeMap;

use crate::common::raw::{Frame, RawClient};
use crate::program::{CLIENTS, Step, Writer};

/// Tries to make a failing program smaller.
const ATTEMPTS: usize = 60;

/// One set of programs.
pub struct Round<'a> {
    /// What the programs are made from.
    pub seed: u64,
    /// How many of the clients may make what pins.
    pub pinning: usize,
    /// pgherd's port.
    pub proxy: u16,
    /// The primary's port.
    pub direct: u16,
    /// Makes a fresh database.
    pub make: &'a (dyn Fn() -> String + Sync),
}

/// What a client saw: a line for each frame, and its parameters at the end.
type Seen = (Vec<Vec<String>>, BTreeMap<String, String>);

/// A difference.
struct Difference {
    client: usize,
    text: String,
}

impl Round<'_> {
    /// Runs the round; fails with the smallest program found.
    pub fn play(&self) {
        let programs: Vec<_> =
            (0..CLIENTS).map(|client| Writer::program(self.seed, client, client < self.pinning)).collect();
        let Some(mut found) = self.compare(&programs) else { return };
        let mut smallest = programs;
        let mut attempts = 0;
        let mut chunk = smallest[found.client].len() / 2;
        while chunk > 0 && attempts < ATTEMPTS {
            let mut at = 0;
            while at < smallest[found.client].len() && attempts < ATTEMPTS {
                attempts += 1;
                let mut fewer = smallest.clone();
                let end = (at + chunk).min(fewer[found.client].len());
                fewer[found.client].drain(at..end);
                match self.compare(&fewer).filter(|other| other.client == found.client) {
                    Some(other) => (smallest, found) = (fewer, other),
                    None => at += chunk,
                }
            }
            chunk /= 2;
        }
        let steps: Vec<_> = smallest[found.client].iter().map(|step| step.words.clone()).collect();
        panic!(
            "MODEL_SEED={} client {}: {}\nits program, made smaller:\n  {}",
            self.seed,
            found.client,
            found.text,
            steps.join("\n  ")
        );
    }

    fn compare(&self, programs: &[Vec<Step>]) -> Option<Difference> {
        let alone = (self.make)();
        let shared = (self.make)();
        let want: Vec<_> = programs.iter().map(|program| follow(self.direct, &alone, program)).collect();
        let got: Vec<_> = std::thread::scope(|scope| {
            let follow = |program| follow(self.proxy, &shared, program);
            let running: Vec<_> = programs.iter().map(|program| scope.spawn(move || follow(program))).collect();
            running.into_iter().map(|client| client.join().expect("a client")).collect()
        });
        let pairs = want.iter().zip(&got).enumerate();
        pairs.into_iter().find_map(|(client, (want, got))| {
            let step = want.0.iter().zip(&got.0).position(|(want, got)| want != got);
            let text = match step {
                Some(step) => format!(
                    "step {step} ({})\nstraight: {:#?}\npgherd:   {:#?}",
                    programs[client][step].words, want.0[step], got.0[step]
                ),
                None if want.1 != got.1 => format!("parameters\nstraight: {:?}\npgherd:   {:?}", want.1, got.1),
                None => return None,
            };
            Some(Difference { client, text })
        })
    }
}

/// Runs a program and writes down what it is told.
fn follow(port: u16, database: &str, program: &[Step]) -> Seen {
    let parameters = [("user", "postgres"), ("database", database), ("application_name", "model")];
    let mut client = RawClient::try_login_with(port, &parameters).expect("a login");
    let mut reported = BTreeMap::new();
    for frame in &client.greeting {
        report(&mut reported, frame);
    }
    let mut seen = Vec::new();
    for step in program {
        let mut lines = Vec::new();
        if let Err(error) = client.send(&step.bytes) {
            lines.push(format!("cannot send: {error}"));
        }
        for _ in 0..step.readies {
            match client.until_ready() {
                Ok(frames) => {
                    for frame in frames {
                        report(&mut reported, &frame);
                        lines.extend(line(frame));
                    }
                }
                Err(error) => {
                    lines.push(format!("no answer: {}", error.kind()));
                    break;
                }
            }
        }
        seen.push(lines);
    }
    (seen, reported)
}

fn report(reported: &mut BTreeMap<String, String>, frame: &Frame) {
    if frame.tag != b'S' {
        return;
    }
    let text = String::from_utf8_lossy(&frame.body).into_owned();
    let mut parts = text.split('\0');
    if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        reported.insert(name.to_owned(), value.to_owned());
    }
}

/// A frame as it must be the same on both sides; none for what may come at another moment.
fn line(frame: Frame) -> Option<String> {
    let frame = frame.without_source();
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    Some(match frame.tag {
        b'S' => return None,
        // Process ids differ.
        b'A' => format!("A {}", text(&frame.body[4..])),
        b'T' => format!("T {}", columns(&frame.body)),
        b'E' | b'N' => {
            let field = |code| frame.field(code).unwrap_or_default();
            format!("{} {} {} {}", frame.tag as char, field(b'V'), field(b'C'), field(b'M'))
        }
        tag => format!("{} {}", tag as char, text(&frame.body)),
    })
}

/// Names, types and formats of a RowDescription, without the numbers of tables.
fn columns(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut all = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        let numbers = &rest[end + 1..end + 19];
        all.push(format!("{name}:{}", numbers[6..].escape_ascii()));
        rest = &rest[end + 19..];
    }
    all.join(", ")
}
