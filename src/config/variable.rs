//! How environment variables are named.

/// Environment variables that begin with this override the file.
pub const ENVIRONMENT_PREFIX: &str = "TIDEGATE_";

/// The environment variable of a key.
pub(super) fn variable_of(key: &str) -> String {
    let name = key.replace('[', ".").replace(']', "").replace('.', "__");
    format!("{ENVIRONMENT_PREFIX}{}", name.to_uppercase())
}
