//! What is done by time, in slices: nobody waits long for it.

pub mod end;
mod memory;
mod release;
mod restore;
pub mod tick;
pub mod walk;
mod wall;
