//! `mlpeek guide`: a page of the guide, on a terminal through its pager.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use super::Output;
use crate::cli::GuideArgs;
use crate::error::{Error, Result};
use crate::guide::{PAGES, page};

pub(super) fn run(args: &GuideArgs, out: &mut Output) -> Result<()> {
    let Some(topic) = args.topic.as_deref() else {
        PAGES
            .iter()
            .try_for_each(|page| out.line(&format!("{:<14}{}", page.topic, page.about)))?;
        out.note("mlpeek guide TOPIC shows a page");
        return Ok(());
    };
    let Some(page) = page(topic) else {
        let topics: Vec<_> = PAGES.iter().map(|page| page.topic).collect();
        return Err(Error::usage(format!(
            "the guide has no page '{topic}': choose {}",
            topics.join(", ")
        )));
    };
    if std::io::stdout().is_terminal() && through_pager(page.text) {
        Ok(())
    } else {
        out.document(page.text)
    }
}

/// Whether a pager showed the text: `$PAGER`, else `less`. Where there is none the text is printed
/// as it is.
fn through_pager(text: &str) -> bool {
    let named = std::env::var("PAGER")
        .ok()
        .filter(|pager| !pager.trim().is_empty());
    let line = named.unwrap_or_else(|| "less -FR".to_owned());
    let mut words = line.split_whitespace();
    let Some(program) = words.next() else {
        return false;
    };
    let Ok(mut pager) = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .spawn()
    else {
        return false;
    };
    // A pager that is left early closes its side: that is no failure.
    if let Some(mut input) = pager.stdin.take() {
        let _ = input.write_all(text.as_bytes());
    }
    pager.wait().is_ok()
}
