//! The `mlpeek` binary: arguments, logging, exit codes.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use mlpeek::cli::{self, Cli};
use mlpeek::error::Error;
use mlpeek::headless::{self, Output};
use mlpeek::{panics, text};

fn main() -> ExitCode {
    panics::silence();
    cli::answer_shell();
    let cli = arguments();
    let result = panics::catch_panic(|| match &cli.command {
        Some(command) => Output::stdout(cli.json)
            .and_then(|mut out| headless::run(command, &mut out))
            .map(|()| 0)
            .map_err(anyhow::Error::from),
        None => explore(&cli.explore),
    });
    let error = match result {
        Ok(Ok(code)) => return ExitCode::from(code),
        Ok(Err(error)) => error,
        Err(panic) => anyhow::anyhow!("internal error: {panic}"),
    };
    let (code, words) = match error.downcast_ref::<Error>() {
        // The reader of our output left: that is no failure of ours.
        Some(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        // Its words name the cause already.
        Some(ours) => (ours.exit_code(), ours.to_string()),
        None => (1, format!("{error:#}")),
    };
    let _ = writeln!(std::io::stderr(), "mlpeek: {}", text::clean(&words));
    ExitCode::from(code)
}

/// The command line, or the end of the process with clap's help or its error. An error quotes what
/// was typed, which may be a file name or a text from elsewhere: it is then made about the
/// arguments made safe, which are wrong in the same way.
fn arguments() -> Cli {
    let given: Vec<OsString> = std::env::args_os().collect();
    let error = match Cli::from_args(given.clone()) {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    let safe: Vec<OsString> = given
        .iter()
        .map(|arg| text::clean(&arg.to_string_lossy()).into())
        .collect();
    if safe == given {
        end_with(&error);
    }
    if let Err(error) = Cli::from_args(safe) {
        end_with(&error);
    }
    for line in text::clean_lines(&error.render().to_string()) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    std::process::exit(error.exit_code())
}

/// Prints clap's help or its error and ends the process, with a failure where the help could not be
/// written.
fn end_with(error: &clap::Error) -> ! {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    let code = match printed {
        Err(problem) if problem.kind() != std::io::ErrorKind::BrokenPipe && !error.use_stderr() => {
            let _ = writeln!(
                std::io::stderr(),
                "mlpeek: cannot write to standard output: {problem}"
            );
            1
        }
        _ => error.exit_code(),
    };
    std::process::exit(code)
}

#[cfg(feature = "tui")]
fn explore(args: &mlpeek::cli::ExploreArgs) -> anyhow::Result<u8> {
    mlpeek::ui::explore(args)
}

#[cfg(not(feature = "tui"))]
fn explore(_: &mlpeek::cli::ExploreArgs) -> anyhow::Result<u8> {
    let why = "this mlpeek was built without the explorer (feature `tui`); `mlpeek --help` lists the commands";
    Err(Error::refused(why).into())
}
