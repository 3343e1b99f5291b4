//! Who may come in: what the user name and the password of a CONNECT prove.
//!
//! A listener has a chain of [`Method`]s, asked in order; the first that gives an answer decides:
//!
//! | method | accepts | refuses | does not know the client, so the next one is asked |
//! |---|---|---|---|
//! | [`password_file`] | the password is right | it is wrong, or missing | there is no such user |
//! | [`jwt`] | the password is a good token | it is a token, and not a good one | the password is no token |
//! | [`http`] | the one who is asked accepts it | refuses it, or gives no answer | does not know it |
//!
//! If nobody knows the client, it is refused. A client without user name and password is not asked about: it is anonymous, and whether it may come in
//! is decided by the broker ([`crate::broker::Access::allow_anonymous`]), as for a client whose certificate is its user name.
//!
//! All this happens between the decoding of CONNECT and [`crate::broker::Broker::connect`]; the broker hears what was proved.

pub mod hash;
pub mod http;
pub mod jwt;
pub mod password_file;
mod threads;
mod throttle;

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use throttle::ThrottleSettings;

use super::tls::TlsError;
use crate::broker::{Arrival, Identity, Permission, Rules};
use crate::clock::{self, Clock};
use crate::wire::packet::Connect;
use crate::wire::{Fault, ReasonCode};
use http::{Http, HttpSettings, Secret};
use jwt::{Jwt, JwtSettings};
use password_file::PasswordFile;
use threads::{HashThreads, Turn};
use throttle::{Reached, Throttle};

/// What a client hears whose user name or password is wrong; which of both, only the log says.
const WRONG: Fault = Fault::new(
    ReasonCode::BadUserNameOrPassword,
    "the user name or the password is wrong",
);
const USER_THROTTLED: Fault = Fault::new(
    ReasonCode::ConnectionRateExceeded,
    "too many logins of this user from this address have failed: try again later",
);
const ADDRESS_THROTTLED: Fault = Fault::new(
    ReasonCode::ConnectionRateExceeded,
    "too many logins from this address have failed: try again later",
);

/// Bytes of a file with a key or a secret that are read.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A way to prove who one is, and where what it needs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// A password file.
    PasswordFile(PathBuf),
    /// A signed token as the password.
    Jwt(Arc<[JwtSettings]>),
    /// Somebody else, over HTTP.
    Http(Arc<HttpSettings>),
}

/// What a CONNECT is judged by.
#[derive(Clone)]
pub struct Credentials {
    /// The user name.
    pub username: Option<Box<str>>,
    /// The password.
    pub password: Option<Box<[u8]>>,
    /// The client identifier; may be empty.
    pub client_id: Box<str>,
    /// Where the client connects from; `None` on a Unix socket.
    pub address: Option<IpAddr>,
}

/// Something wrong with a file that authentication needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    file: PathBuf,
    line: Option<usize>,
    what: String,
}

/// All that was read to authenticate clients: what each method needs.
#[derive(Debug, Default)]
pub struct Authenticator {
    loaded: Vec<(Method, Loaded)>,
}

/// A method with what it needs.
#[derive(Clone, Debug)]
enum Loaded {
    PasswordFile(Arc<PasswordFile>),
    Jwt(Arc<Jwt>),
    Http(Arc<Http>),
}

/// What a method says.
#[derive(Debug)]
enum Answer {
    Accepted(Identity),
    /// With the reason, for the log.
    Refused(&'static str),
    /// It could not be found out, which has nothing to do with the client.
    Failed(&'static str),
    Unknown,
}

/// What credentials were found to prove, and by what was read of the configuration then. `Default` is a client that has none.
#[derive(Clone, Debug)]
pub struct Proved {
    /// What they prove; or why they are refused.
    pub outcome: Result<Identity, Fault>,
    by: Option<Arc<Authenticator>>,
}

impl Default for Proved {
    fn default() -> Proved {
        Proved {
            outcome: Ok(Identity::default()),
            by: None,
        }
    }
}

/// Authentication as it runs: what was read, which can be replaced, and what goes on when it is.
#[derive(Debug)]
pub struct Authentication {
    current: RwLock<Arc<Authenticator>>,
    threads: HashThreads,
    throttle: Mutex<Throttle>,
    clock: Clock,
}

impl Credentials {
    /// Those of a CONNECT; `None` if it has neither a user name nor a password. Where anonymous clients are allowed, an empty one is none.
    pub fn of(connect: &Connect<'_>, arrival: &Arrival) -> Option<Credentials> {
        let lenient = arrival.access.allow_anonymous;
        let is_name = |name: &&str| !lenient || !name.is_empty();
        let is_password = |password: &&[u8]| !lenient || !password.is_empty();
        let name = connect.username.filter(is_name);
        if name.is_none() && connect.password.filter(is_password).is_none() {
            return None;
        }
        Some(Credentials {
            username: connect.username.map(Into::into),
            password: connect.password.map(Into::into),
            client_id: connect.client_id.into(),
            address: arrival.peer.address.map(|address| address.ip()),
        })
    }
}

impl Authenticator {
    /// Reads what these methods need.
    ///
    /// # Errors
    /// All problems of all files.
    pub fn load<'a>(
        methods: impl IntoIterator<Item = &'a Method>,
    ) -> Result<Authenticator, Vec<Problem>> {
        let mut loaded: Vec<(Method, Loaded)> = Vec::new();
        let mut problems = Vec::new();
        for method in methods {
            if loaded.iter().any(|(known, _)| known == method) {
                continue;
            }
            match method.load() {
                Ok(found) => loaded.push((method.clone(), found)),
                Err(more) => problems.extend(more),
            }
        }
        problems.dedup();
        if problems.is_empty() {
            Ok(Authenticator { loaded })
        } else {
            Err(problems)
        }
    }

    /// The files that were read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.loaded.iter().flat_map(|(method, _)| method.files())
    }

