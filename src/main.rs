//! The `mlpeek` binary: arguments, logging, exit codes.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mlpeek::cli::{Cli, Command};
use mlpeek::error::Error;
use mlpeek::headless::{self, Output};
use mlpeek::{panics, text};

fn main() -> ExitCode {
    panics::silence();
    let cli = arguments();
    let result = panics::catch_panic(|| match &cli.command {
        Some(command) => run(command).map(|()| 0).map_err(anyhow::Error::from),
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
    let error = match Cli::try_parse_from(&given) {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    let safe: Vec<OsString> = given
        .iter()
        .map(|arg| text::clean(&arg.to_string_lossy()).into())
        .collect();
    if safe == given {
        error.exit();
    }
    if let Err(error) = Cli::try_parse_from(&safe) {
        error.exit();
    }
    for line in text::clean_lines(&error.render().to_string()) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    std::process::exit(error.exit_code())
}

fn run(command: &Command) -> mlpeek::Result<()> {
    let mut out = Output::stdout(wants_json(command))?;
    headless::run(command, &mut out)
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Collect(a) => a.output.json,
        Command::Fit(a) => a.output.json,
        Command::Features(a) => a.output.json,
        Command::Tree(a) => a.output.json || a.format == mlpeek::cli::TreeFormat::Json,
        Command::Compare(a) => a.output.json,
        Command::Notes(a) => a.output.json,
        Command::Feature(a) => a.output.json,
        Command::Trace(a) => a.output.json,
        Command::Steer(a) => a.output.json,
        Command::Forward(a) => a.output.json,
        Command::Quality(a) => a.judge.output.json,
        Command::Sweep(a) => a.judge.output.json,
        Command::Describe(a) => a.output.json,
        Command::Sae(command) => command.wants_json(),
        Command::Eval(a) => a.json(),
        Command::Import(a) => a.output.json,
        Command::Export(a) => a.output.json,
        Command::Info(a) => a.output.json,
        Command::Models(a) => a.json,
        Command::Doctor(a) => a.output.json,
        Command::Keys(a) => a.json,
        Command::Guide { .. } | Command::Completions { .. } | Command::Man => false,
    }
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
