//! What an operator is told.

#[cfg(test)]
pub mod audit;
mod check;
mod notice;
mod origin;
mod sys;
