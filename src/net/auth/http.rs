//! Callouts: another server decides about a client, over HTTP.
//!
//! The request is a POST with a JSON object that has the keys `username`, `password`, `clientid`
//! and `address`. What the client has not sent is `null`. The status of the response decides:
//!
//! - 204: accepted.
//! - 200: accepted if the response has no body, or one of the type `application/json`. Its object
//!   may have `username`, which replaces the user name, and `publish` and `subscribe`, lists of
//!   topic filters that are the client's rights. Any other body is a failure: it may be meant as a
//!   refusal.
//! - 401, 403: refused.
//! - 404: unknown. The next method is asked.
//! - Any other, or none in time: failure. See [`OnError`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::credentials::Credentials;
use super::method_result::{MethodResult, accepted, credential_of, rules_of};
use super::problem::Problem;
use super::secret::read_secret;
use crate::broker::Identity;
use crate::clock::{self, Stopwatch};
use crate::net::log_limit::LogLimit;
use crate::net::tls::{authorities, provider};

/// Bytes of the largest response. A longer one is a failure.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Log lines per minute for failures.
const FAILURE_LINES_PER_MINUTE: u64 = 10;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// The settings of a callout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The URL, with `http` or `https`.
    pub url: Uri,
    /// The authorities for the server's certificate. Without it, those the system trusts.
    pub cafile: Option<PathBuf>,
    /// The value of the header `Authorization`.
    pub authorization: Option<Secret>,
    /// How long a response may take, with the wait for a permit.
    pub timeout: Duration,
    /// Requests at once. Reached: further ones wait.
    pub max_requests: usize,
    /// How long a decision is cached. Zero for not at all.
    pub cache_time: Duration,
    /// Cached decisions. Reached: any other one is removed.
    pub cache_size: usize,
    /// What happens when there is no response.
    pub on_error: OnError,
}

/// Where a secret is. It is never in the configuration itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// What happens when there is no response. No client is accepted without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The client is refused (0x88, MQTT 3: server unavailable). It may try again.
    #[default]
    Deny,
    /// The next method is asked, as if the client were unknown.
    Next,
}

/// A callout that is ready to use.
pub struct Http {
    settings: Arc<HttpSettings>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    authorization: Option<HeaderValue>,
    permits: Arc<Semaphore>,
    cache: Mutex<Cache>,
    /// Limits the log lines: when the server is down, each login fails.
    failure_log: LogLimit,
}

/// The right to send one request. The time limit runs from the wait for it.
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
    asked: Stopwatch,
}

/// Decisions by request. Requests are stored as keyed hashes, because they contain passwords.
struct Cache {
    key: hmac::Key,
    answers: HashMap<[u8; 32], (Decision, u64)>,
}

/// A decision that can be cached.
#[derive(Clone)]
enum Decision {
    Accepted(Identity),
    Refused,
    Unknown,
}

