//! What every command shares: verbosity, threads, progress, interruption, printing.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use gristmill_quantize::Isa;

use crate::cli::Global;
use crate::report::Report;

/// Shared state of one run of the command.
pub struct Context {
    /// 0 quiet, 1 normal, 2 and more verbose.
    verbosity: u8,
    threads: usize,
    interrupted: Arc<AtomicBool>,
    bars: MultiProgress,
}

impl Context {
    /// Reads the global options and the environment, and starts to listen for Ctrl-C.
    pub fn new(global: &Global) -> Result<Self, Report> {
        let threads = match global.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        if threads == 0 {
            return Err(Report::usage("-j 0: at least one thread is needed"));
        }
        Isa::detect()?;
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| {
                Report::environment(format!("cannot start {threads} threads: {error}"))
            })?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            // The first signal lets the work end in good order; a second one does not wait.
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        })
        .map_err(|error| Report::environment(format!("cannot handle interrupts: {error}")))?;
        let quiet = global.quiet || !std::io::stderr().is_terminal();
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        Ok(Self {
            verbosity: if global.quiet { 0 } else { 1 + global.verbose },
            threads,
            interrupted,
            bars: MultiProgress::with_draw_target(target),
        })
    }

    /// Threads to use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The flag that long work polls; set by Ctrl-C.
    pub fn interrupt_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    /// Ends the command if the user pressed Ctrl-C.
    pub fn check_interrupt(&self) -> Result<(), Report> {
        if self.interrupted.load(Ordering::SeqCst) {
            Err(Report::interrupted())
        } else {
            Ok(())
        }
    }

    /// A bar over `total` units that are bytes.
    pub fn byte_bar(&self, label: &str, total: u64) -> ProgressBar {
        self.bar(
            label,
            total,
            "{msg:24} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    /// A bar over `total` things.
    pub fn count_bar(&self, label: &str, total: u64) -> ProgressBar {
        self.bar(label, total, "{msg:24} {wide_bar} {pos}/{len} {eta}")
    }

    fn bar(&self, label: &str, total: u64, template: &str) -> ProgressBar {
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(ProgressBar::new(total));
        bar.set_style(style);
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Prints a result on stdout. A reader that has gone away is no error.
    pub fn print(&self, text: &str) -> Result<(), Report> {
        let mut stdout = std::io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Report::environment(format!("standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Prints one JSON document on stdout.
    pub fn print_json(&self, document: &impl serde::Serialize) -> Result<(), Report> {
        let mut text = serde_json::to_string_pretty(document)
            .map_err(|error| Report::environment(format!("cannot write JSON: {error}")))?;
        text.push('\n');
        self.print(&text)
    }

    /// A note for the user on stderr, unless quiet.
    pub fn note(&self, text: &str) {
        if self.verbosity > 0 {
            self.bars.suspend(|| eprintln!("{text}"));
        }
    }

    /// A warning on stderr; `-q` does not hide it.
    pub fn warn(&self, text: &str) {
        self.bars.suspend(|| eprintln!("warning: {text}"));
    }

    /// A detail that only `-v` shows.
    pub fn detail(&self, text: &str) {
        if self.verbosity > 1 {
            self.bars.suspend(|| eprintln!("{text}"));
        }
    }
}
