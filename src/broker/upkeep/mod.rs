//! What is done by time, in slices: nobody waits long for it.

pub mod end;
mod memory;
mod restore;
mod resume;
pub mod tick;
pub mod walk;
mod wall;