    /// What was read for a chain of methods, in its order. Nothing stands for a method that a reload has ended since the connection began.
    fn chain<'a>(&'a self, methods: &'a [Method]) -> impl Iterator<Item = &'a Loaded> {
        methods.iter().filter_map(|method| {
            let found = self.loaded.iter().find(|(known, _)| known == method)?;
            Some(&found.1)
        })
    }
}

impl Method {
    fn files(&self) -> Vec<&Path> {
        match self {
            Method::PasswordFile(file) => vec![file],
            Method::Jwt(all) => all.iter().map(|key| key.keyfile.as_path()).collect(),
            Method::Http(settings) => {
                let secret = match &settings.authorization {
                    Some(Secret::File(file)) => Some(file.as_path()),
                    _ => None,
                };
                settings
                    .cafile
                    .as_deref()
                    .into_iter()
                    .chain(secret)
                    .collect()
            }
        }
    }

    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        Ok(match self {
            Method::PasswordFile(path) => Loaded::PasswordFile(Arc::new(PasswordFile::load(path)?)),
            Method::Jwt(all) => Loaded::Jwt(Arc::new(Jwt::load(all)?)),
            Method::Http(settings) => Loaded::Http(Arc::new(Http::load(settings)?)),
        })
    }
}

impl Authentication {
    /// Begins with what was read.
    ///
    /// # Errors
    /// The operating system gives no threads, or no randomness.
    pub fn start(
        authenticator: Authenticator,
        throttle: ThrottleSettings,
    ) -> io::Result<Arc<Authentication>> {
        Ok(Arc::new(Authentication {
            current: RwLock::new(Arc::new(authenticator)),
            threads: HashThreads::start()?,
            throttle: Mutex::new(Throttle::new(throttle).map_err(io::Error::other)?),
            clock: Clock::start(),
        }))
    }

