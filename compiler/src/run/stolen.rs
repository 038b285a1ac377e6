//! Time that a virtual machine's processors were ready to work and had to wait, because the host ran others.

use std::fs;

/// The processors' clocks at one moment.
pub struct Stolen(Option<Ticks>);

/// Clock ticks of all processors together since the start of the system.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    /// At work, or ready to.
    ready: u64,
    /// Of these, those that the host gave to others.
    stolen: u64,
}

impl Stolen {
    pub fn now() -> Self {
        Stolen(read())
    }

    /// Of the time since that moment that processors were ready to work, the share they did not get; `None` where the
    /// system does not say, or no tick has passed.
    pub fn share_since(&self) -> Option<f64> {
        self.share(read()?)
    }

    fn share(&self, end: Ticks) -> Option<f64> {
        let begin = self.0?;
        let [ready, stolen] = [end.ready.checked_sub(begin.ready)?, end.stolen.checked_sub(begin.stolen)?];
        (ready > 0).then(|| stolen as f64 / ready as f64)
    }
}

fn read() -> Option<Ticks> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of Linux' `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)). What guests
/// took comes behind and is part of user and nice.
fn parse(stat: &str) -> Option<Ticks> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks = fields.split_whitespace().map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, stolen] = ticks.get(..8)?.try_into().ok()?;
    let ready = [user, nice, system, irq, softirq, stolen].into_iter().try_fold(0_u64, u64::checked_add)?;
    Some(Ticks { ready, stolen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_guests_are_not_counted() {
        let stat = "cpu  100 20 30 4000 500 6 7 80 90 9\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse(stat), Some(Ticks { ready: 243, stolen: 80 }));
    }

    #[test]
    fn what_is_no_such_line_says_nothing() {
        for stat in ["", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7", "cpu 1 2 3 4 5 6 7 x", "cpu 1 2 3 4 5 6 7 -8"] {
            assert_eq!(parse(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn a_share_is_of_the_time_between() {
        let share = |end| Stolen(Some(Ticks { ready: 100, stolen: 10 })).share(end);
        assert_eq!(share(Ticks { ready: 300, stolen: 60 }), Some(0.25));
        assert_eq!(share(Ticks { ready: 100, stolen: 10 }), None);
    }
}
