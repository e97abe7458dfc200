//! The log of a run, as JSON lines in a directory: `strengths.jsonl`, `texts.jsonl`,
//! `judged-<judge>.jsonl` (of an endpoint `judged-<judge>.2.jsonl`).
//!
//! Lines are only ever appended, whole batches at a time, so that a run killed at any instant
//! continues from the last whole line: a torn last line is cut off. Knows no model.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{JudgedRecord, StrengthRecord, TextRecord};
use crate::disk;
use crate::error::{Error, Result};

/// The file that says what an evaluation is of.
pub const PLAN: &str = "plan.json";
const STRENGTHS: &str = "strengths.jsonl";
const TEXTS: &str = "texts.jsonl";

/// The log of a run, open for appending.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    strengths: Vec<StrengthRecord>,
    texts: Vec<TextRecord>,
}

impl Log {
    /// Opens or makes `dir` for `plan`; an existing one must have been made for the same plan.
    ///
    /// # Errors
    /// [`Error::Refused`] where the directory holds another plan; [`Error::File`] for a line that
    /// is no record.
    pub fn open(dir: &Path, plan: &impl Serialize) -> Result<Self> {
        disk::create_dir(dir)?;
        let plan = value_of(plan)?;
        if !has_plan(dir, &plan)? {
            disk::write_atomic(&dir.join(PLAN), format!("{plan:#}\n").as_bytes())?;
        }
        cut_torn_ends(dir)?;
        Self::of(dir, &plan)
    }

    /// What [`Self::open`] would find, without a change to the disk: an empty log where there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(dir: &Path, plan: &impl Serialize) -> Result<Self> {
        let plan = value_of(plan)?;
        has_plan(dir, &plan)?;
        Self::of(dir, &plan)
    }

    fn of(dir: &Path, plan: &Value) -> Result<Self> {
        let strengths = read(&dir.join(STRENGTHS))?;
        let texts: Vec<TextRecord> = read(&dir.join(TEXTS))?;
        check_prompts(&dir.join(TEXTS), plan, texts.iter().map(|t| t.key.prompt))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            strengths,
            texts,
        })
    }

    /// The directory of the run.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The α that were found so far.
    pub fn strengths(&self) -> &[StrengthRecord] {
        &self.strengths
    }

    /// The texts that were generated so far.
    pub fn texts(&self) -> &[TextRecord] {
        &self.texts
    }

    /// The texts that a judge has rated.
    ///
    /// # Errors
    /// [`Error::File`] for a line that is no record.
    pub fn rated(&self, judge: &str) -> Result<HashSet<String>> {
        let judged = self.judged(judge)?.into_iter();
        let rated = judged.filter(|j| j.judgement.is_rated());
        Ok(rated.map(|j| j.key.id()).collect())
    }

    /// The judgements of a judge so far, for each text the last one.
    ///
    /// # Errors
    /// [`Error::File`] for a line that is no record.
    pub fn judged(&self, judge: &str) -> Result<Vec<JudgedRecord>> {
        let all: Vec<JudgedRecord> = read(&self.judged_path(judge))?;
        let mut last = std::collections::HashMap::new();
        for (i, record) in all.iter().enumerate() {
            last.insert(record.key.id(), i);
        }
        let keep = |(i, r): (usize, JudgedRecord)| (last.get(&r.key.id()) == Some(&i)).then_some(r);
        Ok(all.into_iter().enumerate().filter_map(keep).collect())
    }

    pub(super) fn add_strengths(&mut self, records: &[StrengthRecord]) -> Result<()> {
        append(&self.dir.join(STRENGTHS), records)?;
        self.strengths.extend_from_slice(records);
        Ok(())
    }

    pub(super) fn add_texts(&mut self, records: &[TextRecord]) -> Result<()> {
        append(&self.dir.join(TEXTS), records)?;
        self.texts.extend_from_slice(records);
        Ok(())
    }

    pub(super) fn add_judged(&mut self, judge: &str, records: &[JudgedRecord]) -> Result<()> {
        append(&self.judged_path(judge), records)
    }

    /// Each judge has a file of its own, so that two judges' ratings are never read together. The
    /// second file of an endpoint holds no rating that was read out of a thought, as the first may.
    fn judged_path(&self, judge: &str) -> PathBuf {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        };
        let second =
            if judge == super::offline::OFFLINE || judge.starts_with(super::meaning::MEANING) {
                ""
            } else {
                ".2"
            };
        self.dir.join(format!(
            "judged-{}{second}.jsonl",
            judge.chars().map(plain).collect::<String>()
        ))
    }
}

fn value_of(plan: &impl Serialize) -> Result<Value> {
    serde_json::to_value(plan).map_err(|e| Error::refused(format!("cannot write the plan: {e}")))
}

/// Whether the directory holds this plan; another one is refused.
fn has_plan(dir: &Path, plan: &Value) -> Result<bool> {
    let path = dir.join(PLAN);
    let bytes = match disk::read_regular(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io("read", &path)(e)),
    };
    let saved: Value = serde_json::from_slice(&bytes).map_err(|e| {
        Error::file(
            &path,
            format!("not a plan: {e}; remove the directory and start again"),
        )
    })?;
    if saved == *plan {
        return Ok(true);
    }
    Err(Error::refused(format!(
        "{} holds another evaluation: give another --name, or remove it",
        dir.display()
    )))
}

