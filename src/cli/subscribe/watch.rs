//! `--watch`: one line of the terminal for each topic, with its newest message.

use std::collections::{HashMap, HashSet};

/// The lines of the terminal.
#[derive(Debug)]
pub struct Watch {
    columns: usize,
    /// Number of lines for topics. The line below them counts the topics without a line.
    rows: usize,
    lines: HashMap<String, usize>,
    /// Topics without a line, because none was left.
    others: HashSet<String>,
    begun: bool,
}

impl Watch {
    /// Uses the whole terminal of the standard output.
    pub fn of_terminal() -> Watch {
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        Watch::new(usize::from(columns), usize::from(rows))
    }

    fn new(columns: usize, rows: usize) -> Watch {
        Watch {
            columns: columns.max(10),
            rows: rows.saturating_sub(2).max(1),
            lines: HashMap::new(),
            others: HashSet::new(),
            begun: false,
        }
    }

    /// Appends to `out` the bytes that show this text in the line of a topic.
    pub fn show(&mut self, topic: &str, text: &[u8], out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"\x1b[2J");
        }
        let next = self.lines.len();
        let row = match self.lines.get(topic) {
            Some(row) => *row,
            None if next < self.rows => {
                self.lines.insert(topic.to_owned(), next);
                next
            }
            None => {
                self.others.insert(topic.to_owned());
                let others = format!("... and {} topics more", self.others.len());
                return self.put(self.rows, &others, out);
            }
        };
        self.put(row, &String::from_utf8_lossy(text), out);
    }

    /// Writes a line and leaves the cursor below all lines.
    fn put(&self, row: usize, text: &str, out: &mut Vec<u8>) {
        // A payload must not move the cursor or continue in the next line.
        let shown = text
            .chars()
            .take(self.columns)
            .map(|c| match c.is_control() {
                true => '\u{b7}',
                false => c,
            });
        let shown: String = shown.collect();
        let (line, below) = (row + 1, self.lines.len().min(self.rows) + 2);
        out.extend_from_slice(format!("\x1b[{line};1H{shown}\x1b[K\x1b[{below};1H").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(watch: &mut Watch, topic: &str, text: &str) -> String {
        let mut out = Vec::new();
        watch.show(topic, text.as_bytes(), &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn each_topic_keeps_its_line() {
        let mut watch = Watch::new(12, 4);
        assert_eq!(
            shown(&mut watch, "a", "a 1"),
            "\x1b[2J\x1b[1;1Ha 1\x1b[K\x1b[3;1H"
        );
        assert_eq!(shown(&mut watch, "b", "b 1"), "\x1b[2;1Hb 1\x1b[K\x1b[4;1H");
        assert_eq!(shown(&mut watch, "a", "a 2"), "\x1b[1;1Ha 2\x1b[K\x1b[4;1H");
        let more = shown(&mut watch, "c", "c 1");
        assert_eq!(more, "\x1b[3;1H... and 1 to\x1b[K\x1b[4;1H");
    }

    #[test]
    fn a_payload_cannot_leave_its_line() {
        let mut watch = Watch::new(10, 24);
        let text = shown(&mut watch, "a", "x\n\x1b[2Jy\u{e9}0123456");
        assert!(
            text.contains("\x1b[1;1Hx\u{b7}\u{b7}[2Jy\u{e9}01\x1b[K"),
            "{text:?}"
        );
    }
}
