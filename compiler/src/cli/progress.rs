//! Progress of long work, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Cx;

/// A line that says what is going on; hidden where nobody watches.
pub struct Progress(ProgressBar);

impl Progress {
    /// Work of unknown length.
    pub fn spinner(cx: &Cx, message: impl Into<String>) -> Self {
        let bar = if cx.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let style = ProgressStyle::with_template("   {msg} {spinner}").expect("a constant template");
        bar.set_style(style);
        bar.set_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress(bar)
    }

    /// Work on `bytes` bytes.
    pub fn bytes(cx: &Cx, message: impl Into<String>, bytes: u64) -> Self {
        let bar = if cx.quiet { ProgressBar::hidden() } else { ProgressBar::new(bytes) };
        let template = "   {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
        bar.set_style(ProgressStyle::with_template(template).expect("a constant template"));
        bar.set_message(message.into());
        Progress(bar)
    }

    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    pub fn message(&self, message: impl Into<String>) {
        self.0.set_message(message.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
