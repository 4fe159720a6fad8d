//! Progress bars.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::environment::Progress;

/// Steps between two updates of the bar.
const STEP: u64 = 1024;

/// A bar that disappears at the end.
pub(crate) struct Bar {
    bar: ProgressBar,
    done: u64,
}

impl Bar {
    /// A bar for `entries` steps.
    pub(crate) fn new(progress: Progress, doing: &'static str, entries: u64) -> Self {
        let bar = match progress {
            // Draws nothing if standard error is not a terminal.
            Progress::OnTerminal => {
                ProgressBar::with_draw_target(Some(entries), ProgressDrawTarget::stderr())
            }
            Progress::Never => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(doing);
        Self { bar, done: 0 }
    }

    pub(crate) fn step(&mut self) {
        self.done = self.done.saturating_add(1);
        if self.done.is_multiple_of(STEP) {
            self.bar.set_position(self.done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
