//! Who may come in, and what clients may do.

mod admit;
mod quota;
mod rights;
