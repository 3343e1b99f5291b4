//! What an operator is told.

#[cfg(test)]
pub mod audit;
mod notice;
mod origin;
mod sys;
