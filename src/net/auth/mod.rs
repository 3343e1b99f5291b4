//! Authentication of clients by the user name and password of CONNECT.
//!
//! A listener has a list of [`Method`]s. They are asked in order, until one knows the client:
//!
//! | method | accepts | refuses | does not know the client |
//! |---|---|---|---|
//! | [`password_file`] | right password | wrong or missing password | no such user |
//! | [`jwt`] | valid token | invalid token | password is not a token |
//! | [`http`] | the server accepts | the server refuses or fails | the server does not know it |
//!
//! If no method knows the client, it is refused. A client without user name and password is
//! anonymous, and no method is asked. The broker decides about it
//! ([`crate::broker::Access::allow_anonymous`]), as about a client whose certificate is its user
//! name.
//!
//! This happens after CONNECT is decoded and before [`crate::broker::Broker::connect`], which gets
//! the result.

mod credentials;
pub mod hash;
pub mod http;
pub mod jwt;
mod method_result;
pub mod password_file;
mod problem;
mod secret;
mod threads;
mod throttle;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use credentials::Credentials;
pub use problem::Problem;
pub use throttle::ThrottleSettings;

use crate::broker::Identity;
use crate::clock::{self, Clock};
use crate::wire::{Fault, ReasonCode};
use http::{Http, HttpSettings, Secret};
use jwt::{Jwt, JwtSettings};
use method_result::MethodResult;
use password_file::PasswordFile;
use threads::{HashThreads, Permit};
use throttle::{ReachedLimit, Throttle};

/// The answer to wrong credentials. Only the log says which of both is wrong.
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

/// A method of authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// A password file.
    PasswordFile(PathBuf),
    /// A signed token as password.
    Jwt(Arc<[JwtSettings]>),
    /// A server that is asked over HTTP.
    Http(Arc<HttpSettings>),
}

/// All methods with their loaded files.
#[derive(Debug, Default)]
pub struct Authenticator {
    loaded: Vec<(Method, Loaded)>,
}

/// The loaded files of a method.
#[derive(Clone, Debug)]
enum Loaded {
    PasswordFile(Arc<PasswordFile>),
    Jwt(Arc<Jwt>),
    Http(Arc<Http>),
}

/// The result of all methods for a client. `Default` is the result for a client without
/// credentials.
#[derive(Clone, Debug)]
pub struct LoginResult {
    /// The client's identity, or why it is refused.
    pub outcome: Result<Identity, Fault>,
    by: Option<Arc<Authenticator>>,
}

impl Default for LoginResult {
    fn default() -> LoginResult {
        LoginResult {
            outcome: Ok(Identity::default()),
            by: None,
        }
    }
}

/// Authentication in a running broker. A reload replaces the methods and keeps the rest.
#[derive(Debug)]
pub struct Authentication {
    current: RwLock<Arc<Authenticator>>,
    threads: HashThreads,
    throttle: Mutex<Throttle>,
    clock: Clock,
}

impl Authenticator {
    /// Reads the files of these methods.
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