/// Cuts off what follows the last line end of each file of records, since a run was killed while it
/// wrote that.
fn cut_torn_ends(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        if path.extension().is_none_or(|e| e != "jsonl") {
            continue;
        }
        let bytes = disk::read_regular(&path).map_err(Error::io("read", &path))?;
        let whole = whole_lines(&bytes);
        if whole < bytes.len() {
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(Error::io("open", &path))?;
            file.set_len(whole as u64)
                .map_err(Error::io("cut the torn end of", &path))?;
        }
    }
    Ok(())
}

/// Bytes up to the last line end.
fn whole_lines(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|&b| b == b'\n');
    last.map_or(0, |at| at + 1)
}

/// Refuses a text of a prompt that the plan does not have, as a changed line may name.
fn check_prompts(path: &Path, plan: &Value, of_texts: impl Iterator<Item = usize>) -> Result<()> {
    let Some(count) = plan["config"]["prompts"].as_array().map(Vec::len) else {
        return Ok(());
    };
    match of_texts.enumerate().find(|(_, prompt)| *prompt >= count) {
        None => Ok(()),
        Some((at, prompt)) => Err(Error::file(
            path,
            format!(
                "line {} names prompt {prompt}, and the evaluation has {count}: remove that line, and it is made again",
                at + 1
            ),
        )),
    }
}

/// The records of a file; none where there is no file. What follows the last line end is none.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let bytes = match disk::read_regular(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let whole = whole_lines(&bytes);
    let record = |(i, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|e| {
            Error::file(
                path,
                format!(
                    "line {} is no record ({e}): remove that line, and it is made again",
                    i + 1
                ),
            )
        })
    };
    bytes[..whole]
        .split_inclusive(|&b| b == b'\n')
        .enumerate()
        .map(record)
        .collect()
}

fn append(path: &Path, records: &[impl Serialize]) -> Result<()> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)
            .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
        lines.push(b'\n');
    }
    let mut file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::io("open", path))?;
    file.write_all(&lines)
        .and_then(|()| file.sync_data())
        .map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::super::judge::Judgement;
    use super::super::{SteeringConfig, TextKey};
    use super::*;

    fn key(sample: usize) -> TextKey {
        TextKey {
            method: "k5".into(),
            label: "a".into(),
            target: 0.1,
            sign: -1,
            prompt: 1,
            sample,
        }
    }

    fn text(sample: usize) -> TextRecord {
        let (alpha, kl, nll) = (-1.0 / 3.0, 0.1, 2.5);
        TextRecord {
            key: key(sample),
            direction: 3,
            alpha,
            kl,
            text: "so\n\"it\"".into(),
            tokens: 2,
            nll,
            distinct: 1.0,
        }
    }

    #[test]
    fn a_killed_run_goes_on_from_its_last_whole_line() {
        let dir = tempfile::TempDir::new().unwrap();
        let plan = SteeringConfig::default();
        let mut log = Log::open(dir.path(), &plan).unwrap();
        log.add_texts(&[text(0), text(1)]).unwrap();
        // Torn in the middle of the second line, as kill -9 and a full disk leave it.
        let path = dir.path().join(TEXTS);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        let mut again = Log::open(dir.path(), &plan).unwrap();
        assert_eq!(
            again.texts(),
            [text(0)],
            "numbers and characters come back as they were"
        );
        again.add_texts(&[text(1)]).unwrap();
        assert_eq!(
            Log::open(dir.path(), &plan).unwrap().texts(),
            [text(0), text(1)]
        );
        std::fs::write(&path, b"{}\n").unwrap();
        assert!(
            Log::open(dir.path(), &plan)
                .unwrap_err()
                .to_string()
                .contains("line 1 is no record")
        );
    }

    #[test]
    fn a_text_of_a_prompt_that_the_plan_lacks_is_told_by_its_line() {
        let dir = tempfile::TempDir::new().unwrap();
        let plan = serde_json::json!({"config": {"prompts": ["a", "b"]}});
        assert!(check_prompts(dir.path(), &plan, [0, 1].into_iter()).is_ok());
        let error = check_prompts(dir.path(), &plan, [1, 2].into_iter()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("line 2 names prompt 2"), "{error}");
    }

    #[test]
    fn another_plan_is_refused_and_judges_are_kept_apart() {
        let dir = tempfile::TempDir::new().unwrap();
        let plan = SteeringConfig::default();
        let mut log = Log::open(dir.path(), &plan).unwrap();
        let judged = |judgement| JudgedRecord {
            key: key(0),
            judgement,
        };
        let rated = judged(Judgement::Rated {
            concept: 2.0,
            fluency: 1.0,
        });
        log.add_judged(
            "a",
            &[judged(Judgement::Unrated {
                unrated: "no number".into(),
            })],
        )
        .unwrap();
        log.add_judged("a", std::slice::from_ref(&rated)).unwrap();
        assert_eq!(log.judged("a").unwrap(), [rated], "the last word counts");
        assert!(log.judged("b").unwrap().is_empty());
        let other = SteeringConfig { samples: 9, ..plan };
        assert!(matches!(
            Log::open(dir.path(), &other),
            Err(Error::Refused(_))
        ));
    }
}