    /// Goes on with what was read now, for CONNECTs from now on. To be called in the visit to the broker that puts the rest of the
    /// configuration in force: with [`Authentication::stands`], no login is then judged by one configuration and admitted by another.
    pub fn replace(&self, authenticator: Authenticator, throttle: ThrottleSettings) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(authenticator);
        self.throttle().set(throttle);
    }

    /// Whether what was proved was so by what is in force now. A login that was not has to be judged again. To be called in the visit to the
    /// broker that admits the client.
    pub fn stands(&self, proved: &Proved) -> bool {
        let is_current = |by: &Arc<Authenticator>| Arc::ptr_eq(by, &self.current());
        proved.outcome.is_err() || proved.by.as_ref().is_none_or(is_current)
    }

    /// Whether a user who has logged in with this credential could do so now.
    pub fn vouches(&self, user: &str, credential: u64) -> bool {
        let current = self.current();
        let mut loaded = current.loaded.iter().map(|(_, loaded)| loaded);
        loaded.any(|loaded| match loaded {
            Loaded::PasswordFile(file) => file.credential(user) == Some(credential),
            Loaded::Jwt(jwt) => jwt.has(credential),
            Loaded::Http(http) => http.credential() == credential,
        })
    }

    /// What these credentials prove by the first of these methods that knows; or why they are refused, which has been logged: 0x86: they are
    /// wrong; 0x88: that could not be found out; 0x9F: too many were wrong.
    pub async fn authenticate(&self, methods: &[Method], credentials: Credentials) -> Proved {
        let current = self.current();
        let credentials = Arc::new(credentials);
        let outcome = self.judge(&current, methods, &credentials).await;
        if outcome.is_ok() {
            let uptime = self.clock.now().uptime;
            self.throttle().succeeded(&credentials, uptime);
        }
        Proved {
            outcome,
            by: Some(current),
        }
    }

    async fn judge(
        &self,
        current: &Authenticator,
        methods: &[Method],
        credentials: &Arc<Credentials>,
    ) -> Result<Identity, Fault> {
        self.check_throttle(credentials)?;
        let mut why = "no method knows the user";
        // Held until a failure has been counted: so many more cannot be under way at the same time.
        let mut hash_turn = None;
        let mut http_turn = None;
        for method in current.chain(methods) {
            let answer = match method {
                Loaded::PasswordFile(file) => {
                    http_turn = None;
                    if hash_turn.is_none() {
                        hash_turn = self.threads.turn().await;
                    }
                    // Others may have failed meanwhile.
                    self.check_throttle(credentials)?;
                    self.ask_password_file(file, credentials, &mut hash_turn)
                        .await
                }
                Loaded::Jwt(jwt) => match &credentials.password {
                    Some(password) => jwt.ask(password, clock::wall_seconds()),
                    None => Answer::Unknown,
                },
                Loaded::Http(http) => {
                    hash_turn = None;
                    match http.turn(self.clock.now().uptime).await {
                        Ok(turn) => {
                            self.check_throttle(credentials)?;
                            let uptime = self.clock.now().uptime;
                            let turn = http_turn.insert(turn);
                            http.ask(credentials, uptime, turn).await
                        }
                        Err(answer) => answer,
                    }
                }
            };
            match answer {
                Answer::Accepted(identity) => return Ok(identity),
                Answer::Refused(reason) => {
                    why = reason;
                    break;
                }
                Answer::Failed(what) => {
                    return Err(Fault::new(ReasonCode::ServerUnavailable, what));
                }
                Answer::Unknown => {}
            }
        }
        let (user, client, address) = (
            credentials.username.as_deref(),
            &*credentials.client_id,
            credentials.address,
        );
        tracing::warn!(user, client, ?address, why, "login failed");
        let reached = self.throttle().failed(credentials, self.clock.now().uptime);
        if let Some(reached) = reached {
            let user = user.filter(|_| reached == Reached::User);
            tracing::warn!(
                user,
                ?address,
                "too many logins have failed: more are refused unseen for a while"
            );
        }
        Err(WRONG)
    }

    async fn ask_password_file(
        &self,
        file: &PasswordFile,
        credentials: &Arc<Credentials>,
        turn: &mut Option<Turn>,
    ) -> Answer {
        let Some(user) = credentials.username.clone() else {
            return Answer::Unknown;
        };
        let Some((hash, is_known)) = file.find(&user) else {
            return Answer::Unknown;
        };
        let Some(own_turn) = turn.take() else {
            return Answer::Failed("passwords cannot be hashed");
        };
        let asked = Arc::clone(credentials);
        let verify = move || hash.verify(asked.password.as_deref().unwrap_or_default());
        let Some((is_right, own_turn)) = self.threads.run(own_turn, verify).await else {
            return Answer::Failed("passwords cannot be hashed");
        };
        *turn = Some(own_turn);
        match (is_known, is_right && credentials.password.is_some()) {
            (false, _) => Answer::Unknown,
            (true, true) => Answer::Accepted(Identity {
                credential: file.credential(&user),
                user: Some(user),
                ..Identity::default()
            }),
            (true, false) => Answer::Refused("the password is wrong"),
        }
    }

    /// # Errors
    /// A limit keeps these credentials from being looked at.
    fn check_throttle(&self, credentials: &Credentials) -> Result<(), Fault> {
        match self
            .throttle()
            .reached(credentials, self.clock.now().uptime)
        {
            None => Ok(()),
            Some(Reached::User) => Err(USER_THROTTLED),
            Some(Reached::Address) => Err(ADDRESS_THROTTLED),
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Arc<Authenticator> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A user that comes with rules of its own, and what its credential is known by.
///
/// # Errors
/// The name cannot be a user name.
fn accepted(user: &str, rules: Option<Rules>, credential: u64) -> Result<Identity, &'static str> {
    if user.is_empty() || user.len() > usize::from(u16::MAX) || user.contains(char::is_control) {
        return Err("the user name is empty, too long or has control characters");
    }
    Ok(Identity {
        user: Some(user.into()),
        rules: rules.map(Arc::new),
        credential: Some(credential),
        expires_in: None,
    })
}

/// What is wrong with lists of topic filters that are none.
const NO_FILTERS: &str = "publish or subscribe is not a list of topic filters";

/// The rules that these lists of topic filters are; `None` if there are none.
///
/// # Errors
/// One is no topic filter.
fn rules_of(
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
) -> Result<Option<Rules>, &'static str> {
    if publish.is_none() && subscribe.is_none() {
        return Ok(None);
    }
    let mut rules = Rules::default();
    for (filters, permission) in [(publish, Permission::Write), (subscribe, Permission::Read)] {
        for filter in filters.unwrap_or_default() {
            rules
                .add_topic(permission, &filter)
                .map_err(|_| NO_FILTERS)?;
        }
    }
    Ok(Some(rules))
}

/// A number that what a login was proved with is known by as long as it is the same.
fn credential_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A key or a secret, without the line feed that an editor has left at the end.
fn read_secret(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read =
        File::open(file).and_then(|file| file.take(MAX_SECRET_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    while bytes
        .last()
        .is_some_and(|last| matches!(last, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    Ok(bytes)
}

impl Problem {
    fn new(file: &Path, line: Option<usize>, what: impl Into<String>) -> Problem {
        Problem {
            file: file.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl From<TlsError> for Problem {
    fn from(error: TlsError) -> Problem {
        Problem::new(&error.file, None, error.what)
    }
}

/// File, line and what is wrong there.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)
    }
}
