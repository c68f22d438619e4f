//! The monitoring endpoint: its start and end, and which path is answered by which file.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use halyard_runtime::net;
use halyard_runtime::time::Timestamp;
use http_body_util::Full;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;

use super::http::HttpServer;
use super::process::Process;
use super::query::{BadQuery, Query};
use super::text::Time;
use super::{accountz, connz, healthz, index, jsz, links, queues, subsz, varz};
use crate::config::Config;
use crate::conn::Front;
use crate::jetstream::JetStream;

/// A running monitoring endpoint.
#[derive(Debug)]
pub struct Handle(HttpServer);

/// Why there is no monitoring endpoint.
#[derive(Debug, thiserror::Error)]
#[error("Can't start monitoring: can't listen to the monitor port {host}:{port}: {error}")]
pub struct StartError {
    host: String,
    port: u16,
    error: io::Error,
}

/// JetStream once it is open: the endpoint answers before, while the store is being read.
pub type Streams = Arc<OnceLock<Arc<JetStream>>>;

/// What the endpoints read.
pub(super) struct State {
    pub(super) front: Arc<Front>,
    pub(super) streams: Streams,
    /// Where the endpoint itself listens.
    pub(super) address: SocketAddr,
    pub(super) process: Mutex<Process>,
    /// How often each endpoint was asked.
    pub(super) requests: Mutex<BTreeMap<&'static str, u64>>,
}

impl State {
    /// JetStream, if it is served and open.
    pub(super) fn jetstream(&self) -> Option<&Arc<JetStream>> {
        self.streams.get()
    }
}

/// An answer before it is put into HTTP.
pub(super) enum Answer {
    /// JSON, indented for people.
    Json(Vec<u8>),
    /// One line of JSON with a status.
    Status(StatusCode, Vec<u8>),
    /// A page for a browser.
    Html(String),
    /// There is nothing of that kind here.
    Missing(&'static str),
    /// The options of the request are wrong.
    Bad(String),
}

/// Starts the endpoint that `config` asks for, if it asks for one.
///
/// # Errors
/// [`StartError`]: the address cannot be had.
pub async fn start(
    config: &Config,
    front: Arc<Front>,
    streams: Streams,
) -> Result<Option<Handle>, StartError> {
    let Some(monitor) = &config.monitor else {
        return Ok(None);
    };
    let host = monitor.host.clone().unwrap_or_else(|| config.host.clone());
    let failed = |error| StartError {
        host: host.clone(),
        port: monitor.port,
        error,
    };
    let listener = net::listen(&host, monitor.port).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let state = State {
        front,
        streams,
        address,
        process: Mutex::new(Process::new()),
        requests: Mutex::default(),
    };
    let base = config.monitor_base_path.clone();
    let server = HttpServer::start(listener, move |request| respond(&state, &base, request));
    let server = server.map_err(failed)?;
    tracing::info!("Starting http monitor on {address}");
    Ok(Some(Handle(server)))
}

impl Handle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Takes no more connections.
    pub fn shutdown(&self) {
        self.0.stop();
    }
}

impl State {
    /// What nearly every answer begins with.
    pub(super) fn server_id(&self) -> String {
        self.front.info().server_id
    }

    pub(super) fn now() -> Time {
        Time(Timestamp::now())
    }
}

/// `value` as indented JSON.
pub(super) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(text) => Answer::Json(text),
        Err(error) => Answer::Bad(error.to_string()),
    }
}

fn respond(state: &State, base: &str, request: &Request<()>) -> Response<Full<Bytes>> {
    let path = request.uri().path().strip_prefix(base);
    let path = path.map(|path| if path.is_empty() { "/" } else { path });
    let query = Query::parse(request.uri().query().unwrap_or(""));
    match path.and_then(|path| answer(state, path, &query)) {
        Some(Ok(answer)) => response(answer),
        Some(Err(BadQuery(text))) => response(Answer::Bad(text)),
        None => plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

/// The answer of an endpoint; `None` if there is none of that path.
fn answer(state: &State, path: &str, query: &Query<'_>) -> Option<Result<Answer, BadQuery>> {
    let name = ENDPOINTS.iter().find(|name| **name == path)?;
    *state.requests.lock().entry(*name).or_insert(0) += 1;
    Some(match path {
        "/" => Ok(index::page()),
        "/varz" => Ok(varz::answer(state)),
        "/connz" => connz::answer(state, query),
        "/subsz" | "/subscriptionsz" => subsz::answer(state, query),
        "/jsz" => jsz::answer(state, query),
        "/healthz" => healthz::answer(state, query),
        "/accountz" => accountz::accountz(state, query),
        "/accstatz" => accountz::accstatz(state, query),
        "/routez" => Ok(links::routez(state)),
        "/gatewayz" => Ok(links::gatewayz(state)),
        "/leafz" => Ok(links::leafz(state)),
        "/ipqueuesz" => Ok(queues::answer(state)),
        "/raftz" => Ok(Answer::Missing("No Raft nodes registered")),
        _ => return None,
    })
}

const ENDPOINTS: [&str; 14] = [
    "/",
    "/varz",
    "/connz",
    "/subsz",
    "/subscriptionsz",
    "/jsz",
    "/healthz",
    "/accountz",
    "/accstatz",
    "/routez",
    "/gatewayz",
    "/leafz",
    "/ipqueuesz",
    "/raftz",
];

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let (status, kind, body) = match answer {
        Answer::Json(body) => (StatusCode::OK, "application/json", body),
        Answer::Status(status, body) => (status, "application/json", body),
        Answer::Html(text) => (
            StatusCode::OK,
            "text/html; charset=utf-8",
            text.into_bytes(),
        ),
        Answer::Missing(text) => return plain(StatusCode::NOT_FOUND, text.to_owned()),
        Answer::Bad(text) => return plain(StatusCode::BAD_REQUEST, text),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Dashboards in a browser read it from pages of other origins.
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