impl Http {
    /// Reads the secret and the authorities. Sends no request.
    ///
    /// # Errors
    /// A file cannot be used, or the environment variable is missing.
    pub fn load(settings: &Arc<HttpSettings>) -> Result<Http, Vec<Problem>> {
        let authorization = settings.authorization.as_ref().map(read_authorization);
        let authorization = authorization.transpose().map_err(|problem| vec![problem])?;
        let tls = tls(settings).map_err(|problem| vec![problem])?;
        let cache =
            Cache::new().map_err(|what| vec![Problem::new(Path::new("cache"), None, what)])?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.max_requests)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Http {
            client,
            authorization,
            permits: Arc::new(Semaphore::new(settings.max_requests)),
            cache: Mutex::new(cache),
            failure_log: LogLimit::new(FAILURE_LINES_PER_MINUTE),
            settings: Arc::clone(settings),
        })
    }

    /// Returns the [`Identity::credential`] of clients that this callout accepts.
    pub(super) fn credential(&self) -> u64 {
        credential_of(&self.settings.url)
    }

    /// Waits for a permit, in the order of the calls.
    ///
    /// # Errors
    /// The result for the client if there is no permit in time.
    pub(super) async fn acquire(&self, uptime: u64) -> Result<Permit, MethodResult> {
        let asked = Stopwatch::start();
        let permit = Arc::clone(&self.permits).acquire_owned();
        match timeout(self.settings.timeout, permit).await {
            Ok(Ok(permit)) => Ok(Permit {
                _permit: permit,
                asked,
            }),
            _ => Err(self.failed("no turn in time: see max_requests", uptime)),
        }
    }

    /// Asks about a client. `uptime` is in milliseconds.
    pub(super) async fn ask(
        &self,
        credentials: &Credentials,
        uptime: u64,
        permit: &Permit,
    ) -> MethodResult {
        let password = credentials.password.as_deref().map(std::str::from_utf8);
        let Ok(password) = password.transpose() else {
            return MethodResult::Refused(
                "its password is not UTF-8 text, which a callout can be asked about",
            );
        };
        let remembered = !self.settings.cache_time.is_zero();
        let key = remembered.then(|| self.cache().key_of(credentials));
        if let Some(decision) = key.and_then(|key| self.cache().get(&key, uptime)) {
            return decision.into();
        }
        let left = self.settings.timeout.saturating_sub(permit.asked.elapsed());
        let outcome = timeout(left, self.request(credentials, password)).await;
        match outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(decision) => {
                if let Some(key) = key {
                    let time = u64::try_from(self.settings.cache_time.as_millis());
                    let until = uptime.saturating_add(time.unwrap_or(u64::MAX));
                    let decision = decision.clone();
                    let size = self.settings.cache_size;
                    self.cache().put(key, decision, until, uptime, size);
                }
                decision.into()
            }
            Err(error) => self.failed(&error, uptime),
        }
    }

    /// Logs that there is no response. Returns the result that follows from [`OnError`].
    fn failed(&self, error: &str, uptime: u64) -> MethodResult {
        if let Some(unlogged) = self.failure_log.admit(uptime) {
            let url = &self.settings.url;
            tracing::error!(%url, error, unlogged, "authentication callout failed");
        }
        match self.settings.on_error {
            OnError::Deny => MethodResult::Failed("the authentication callout failed"),
            OnError::Next => MethodResult::Unknown,
        }
    }

    async fn request(
        &self,
        credentials: &Credentials,
        password: Option<&str>,
    ) -> Result<Decision, String> {
        let request = self.build(credentials, password)?;
        let answered = self.client.request(request).await;
        let response = answered.map_err(|error| with_cause(&error))?;
        let body = match response.status() {
            StatusCode::OK => read_body(response).await?,
            StatusCode::NO_CONTENT => ResponseBody::default(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(Decision::Refused),
            StatusCode::NOT_FOUND => return Ok(Decision::Unknown),
            other => return Err(format!("the answer is {other}")),
        };
        let user = body.username.as_deref().or(credentials.username.as_deref());
        let user = user.ok_or("neither the client nor the answer has a user name")?;
        let rules = rules_of(body.publish, body.subscribe)?;
        let identity = accepted(user, rules, self.credential())?;
        Ok(Decision::Accepted(identity))
    }

    fn build(
        &self,
        credentials: &Credentials,
        password: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let body = json!({
            "username": credentials.username.as_deref(),
            "password": password,
            "clientid": &*credentials.client_id,
            "address": credentials.address.map(|address| address.to_string()),
        });
        let mut request =
            Request::post(&self.settings.url).header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = Full::new(Bytes::from(body.to_string()));
        request.body(body).map_err(|error| error.to_string())
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn new() -> Result<Cache, &'static str> {
        let mut secret = [0; 32];
        clock::fill_random(&mut secret)?;
        Ok(Cache {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            answers: HashMap::new(),
        })
    }

    /// Hashes the content of a request.
    fn key_of(&self, credentials: &Credentials) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        let address = credentials.address.map(|address| address.to_string());
        for part in [
            credentials.username.as_deref().map(str::as_bytes),
            credentials.password.as_deref(),
            Some(credentials.client_id.as_bytes()),
            address.as_deref().map(str::as_bytes),
        ] {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(part.unwrap_or_default());
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    fn get(&self, key: &[u8; 32], uptime: u64) -> Option<Decision> {
        let (decision, until) = self.answers.get(key)?;
        (uptime < *until).then(|| decision.clone())
    }

    fn put(&mut self, key: [u8; 32], decision: Decision, until: u64, uptime: u64, size: usize) {
        if self.answers.len() >= size {
            self.answers.retain(|_, (_, until)| uptime < *until);
        }
        if self.answers.len() >= size
            && let Some(any) = self.answers.keys().next().copied()
        {
            self.answers.remove(&any);
        }
        self.answers.insert(key, (decision, until));
    }
}

impl From<Decision> for MethodResult {
    fn from(decision: Decision) -> MethodResult {
        match decision {
            Decision::Accepted(identity) => MethodResult::Accepted(identity),
            Decision::Refused => MethodResult::Refused("the authentication callout refuses it"),
            Decision::Unknown => MethodResult::Unknown,
        }
    }
}

/// The body of a response with status 200.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseBody {
    username: Option<String>,
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
}