    /// Returns the files that were read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.loaded.iter().flat_map(|(method, _)| method.files())
    }

    /// Returns the loaded methods of a list, in its order. A method that a reload has removed is
    /// skipped.
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
    /// Starts with these methods.
    ///
    /// # Errors
    /// The operating system gives no threads or no randomness.
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

    /// Replaces the methods for later CONNECTs. Call this under the lock of the broker that applies
    /// the rest of the configuration. With [`Authentication::is_current`], no client is then
    /// checked by one configuration and admitted by another.
    pub fn replace(&self, authenticator: Authenticator, throttle: ThrottleSettings) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(authenticator);
        self.throttle().set(throttle);
    }

    /// Returns whether a result comes from the present methods. If not, the client must be checked
    /// again. Call this under the lock of the broker that admits the client.
    pub fn is_current(&self, login: &LoginResult) -> bool {
        let is_current = |by: &Arc<Authenticator>| Arc::ptr_eq(by, &self.current());
        login.outcome.is_err() || login.by.as_ref().is_none_or(is_current)
    }

    /// Returns whether a client with this user name and credential could still log in.
    pub fn accepts_credential(&self, user: &str, credential: u64) -> bool {
        let current = self.current();
        let mut loaded = current.loaded.iter().map(|(_, loaded)| loaded);
        loaded.any(|loaded| match loaded {
            Loaded::PasswordFile(file) => file.credential(user) == Some(credential),
            Loaded::Jwt(jwt) => jwt.has(credential),
            Loaded::Http(http) => http.credential() == credential,
        })
    }

    /// Asks these methods about a client. A refusal is logged. Its reason codes: 0x86 for wrong
    /// credentials, 0x88 if a method failed, 0x9F after too many failures.
    pub async fn authenticate(&self, methods: &[Method], credentials: Credentials) -> LoginResult {
        let current = self.current();
        let credentials = Arc::new(credentials);
        let outcome = self.run_methods(&current, methods, &credentials).await;
        if outcome.is_ok() {
            let uptime = self.clock.now().uptime;
            self.throttle().succeeded(&credentials, uptime);
        }
        LoginResult {
            outcome,
            by: Some(current),
        }
    }

    async fn run_methods(
        &self,
        current: &Authenticator,
        methods: &[Method],
        credentials: &Arc<Credentials>,
    ) -> Result<Identity, Fault> {
        self.check_throttle(credentials)?;
        let mut why = "no method knows the user";
        // Permits are held until a failure is counted. So they limit the attempts that run
        // uncounted.
        let mut hash_permit = None;
        let mut http_permit = None;
        for method in current.chain(methods) {
            let answer = match method {
                Loaded::PasswordFile(file) => {
                    http_permit = None;
                    if hash_permit.is_none() {
                        hash_permit = self.threads.acquire().await;
                    }
                    // Others may have failed meanwhile.
                    self.check_throttle(credentials)?;
                    self.ask_password_file(file, credentials, &mut hash_permit)
                        .await
                }
                Loaded::Jwt(jwt) => match &credentials.password {
                    Some(password) => jwt.ask(password, clock::wall_seconds()),
                    None => MethodResult::Unknown,
                },
                Loaded::Http(http) => {
                    hash_permit = None;
                    match http.acquire(self.clock.now().uptime).await {
                        Ok(permit) => {
                            self.check_throttle(credentials)?;
                            let uptime = self.clock.now().uptime;
                            let permit = http_permit.insert(permit);
                            http.ask(credentials, uptime, permit).await
                        }
                        Err(answer) => answer,
                    }
                }
            };
            match answer {
                MethodResult::Accepted(identity) => return Ok(identity),
                MethodResult::Refused(reason) => {
                    why = reason;
                    break;
                }
                MethodResult::Failed(what) => {
                    return Err(Fault::new(ReasonCode::ServerUnavailable, what));
                }
                MethodResult::Unknown => {}
            }
        }
        let (user, client, address) = (
            credentials.username.as_deref(),
            &*credentials.client_id,
            credentials.address.map(tracing::field::display),
        );
        tracing::warn!(user, client, address, why, "login failed");
        let reached = self.throttle().failed(credentials, self.clock.now().uptime);
        if let Some(reached) = reached {
            let user = user.filter(|_| reached == ReachedLimit::User);
            tracing::warn!(
                user,
                address,
                "too many logins have failed: more are refused unseen for a while"
            );
        }
        Err(WRONG)
    }

    async fn ask_password_file(
        &self,
        file: &PasswordFile,
        credentials: &Arc<Credentials>,
        permit: &mut Option<Permit>,
    ) -> MethodResult {
        let Some(user) = credentials.username.clone() else {
            return MethodResult::Unknown;
        };
        let Some((hash, is_known)) = file.find(&user) else {
            return MethodResult::Unknown;
        };
        let Some(own_permit) = permit.take() else {
            return MethodResult::Failed("passwords cannot be hashed");
        };
        let asked = Arc::clone(credentials);
        let verify = move || hash.verify(asked.password.as_deref().unwrap_or_default());
        let Some((is_right, own_permit)) = self.threads.run(own_permit, verify).await else {
            return MethodResult::Failed("passwords cannot be hashed");
        };
        *permit = Some(own_permit);
        match (is_known, is_right && credentials.password.is_some()) {
            (false, _) => MethodResult::Unknown,
            (true, true) => MethodResult::Accepted(Identity {
                credential: file.credential(&user),
                user: Some(user),
                ..Identity::default()
            }),
            (true, false) => MethodResult::Refused("the password is wrong"),
        }
    }

    /// Checks the throttle.
    ///
    /// # Errors
    /// A limit of failed logins is reached.
    fn check_throttle(&self, credentials: &Credentials) -> Result<(), Fault> {
        match self
            .throttle()
            .reached(credentials, self.clock.now().uptime)
        {
            None => Ok(()),
            Some(ReachedLimit::User) => Err(USER_THROTTLED),
            Some(ReachedLimit::Address) => Err(ADDRESS_THROTTLED),
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Arc<Authenticator> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}
