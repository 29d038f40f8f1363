//! A server that turns hostile on demand: a relay to a real PostgreSQL that misbehaves when it sees a mark.
//!
//! Logins, probes and ordinary statements are answered by the real server, so nothing of PostgreSQL is imitated.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

/// The text in a client's bytes that makes the server misbehave.
pub const MARK: &[u8] = b"hostile server, please";

/// What it does when it sees [`MARK`].
#[derive(Clone)]
pub enum Malice {
    /// These bytes instead of an answer, and then nothing, with the connection left open.
    Say(Vec<u8>),
    /// These bytes, and then the connection is closed.
    SayAndClose(Vec<u8>),
}

/// See the head of this file. Ends with its value.
pub struct FakeBackend {
    port: u16,
    over: Arc<AtomicBool>,
    provoked: Arc<AtomicU32>,
}

impl FakeBackend {
    /// Starts one in front of the server at `real`.
    pub fn start(real: u16, malice: Malice) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (over, provoked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (ends, count) = (Arc::clone(&over), Arc::clone(&provoked));
        thread::spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { return };
                let (malice, count) = (malice.clone(), Arc::clone(&count));
                thread::spawn(move || serve(&client, real, &malice, &count));
            }
        });
        Self { port, over, provoked }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often it misbehaved.
    pub fn provoked(&self) -> u32 {
        self.provoked.load(Ordering::SeqCst)
    }
}

impl Drop for FakeBackend {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listening thread, which then ends.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

/// One connection: relays both ways until the mark is seen.
fn serve(client: &TcpStream, real: u16, malice: &Malice, count: &AtomicU32) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, real)) else { return };
    let (Ok(mut from_server), Ok(mut to_client)) = (server.try_clone(), client.try_clone()) else { return };
    let answers = thread::spawn(move || {
        // Either side may close at any time.
        drop(std::io::copy(&mut from_server, &mut to_client));
        drop(to_client.shutdown(Shutdown::Write));
    });
    let mut buffer = vec![0; 65_536];
    let (mut from_client, mut to_server) = (client, &server);
    while let Ok(length @ 1..) = from_client.read(&mut buffer) {
        if buffer[..length].windows(MARK.len()).any(|window| window == MARK) {
            count.fetch_add(1, Ordering::SeqCst);
            let (Malice::Say(bytes) | Malice::SayAndClose(bytes)) = malice;
            drop(from_client.write_all(bytes));
            if matches!(malice, Malice::Say(_)) {
                // Until the other side has had enough.
                while matches!(from_client.read(&mut buffer), Ok(1..)) {}
            }
            break;
        }
        if to_server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(client.shutdown(Shutdown::Both));
    drop(server.shutdown(Shutdown::Both));
    drop(answers.join());
}
