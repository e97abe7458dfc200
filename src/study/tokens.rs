//! The token rows of a study on disk.
//!
//! `tokens.bin` is an append-only log of segments, one per seal, with the number of rows of each
//! sample, the id and position of every row, and the display pieces of ids that occur for the first
//! time. A segment is written after the cache shards with its rows, so that after a kill the caches
//! hold at least the rows of the log's complete segments. Invariant: a segment counts only when its
//! header and payload match their checksums; a torn last one counts as absent, damage before whole
//! segments is an error that names the byte.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::disk;
use crate::error::{Error, Result};

pub(super) const FILE: &str = "tokens.bin";
const HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"MLPKTOKS";
const VERSION: u32 = 1;

/// The rows of some whole samples, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Segment {
    pub first_sample: usize,
    /// Rows of each sample.
    pub counts: Vec<u32>,
    /// Id and position of each row.
    pub rows: Vec<(u32, u32)>,
    /// Display pieces of ids that no earlier segment holds.
    pub pieces: Vec<(u32, String)>,
}

impl Segment {
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(4 * self.counts.len() + 8 * self.rows.len());
        let mut put = |v: u32| payload.extend_from_slice(&v.to_le_bytes());
        self.counts.iter().for_each(|&c| put(c));
        for &(id, position) in &self.rows {
            put(id);
            put(position);
        }
        for (id, piece) in &self.pieces {
            payload.extend_from_slice(&id.to_le_bytes());
            payload.extend_from_slice(&(piece.len() as u32).to_le_bytes());
            payload.extend_from_slice(piece.as_bytes());
        }
        let mut out = Vec::with_capacity(HEADER + payload.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.pieces.len() as u32).to_le_bytes());
        for number in [
            self.counts.len(),
            self.rows.len(),
            self.first_sample,
            payload.len(),
        ] {
            out.extend_from_slice(&(number as u64).to_le_bytes());
        }
        out.extend_from_slice(&xxh3_64(&payload).to_le_bytes());
        out.extend_from_slice(&xxh3_64(&out[..56]).to_le_bytes());
        out.extend_from_slice(&payload);
        out
    }

    /// The segment at the start of `bytes` and its length; `None` when it is torn, damaged or
    /// foreign.
    fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut head = Cursor(header_at(bytes)?);
        head.take(12)?;
        let pieces = head.u32()? as usize;
        let mut number = || head.u64().and_then(|n| usize::try_from(n).ok());
        let (samples, rows, first_sample, len) = (number()?, number()?, number()?, number()?);
        let payload = bytes.get(HEADER..HEADER.checked_add(len)?)?;
        if xxh3_64(payload) != head.u64()? {
            return None;
        }
        let mut rest = Cursor(payload);
        let mut u32s = Cursor(rest.take(samples.checked_mul(4)?)?);
        let counts: Vec<u32> = std::iter::from_fn(|| u32s.u32()).collect();
        if counts.iter().map(|&c| u64::from(c)).sum::<u64>() != rows as u64 {
            return None;
        }
        let mut pairs = Cursor(rest.take(rows.checked_mul(8)?)?);
        let rows = std::iter::from_fn(|| Some((pairs.u32()?, pairs.u32()?))).collect();
        let mut named = Vec::new();
        for _ in 0..pieces {
            let (id, len) = (rest.u32()?, rest.u32()? as usize);
            named.push((id, String::from_utf8(rest.take(len)?.to_vec()).ok()?));
        }
        let whole = rest.0.is_empty();
        whole.then_some((
            Self {
                first_sample,
                counts,
                rows,
                pieces: named,
            },
            HEADER + len,
        ))
    }

    /// Keeps the first `samples` samples and their rows. All pieces are kept, since an unused one
    /// does no harm.
    fn cut(&mut self, samples: usize) {
        self.counts.truncate(samples);
        self.rows
            .truncate(self.counts.iter().map(|&c| c as usize).sum());
    }
}

/// The 64 bytes of a sound header at the start of `bytes`.
fn header_at(bytes: &[u8]) -> Option<&[u8]> {
    let head = bytes.get(..HEADER)?;
    let own = Cursor(&head[56..]).u64()?;
    let sound = head.starts_with(MAGIC) && xxh3_64(&head[..56]) == own;
    (sound && Cursor(&head[8..]).u32()? == VERSION).then_some(head)
}

