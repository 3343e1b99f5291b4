//! How the broker process dies, and what of the disk is left.

use super::disk::Fault;
use super::world::{Event, World};

impl World {
    /// Dies now, or soon in the middle of a commit.
    pub fn crash_somehow(&mut self) {
        if self.process.is_none() {
            return;
        }
        if self.rng.chance(40) {
            let after = self.rng.below(25);
            self.disk.inject(Fault::StopAfter(after));
        } else {
            self.crash();
        }
    }

    /// The process dies, or the machine loses its power; all connections end, and a new process
    /// starts a little later.
    pub fn crash(&mut self) {
        let power_cut = self.rng.chance(self.plan.power_cuts);
        if power_cut {
            let (unsynced, kept) = self.disk.cut_power(&mut self.rng);
            self.stats.power_cuts += 1;
            self.say(format_args!(
                "POWER CUT: {kept} of {unsynced} unsynced sectors are left"
            ));
        } else {
            self.disk.kill();
            self.stats.kills += 1;
            self.say(format_args!("KILLED"));
        }
        self.life += 1;
        self.process = None;
        let plan = &self.plan;
        self.history
            .died(power_cut, self.safe, |topic| plan.level(topic));
        let floors = self.history.retained_floors();
        self.history.lower_replays(&floors);
        for client in &mut self.clients {
            client.lower_floors(&floors);
        }
        for link in 0..self.links.len() {
            if self.links[link].server.is_some() {
                self.links[link].server_died(&mut self.rng);
                self.hurry_down(link);
            }
        }
        let after = self.rng.between(10_000, 3_000_000);
        self.at(after, Event::Boot);
    }

    pub fn break_disk(&mut self) {
        self.stats.disk_faults += 1;
        match self.rng.below(3) {
            0 => self.disk.inject(Fault::Write),
            1 => self.disk.inject(Fault::Sync),
            _ => {
                self.disk.fill();
                self.disk_is_bad = true;
                let after = self.rng.between(1_000_000, 10_000_000);
                self.at(after, Event::DiskHeals);
            }
        }
        self.say(format_args!("the disk breaks"));
    }
}
