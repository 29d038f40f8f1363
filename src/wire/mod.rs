//! The PostgreSQL protocol as bytes and types: frames, startup, checked readers and writers. Layer 0: no I/O, no
//! sessions, no servers. Every length is checked before it is believed; nothing here allocates from a length it was told.

pub mod answer;
mod error;
mod frame;
mod read;
mod startup;
pub mod write;

pub use error::{ErrorFields, sqlstate};
pub use frame::{Fault, Header, Side, back, front, peek, peek_unlimited};
pub use read::Reader;
pub use startup::{CancelKey, MAX_STARTUP, PROTOCOL_3_0, PROTOCOL_3_2, Startup, parse_startup};

/// State of a server's transaction, as ReadyForQuery tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TxStatus {
    /// `I`: no transaction block.
    Idle,
    /// `T`: in a block.
    InBlock,
    /// `E`: in a block that failed.
    Failed,
}

impl TxStatus {
    /// From ReadyForQuery's byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InBlock),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// ReadyForQuery's byte.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InBlock => b'T',
            Self::Failed => b'E',
        }
    }
}