/// Takes little-endian numbers off the front of a slice; `None` at its end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, later) = self.0.split_at_checked(n)?;
        self.0 = later;
        Some(front)
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// The log as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    pub segments: Vec<Segment>,
    /// Bytes of the whole segments.
    pub bytes: usize,
}

impl Log {
    /// Reads the whole segments of a study's log; none when there is no file yet.
    ///
    /// # Errors
    /// [`Error::File`] for a log that is damaged before its last segment.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        match crate::disk::read_regular(&path) {
            Ok(bytes) => Self::parse(&bytes).map_err(|problem| Error::file(&path, problem)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::io("read", &path)(e)),
        }
    }

    /// The whole segments of a log's bytes. A torn last segment is left out.
    ///
    /// # Errors
    /// Says where bytes before the last segment are damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut log = Self::default();
        while let Some((segment, len)) = Segment::decode(&bytes[log.bytes..]) {
            if segment.first_sample != log.samples() {
                return Err(format!(
                    "damaged at byte {}: samples are missing before it; {REMEDY}",
                    log.bytes
                ));
            }
            log.bytes += len;
            log.segments.push(segment);
        }
        let rest = &bytes[log.bytes..];
        // A kill can only leave the last segment incomplete: complete segments after the damage
        // mean that bytes were changed.
        let whole_later = (1..rest.len())
            .any(|at| rest[at..].starts_with(MAGIC) && header_at(&rest[at..]).is_some());
        if whole_later {
            return Err(format!(
                "damaged at byte {} (checksum); {REMEDY}",
                log.bytes
            ));
        }
        Ok(log)
    }

    pub fn samples(&self) -> usize {
        self.segments
            .last()
            .map_or(0, |s| s.first_sample + s.counts.len())
    }

    pub fn rows(&self) -> usize {
        self.segments.iter().map(|s| s.rows.len()).sum()
    }

    /// Cuts the log to the last end of a sample at or before row `rows`. Returns whether that
    /// changed it.
    pub fn cut_to_rows(&mut self, rows: usize) -> bool {
        let before = self.samples();
        let mut left = rows;
        let mut keep = self.segments.len();
        for (i, segment) in self.segments.iter_mut().enumerate() {
            let fits = segment.counts.iter().take_while(|&&c| {
                let inside = c as usize <= left;
                left = if inside { left - c as usize } else { left };
                inside
            });
            let samples = fits.count();
            if samples < segment.counts.len() {
                segment.cut(samples);
                keep = if samples == 0 { i } else { i + 1 };
                break;
            }
        }
        self.segments.truncate(keep);
        self.samples() != before
    }

    /// Cuts the log to its first `samples` samples. Returns whether that changed it.
    pub fn cut_to_samples(&mut self, samples: usize) -> bool {
        let before = self.samples();
        self.segments
            .retain(|segment| segment.first_sample < samples);
        if let Some(last) = self.segments.last_mut() {
            last.cut(samples - last.first_sample);
        }
        self.samples() != before
    }

    fn encode(&self) -> Vec<u8> {
        self.segments.iter().flat_map(Segment::encode).collect()
    }
}

const REMEDY: &str = "restore it from a copy, or delete it and run the same collect again, which then starts from the first sample";

/// Appends segments to the log of a study.
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogWriter {
    /// Opens a study's log for appending after its complete segments. If `rewrite` is set, `log`
    /// has been cut and is first written anew.
    ///
    /// # Errors
    /// A file that cannot be opened or written.
    pub fn open(dir: &Path, log: &Log, rewrite: bool) -> Result<Self> {
        let path = dir.join(FILE);
        let mut bytes = log.bytes as u64;
        if rewrite {
            let content = log.encode();
            bytes = content.len() as u64;
            disk::write_atomic(&path, &content)?;
        }
        let created = !path.exists();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(Error::io("open for writing", &path))?;
        if created {
            disk::sync_dir(dir)?;
        }
        Ok(Self { path, file, bytes })
    }

    /// Appends a segment; it is safe once this returns, and absent after an error.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append(&mut self, segment: &Segment) -> Result<()> {
        let bytes = segment.encode();
        let at = self.bytes;
        let written = disk::check_space(bytes.len())
            // What a failed append or a kill left behind the whole segments goes first.
            .and_then(|()| self.file.set_len(at))
            .and_then(|()| self.file.seek(SeekFrom::Start(at)))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_all());
        written.map_err(Error::io("write", &self.path))?;
        self.bytes = at + bytes.len() as u64;
        Ok(())
    }
}
