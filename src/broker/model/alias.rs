//! How a topic is named to a client.

/// How a topic is named to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// By its name only.
    None,
    /// By its name, and this alias from now on.
    Set(u16),
    /// By this alias.
    Use(u16),
}
