//! Texts of every script in the explorer: no cell of an earlier screen is left, and a character
//! that is split over tokens is whole.

use std::fs;

use crate::terminal::{ENTER, Terminal, home};

/// Two texts a script; the tiny model's tokens are bytes, so that every character is split.
const TEXTS: [(&str, &str); 8] = [
    ("hindi", "सोमवार को हम बाज़ार गए और क्षत्रिय की कहानी सुनी।"),
    ("hindi", "मंगलवार की सुबह नदी के किनारे ठंडी हवा थी।"),
    ("tamil", "திங்கள் கிழமை நாட்கள் மிகவும் நன்றாக இருந்தன."),
    ("thai", "วันจันทร์ที่ผ่านมาฝนตกหนักมาก ทำให้น้ำท่วม"),
    ("japanese", "今日は日曜日です。明日は月曜日ですね。"),
    ("emoji", "party 🎉🎉 👨‍👩‍👧 🇫🇷🇩🇪 👍🏽 1️⃣ ♻️ today"),
    ("arabic", "مرحبا بالعالم في المساء"),
    ("bengali", "বাংলা ভাষা খুব সুন্দর"),
];

fn explore(cols: u16, rows: u16) -> (crate::terminal::Home, Terminal) {
    let mut home = home();
    let data = home.dir.path().join("scripts.jsonl");
    let line = |(label, text): &(&str, &str)| {
        serde_json::json!({ "label": label, "text": text }).to_string()
    };
    let lines: Vec<String> = TEXTS.iter().map(line).collect();
    fs::write(&data, lines.join("\n")).unwrap();
    home.data = data.display().to_string();
    home.study(&["8"]);
    let t = home.explore(cols, rows, &[]);
    (home, t)
}

#[test]
fn a_screen_that_was_scrolled_is_the_one_that_is_drawn_afresh() {
    let (_home, mut t) = explore(120, 36);
    for keys in [
        "j", "jj", "k", "G", "g", "\tj", "jjj", "z", "z", "\t", "n", ENTER, "\x1b", "\x1b",
    ] {
        t.keys(keys);
        let scrolled = t.rests();
        t.screen.lock().unwrap().process(b"\x1b[2Jgarbage");
        t.keys("\x0c");
        t.until(
            &format!("the screen after {keys:?} afresh:\n{scrolled}"),
            |s| s == scrolled,
        );
    }
    t.quits();
}

#[test]
fn characters_are_whole_in_contexts_in_live_and_in_commands() {
    let (home, mut t) = explore(120, 36);
    // A feature fires on every text; the logit lens beside them tells of single tokens, which are
    // bytes here.
    t.until("a text", |s| {
        ["今日は月曜日", "月曜日です", "今日は日曜"]
            .iter()
            .any(|text| s.contains(text))
    });
    t.keys("4e");
    t.paste("今日 กำ 🎉");
    t.until("the text", |s| {
        s.contains("unexplained") && s.contains("今日")
    });
    assert!(!t.text().contains("<0xE4"), "{}", t.text());
    // The last of its tokens.
    t.keys("\x1b");
    t.sees("…🎉");
    t.keys("1");
    t.quits();
    let read = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mlpeek"));
        let command = command.args(args).current_dir(home.dir.path());
        let out = command
            .env("MLPEEK_HOME", home.dir.path().join("home"))
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    let card = read(&["feature", "study", "0"]);
    let contexts = card
        .split("\n\n")
        .find(|part| part.starts_with("contexts"))
        .unwrap();
    assert!(
        contexts.lines().count() > 10 && !contexts.contains("<0x"),
        "{contexts}"
    );
    let trace = read(&["trace", "study", "-t", "今日"]);
    let tokens: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(tokens, ["今", "…今", "…今", "日", "…日", "…日"]);
    for line in read(&["features", "study", "--json"]).lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(!row["top_tokens"].to_string().contains("<0x"), "{row}");
    }
    let trace: serde_json::Value =
        serde_json::from_str(&read(&["trace", "study", "-t", "今日は", "--json"])).unwrap();
    assert_eq!(
        trace["tokens"],
        serde_json::json!(["今", "", "", "日", "", "", "は", "", ""])
    );
    let card: serde_json::Value =
        serde_json::from_str(&read(&["feature", "study", "0", "--json"])).unwrap();
    for context in card["contexts"].as_array().unwrap() {
        let (tokens, values) = (
            context["tokens"].as_array().unwrap(),
            context["values"].as_array().unwrap(),
        );
        assert_eq!(tokens.len(), values.len());
        let text: String = tokens.iter().map(|t| t.as_str().unwrap()).collect();
        assert!(
            TEXTS.iter().any(|(_, whole)| whole.contains(&text)),
            "{text}"
        );
    }
}
