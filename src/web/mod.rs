//! HTTP for machines: metrics, health, and the paths by which load balancers ask Patroni. Runs on the control thread, off unless
//! configured; knows who may be asked, and reads what is published. Must not change anything, nor wait for a data thread.

mod answer;
mod metrics;
mod patroni;
mod places;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::metrics::Format;
use crate::session::Global;
use crate::support::clock::{Duration, Instant, now};

use answer::Reply;
use places::Places;

/// How long a client may take to send the head of a request, the pause between two of them included.
const HEAD: Duration = Duration::from_secs(10);
/// Bytes of a request that are read ahead.
const AHEAD: usize = 16 * 1024;
/// Longest life of a connection, so that one which does not read its answers gives its place back. Who scrapes connects again.
const LIFE: Duration = Duration::from_secs(60);
/// For so long a page is good for the next who asks for it: ten a second of each format are made at the most.
const FRESH: Duration = Duration::from_millis(100);

/// What can be told.
pub struct Source {
    /// What the threads share.
    pub global: Arc<Global>,
    /// Clients that are connected, and how many may be.
    pub clients: Box<dyn Fn() -> (usize, usize) + Send + Sync>,
    /// pgherd is about to end.
    pub stopping: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The server.
pub struct Web {
    listeners: Vec<TcpListener>,
    source: Source,
}

/// The newest page of each format.
type Kept = RefCell<[Option<(Instant, Bytes)>; 2]>;

impl Web {
    /// Listens at `address`.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub fn bind(address: SocketAddr, source: Source) -> std::io::Result<Self> {
        Self::on(vec![TcpListener::bind(address)?], source)
    }

    /// Listens at sockets that are open already.
    ///
    /// # Errors
    /// One cannot be used.
    pub fn on(listeners: Vec<TcpListener>, source: Source) -> std::io::Result<Self> {
        listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
        Ok(Self { listeners, source })
    }

    /// Serves until it is dropped. Within a `LocalSet`.
    pub async fn run(self) {
        let desk = Rc::new(Desk { source: self.source, kept: Kept::default(), places: Rc::default() });
        let serving: Vec<_> = self.listeners.into_iter().map(|listener| accept(listener, desk.clone())).collect();
        let serving: Vec<_> = serving.into_iter().map(tokio::task::spawn_local).collect();
        for task in serving {
            let _ = task.await;
        }
    }
}

/// What the connections share.
struct Desk {
    source: Source,
    kept: Kept,
    places: Rc<Places>,
}

async fn accept(listener: TcpListener, desk: Rc<Desk>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(event = "web_failed", %error, "no metrics: the socket cannot be used"),
    };
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(FRESH).await;
            continue;
        };
        // Closed at once.
        let Some(place) = desk.places.take(peer.ip()) else { continue };
        let desk = desk.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let response = respond(&desk.source, &desk.kept, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(AHEAD).half_close(true);
            // However it ends: the client has its answer, or is gone.
            let _ = tokio::time::timeout(LIFE, builder.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
    }
}

fn respond(source: &Source, kept: &Kept, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let reply = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS if path == "/metrics" => metrics_page(source, kept, request),
        Method::GET | Method::HEAD | Method::OPTIONS => {
            let shown = answer::Shown {
                view: &source.global.cluster.view(),
                settings: &source.global.settings.load(),
                stopping: (source.stopping)(),
            };
            answer::to(path, query, &shown)
        }
        _ => Reply::text(405, "only GET, HEAD and OPTIONS\n"),
    };
    // HEAD is answered by hyper without the body; its length stays. OPTIONS wants the status alone, as in Patroni.
    let body = if request.method() == Method::OPTIONS { Bytes::new() } else { reply.body };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(reply.kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    if reply.status == 405 {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD, OPTIONS"));
    }
    response
}

fn metrics_page(source: &Source, kept: &Kept, request: &Request<Incoming>) -> Reply {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format =
        if accepts.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Prometheus };
    let place = usize::from(format == Format::OpenMetrics);
    let fresh = kept.borrow()[place].as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, page)| page.clone());
    let body = fresh.unwrap_or_else(|| {
        let page = Bytes::from(metrics::page(source, format));
        kept.borrow_mut()[place] = Some((now(), page.clone()));
        page
    });
    Reply { status: 200, kind: format.content_type(), body }
}