/// Reads the body of a response. Without one, returns an empty object.
async fn read_body(response: Response<Incoming>) -> Result<ResponseBody, String> {
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_owned();
    let is_json = essence.eq_ignore_ascii_case("application/json");
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
    let body = body.await.map_err(|error| error.to_string())?.to_bytes();
    if body.is_empty() {
        return Ok(ResponseBody::default());
    }
    if !is_json {
        return Err(format!(
            "the answer is 200 with a body of type {essence:?}; expected none, or a JSON object of type application/json"
        ));
    }
    serde_json::from_slice(&body).map_err(|error| {
        format!(
            "the answer is 200 with a body that is not understood ({error}); expected a JSON object with username, publish and subscribe, or \
             some of them"
        )
    })
}

fn read_authorization(secret: &Secret) -> Result<HeaderValue, Problem> {
    let (name, bytes) = match secret {
        Secret::File(file) => (file.clone(), read_secret(file)),
        Secret::Variable(name) => {
            let value = std::env::var(name).map(String::into_bytes);
            let missing = |_| "this environment variable is not there, or not text".to_owned();
            (PathBuf::from(name), value.map_err(missing))
        }
    };
    let value = bytes.and_then(|bytes| {
        let value = HeaderValue::from_bytes(&bytes);
        value.map_err(|_| {
            "cannot stand in a header; expected one line such as Bearer TOKEN".to_owned()
        })
    });
    let mut value = value.map_err(|what| Problem::new(&name, None, what))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(settings: &HttpSettings) -> Result<ClientConfig, Problem> {
    let roots = match settings.url.scheme_str() {
        Some("https") => authorities(settings.cafile.as_deref())?,
        _ => rustls::RootCertStore::empty(),
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Problem::new(Path::new("TLS"), None, error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Returns an error with its causes, such as `client error (Connect): connection refused`.
fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Does not show the secret.
impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Http").field(&self.settings.url).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Permission;
    use axum::Router;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use serde_json::Value;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that decides by user name and counts its requests.
    async fn server() -> (String, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let routes = Router::new()
            .route("/login", post(login))
            .with_state(Arc::clone(&asked));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/login", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (url, asked)
    }

    async fn login(
        State(asked): State<Arc<AtomicUsize>>,
        headers: HeaderMap,
        body: String,
    ) -> axum::response::Response {
        asked.fetch_add(1, Ordering::Relaxed);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(headers[AUTHORIZATION], "Bearer of news");
        assert_eq!(body["clientid"], "c");
        assert_eq!(body["address"], "192.0.2.1");
        let json =
            |text: &'static str| ([(CONTENT_TYPE, "application/json")], text).into_response();
        match (body["username"].as_str(), body["password"].as_str()) {
            (Some("ann"), Some("secret")) => StatusCode::NO_CONTENT.into_response(),
            (Some("ann"), _) => StatusCode::FORBIDDEN.into_response(),
            (Some("empty"), _) => StatusCode::OK.into_response(),
            (Some("odd"), _) => {
                let kind = [(CONTENT_TYPE, "Application/JSON; charset=utf-8")];
                (StatusCode::OK, kind, r#"{"username":"kim"}"#).into_response()
            }
            (Some("none"), _) => {
                let kind = [(CONTENT_TYPE, "application/json")];
                (StatusCode::NO_CONTENT, kind).into_response()
            }
            (Some("deny"), _) => json(r#"{"result":"deny"}"#),
            (Some("list"), _) => json(r#"["username"]"#),
            (Some("plain"), _) => "denied".into_response(),
            (Some("elsewhere"), _) => {
                ([(CONTENT_TYPE, "text/json")], r#"{"publish":[]}"#).into_response()
            }
            (Some("named"), _) => json(r#"{"username":"bob","publish":["a"],"subscribe":["b"]}"#),
            (Some("broken"), _) => json("{"),
            (Some("moved"), _) => (StatusCode::FOUND, [("location", "/login")]).into_response(),
            (Some("slow"), _) => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                StatusCode::OK.into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn http(url: &str, change: impl FnOnce(&mut HttpSettings)) -> Http {
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), "Bearer of news\n").expect("written");
        let mut settings = HttpSettings {
            url: url.parse().expect("a URL"),
            cafile: None,
            authorization: Some(Secret::File(secret.path().to_owned())),
            timeout: Duration::from_secs(30),
            max_requests: 4,
            cache_time: Duration::ZERO,
            cache_size: 2,
            on_error: OnError::Deny,
        };
        change(&mut settings);
        Http::load(&Arc::new(settings)).expect("good settings")
    }

    fn credentials(user: &str, password: &[u8]) -> Credentials {
        Credentials {
            username: Some(user.into()),
            password: Some(password.into()),
            client_id: "c".into(),
            address: Some([192, 0, 2, 1].into()),
        }
    }

    async fn ask(http: &Http, credentials: &Credentials, uptime: u64) -> MethodResult {
        match http.acquire(uptime).await {
            Ok(permit) => http.ask(credentials, uptime, &permit).await,
            Err(answer) => answer,
        }
    }

    fn user(answer: &MethodResult) -> Option<&str> {
        match answer {
            MethodResult::Accepted(identity) => identity.user.as_deref(),
            _ => None,
        }
    }

    #[tokio::test]
    async fn the_status_is_the_answer() {
        let (url, _) = server().await;
        let http = http(&url, |_| {});
        let ask =
            async |user: &str, password: &[u8]| ask(&http, &credentials(user, password), 0).await;
        assert_eq!(user(&ask("ann", b"secret").await), Some("ann"));
        assert_eq!(user(&ask("empty", b"").await), Some("empty"));
        assert_eq!(user(&ask("none", b"").await), Some("none"));
        assert_eq!(user(&ask("odd", b"").await), Some("kim"));
        assert!(matches!(
            ask("ann", b"wrong").await,
            MethodResult::Refused(_)
        ));
        assert!(matches!(
            ask("ann", b"\xff").await,
            MethodResult::Refused(_)
        ));
        assert!(matches!(ask("eve", b"").await, MethodResult::Unknown));
        let MethodResult::Accepted(named) = ask("named", b"").await else {
            panic!("not accepted");
        };
        let mut rules = crate::broker::Rules::default();
        rules.add_topic(Permission::Write, "a").expect("a filter");
        rules.add_topic(Permission::Read, "b").expect("a filter");
        assert_eq!(named.user.as_deref(), Some("bob"));
        assert_eq!(named.rules.as_deref(), Some(&rules));
        for nonsense in ["broken", "moved", "deny", "list", "plain", "elsewhere"] {
            assert!(
                matches!(ask(nonsense, b"").await, MethodResult::Failed(_)),
                "{nonsense}"
            );
        }
    }

    #[tokio::test]
    async fn without_an_answer_nobody_comes_in() {
        let (url, _) = server().await;
        let slow = http(&url, |it| it.timeout = Duration::from_millis(50));
        let answer = ask(&slow, &credentials("slow", b""), 0).await;
        assert!(matches!(answer, MethodResult::Failed(_)));
        let nobody = "http://127.0.0.1:9/login";
        let answer = ask(&http(nobody, |_| {}), &credentials("ann", b"secret"), 0).await;
        assert!(matches!(answer, MethodResult::Failed(_)));
        let next = http(nobody, |it| it.on_error = OnError::Next);
        let answer = ask(&next, &credentials("ann", b"secret"), 0).await;
        assert!(matches!(answer, MethodResult::Unknown));
    }

    #[tokio::test]
    async fn a_callout_that_is_gone_is_logged_so_many_times_a_minute() {
        let http = http("http://127.0.0.1:1/", |_| ());
        for _ in 0..FAILURE_LINES_PER_MINUTE {
            let answer = ask(&http, &credentials("ann", b"secret"), 5).await;
            assert!(matches!(answer, MethodResult::Failed(_)), "{answer:?}");
        }
        assert_eq!(http.failure_log.admit(5), None);
        ask(&http, &credentials("ann", b"secret"), 6).await;
        assert_eq!(http.failure_log.admit(60_005), Some(2));
    }

    #[tokio::test]
    async fn requests_beyond_the_limit_wait_and_the_time_for_an_answer_goes_on() {
        let (url, asked) = server().await;
        let http = http(&url, |it| {
            it.timeout = Duration::from_millis(200);
            it.max_requests = 1;
        });
        let ann = credentials("ann", b"secret");
        let permit = http.acquire(0).await.expect("a permit");
        let answer = ask(&http, &ann, 0).await;
        assert!(matches!(answer, MethodResult::Failed(_)), "{answer:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        drop(permit);
        ask(&http, &ann, 0).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn answers_are_remembered_for_a_while_and_failures_are_not() {
        let (url, asked) = server().await;
        let http = http(&url, |it| it.cache_time = Duration::from_secs(10));
        let (good, bad) = (credentials("ann", b"secret"), credentials("ann", b"wrong"));
        for uptime in [0, 9_999] {
            assert_eq!(user(&ask(&http, &good, uptime).await), Some("ann"));
            assert!(matches!(
                ask(&http, &bad, uptime).await,
                MethodResult::Refused(_)
            ));
            assert_eq!(asked.load(Ordering::Relaxed), 2);
        }
        assert_eq!(user(&ask(&http, &good, 10_000).await), Some("ann"));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        // Failures are not cached, and at most two decisions are.
        for _ in 0..2 {
            ask(&http, &credentials("broken", b""), 10_000).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        for name in ["p1", "p2", "p3"] {
            ask(&http, &credentials(name, b""), 10_000).await;
        }
        assert_eq!(http.cache().answers.len(), 2);
        // The client's address is part of the request.
        let mut elsewhere = credentials("ann", b"secret");
        elsewhere.address = None;
        let before = http.cache().key_of(&good);
        assert_ne!(http.cache().key_of(&elsewhere), before);
    }

    /// A TLS server that accepts every client. Returns its self-signed certificate as a file.
    async fn tls_server() -> (String, tempfile::NamedTempFile) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let made = made.expect("a certificate");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), made.cert.pem()).expect("written");
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions there are")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("they belong together");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut bytes = [0; 4096];
                let _ = stream.read(&mut bytes).await;
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        (format!("https://localhost:{port}/login"), file)
    }

    #[tokio::test]
    async fn over_https_only_a_server_of_the_right_authority_is_believed() {
        let (url, cafile) = tls_server().await;
        let good = http(&url, |it| it.cafile = Some(cafile.path().to_owned()));
        let answer = ask(&good, &credentials("ann", b"secret"), 0).await;
        assert_eq!(user(&answer), Some("ann"), "{answer:?}");
        let (_, other) = tls_server().await;
        let bad = http(&url, |it| it.cafile = Some(other.path().to_owned()));
        let answer = ask(&bad, &credentials("ann", b"secret"), 0).await;
        assert!(matches!(answer, MethodResult::Failed(_)), "{answer:?}");
    }

    #[test]
    fn a_missing_secret_is_an_error() {
        for (secret, what) in [
            (
                Secret::File("/no/such/file".into()),
                "/no/such/file: cannot be read",
            ),
            (
                Secret::Variable("NO_SUCH_VARIABLE".to_owned()),
                "NO_SUCH_VARIABLE: this environment variable is not there",
            ),
        ] {
            let problem = read_authorization(&secret).expect_err("missing");
            assert!(problem.to_string().starts_with(what), "{problem}");
        }
    }
}
