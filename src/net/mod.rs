//! The edges: TCP, Unix and TLS byte streams, dialing and listening; programs of the operator's. Knows no PostgreSQL beyond the SSLRequest that
//! stands before TLS; must not import sessions, pools or anything of the control plane.

mod batch;
mod certificate;
mod dial;
mod inherited;
mod listen;
pub mod program;
mod ring;
mod sever;
mod stream;
pub mod tls;
mod tls_state;

pub use batch::{run as send_in_batches, send_all};
pub use dial::{DialError, DialFault, DialTarget, Endpoint, Known, connect_unix, dial};
pub use inherited::Inherited;
pub use listen::{Acceptor, Listener, bind_tcp, bind_tcp_group, bind_unix};
pub use sever::{sever, sever_here};
pub use stream::{DetachedStream, Keepalive, PeerAddr, SocketOptions, Stream};
pub use tls::{ClientTls, ServerTls, SslMode, TlsError};
