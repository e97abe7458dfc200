//! The identity of weights: sha256 of small files, a fingerprint of large ones.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// Files of at most this many bytes together are hashed completely.
const FULL_HASH_LIMIT: u64 = 1 << 30;
/// Bytes of a sampled block.
const BLOCK: usize = 1 << 16;
/// Sampled blocks a file.
const BLOCKS: u64 = 64;

/// sha256 over the files one after another, as hex; above 1 GiB `fingerprint:` and a sha256 over
/// each file's size, its first MiB (the header) and 64 evenly spaced blocks of 64 KiB: cheap, and
/// different for any two real checkpoints, but it does not cover every byte.
///
/// # Errors
/// A file that cannot be read, and [`Error::Cancelled`].
pub fn digest(files: &[PathBuf], ctx: &TaskCtx) -> Result<String> {
    let mut sizes = Vec::new();
    for file in files {
        sizes.push(
            std::fs::metadata(file)
                .map_err(Error::io("read", file))?
                .len(),
        );
    }
    let total: u64 = sizes.iter().sum();
    let mut hash = Sha256::new();
    if total <= FULL_HASH_LIMIT {
        let mut done = 0;
        for file in files {
            hash_file(file, &mut hash, &mut done, total, ctx)?;
        }
        return Ok(format!("{:x}", hash.finalize()));
    }
    for (file, &size) in files.iter().zip(&sizes) {
        hash.update(size.to_le_bytes());
        hash_samples(file, size, &mut hash)?;
        ctx.check()?;
    }
    Ok(format!("fingerprint:{:x}", hash.finalize()))
}

fn hash_file(
    path: &Path,
    hash: &mut Sha256,
    done: &mut u64,
    total: u64,
    ctx: &TaskCtx,
) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut buffer = vec![0; 1 << 22];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if n == 0 {
            return Ok(());
        }
        hash.update(&buffer[..n]);
        *done += n as u64;
        ctx.checkpoint(Progress::new("reading weights", *done, total, "bytes"))?;
    }
}

fn hash_samples(path: &Path, size: u64, hash: &mut Sha256) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut head = vec![0; size.min(1 << 20) as usize];
    file.read_exact(&mut head)
        .map_err(Error::io("read", path))?;
    hash.update(&head);
    let last = size.saturating_sub(BLOCK as u64);
    let mut block = vec![0; BLOCK.min(size as usize)];
    for i in 0..BLOCKS {
        file.seek(SeekFrom::Start(last / (BLOCKS - 1) * i))
            .map_err(Error::io("read", path))?;
        file.read_exact(&mut block)
            .map_err(Error::io("read", path))?;
        hash.update(&block);
    }
    Ok(())
}
