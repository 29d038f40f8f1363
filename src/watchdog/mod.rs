//! Partner proxies: who leads, who holds the address, and what all of them agree on. Owner: the control thread.
//!
//! [`engine`] decides and nothing else: `step(event, now) -> actions`. A runner can be written on top of it without changing it:
//!
//! | the engine says | the runner does | and tells |
//! |---|---|---|
//! | `Send(to, message)` | [`message`] → [`seal`] → TCP link, or UDP on every heartbeat link; may be lost | at the other side `Heard` |
//! | `Persist(number, kept)` | writes and fsyncs, in order | `Persisted(number)`; nothing if it failed: no vote leaves |
//! | `Lock(node)` | in a session of its own with `idle_session_timeout`: `pg_try_advisory_lock` if not held, else any statement | `Lock`: when it was sent, and what came |
//! | `Unlock(node)` | gives the lock back, or closes that session | – |
//! | `Ping` | asks the trusted servers | `Trusted`: when it was sent, whether any answered |
//! | `Address(Take/Renew/Release)` | one after the other, in their order: ARP probe, netlink on the TUN device or interface; checks `until` before *and after*, late → deletes | `Address`: taken, occupied, released |
//! | `Address(Announce)` | gratuitous ARP in both forms, unsolicited NA | – |
//! | `Standing(standing)` | lets the data plane write while `writes` lasts; ends sessions on a lost address (HA H22) | – |
//! | `Share(shared)` | gives the agreed epoch and journal to `failover` | – |
//! | `Reply(ticket, …)` | to who asked: consent, record, hand-over | – |
//! | `Quarantine(nodes)` | does not use these nodes here, whatever others see | – |
//! | `Note(…)` | one line in the event log | – |
//! | `Left` | the process may end | – |
//!
//! `now` must be of a clock that goes on while the machine sleeps (CLOCK_BOOTTIME) and may be wrong by 2 %. `Gone` may be told only if a peer's
//! process has certainly ended and its address with it: the authenticated link ended in order (FIN, no reset), a connection
//! tried after that was refused, and the address lives on a device of the process. What a runner cannot prove it leaves out: then the
//! lease runs out. `incarnation` is a random number of the process, the same as the session of its [`seal`].

pub mod address;
mod door;
pub mod engine;
pub mod links;
pub mod message;
pub mod runner;
pub mod seal;
pub mod timings;
pub mod trusted;
pub mod word;
