//! What happened in a run, line by line. The hash of all lines is what two runs of one seed must
//! have in common; the last lines are told when a run fails. Telling takes time, so a run that is
//! one of many is told only when it has failed, by running it again.

use std::collections::VecDeque;
use std::fmt;

const KEPT: usize = 120;

/// How much is told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Nothing,
    /// The hash of all lines, and the last ones.
    Kept,
    /// Every line as it comes, too.
    Printed,
}

#[derive(Debug)]
pub struct Trace {
    last: VecDeque<String>,
    hash: u64,
    lines: u64,
    telling: Telling,
}

impl Trace {
    pub fn new(telling: Telling) -> Trace {
        Trace {
            last: VecDeque::with_capacity(KEPT),
            hash: 0xCBF2_9CE4_8422_2325,
            lines: 0,
            telling,
        }
    }

    /// Notes what happened at a time in microseconds.
    pub fn say(&mut self, at: u64, what: fmt::Arguments<'_>) {
        if self.telling == Telling::Nothing {
            return;
        }
        let mut line = if self.last.len() == KEPT {
            self.last.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        line.clear();
        // Writing to a String cannot fail.
        let _ = fmt::write(
            &mut line,
            format_args!("{:>6}.{:06} {what}", at / 1_000_000, at % 1_000_000),
        );
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        if self.telling == Telling::Printed {
            println!("{line}");
        }
        self.lines += 1;
        self.last.push_back(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn tail(&self) -> String {
        self.last.iter().map(|line| format!("  {line}\n")).collect()
    }
}
