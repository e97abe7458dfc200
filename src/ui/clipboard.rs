//! Copying: into tmux's buffer inside tmux, else by OSC 52, which passes through SSH. Owns the
//! limits and the words for what happened.

use std::io::Write;
use std::process::{Command, Stdio};

use crossterm::clipboard::CopyToClipboard;
use crossterm::execute;

/// Terminals and tmux cut longer OSC 52 strings, some of them silently.
const MAX_BYTES: usize = 64 * 1024;

/// Copies `text`, called `what`; says how it went, in words for a toast.
///
/// # Errors
/// Where there is no way to the clipboard from here, with what to do, in words for a toast.
pub fn copy(out: &mut impl Write, text: &str, what: &str) -> Result<String, String> {
    let (text, cut) = match text.len() {
        n if n <= MAX_BYTES => (text, String::new()),
        n => (
            &text[..floor_boundary(text, MAX_BYTES)],
            format!(", cut from {n} to {MAX_BYTES} bytes"),
        ),
    };
    let way = if std::env::var_os("TMUX").is_some() && tmux(text) {
        "tmux"
    } else {
        osc52(out, text)?
    };
    Ok(format!("copied {what} ({way}{cut})"))
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// `-w` also hands it to the outer terminal's clipboard.
fn tmux(text: &str) -> bool {
    let child = Command::new("tmux")
        .args(["load-buffer", "-w", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let written = child
        .stdin
        .take()
        .is_some_and(|mut pipe| pipe.write_all(text.as_bytes()).is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}

fn osc52(out: &mut impl Write, text: &str) -> Result<&'static str, String> {
    execute!(out, CopyToClipboard::to_clipboard_from(text))
        .map_err(|e| format!("could not copy: {e}"))?;
    Ok("OSC 52")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        let text = "é".repeat(MAX_BYTES);
        assert!(text.is_char_boundary(floor_boundary(&text, MAX_BYTES + 1)));
    }
}
