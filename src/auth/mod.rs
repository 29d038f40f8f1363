//! Logging in without sockets: SCRAM-SHA-256 of both sides, md5, clear text, who may come in by which method (HBA), and
//! the file of users. Layer 1: no tokio and no sockets; files are read only by `file::read` and `Hba::load`. Must not log:
//! errors carry what the operator may know apart from what the client may hear.

mod base64;
pub mod client;
pub mod file;
pub mod hba;
mod keys;
mod md5;
pub mod scram;
mod secret;
pub mod server;
mod users;

pub use file::FileError;
pub use keys::{Derivation, KeyCache};
pub use md5::{Md5Hash, md5_answer, md5_digits};
pub use secret::{Credentials, Password, Stored};
pub use users::Users;
