use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::shard::{self, Header};
use super::*;
use crate::activations::ActivationSource;
use crate::disk::fault;

fn value(row: usize, col: usize) -> f32 {
    (row as f32) * 0.5 - (col as f32) * 0.25
}

fn rows(range: std::ops::Range<usize>, cols: usize) -> Vec<f32> {
    range
        .flat_map(|r| (0..cols).map(move |c| value(r, c)))
        .collect()
}

/// A cache of 10 rows of 3 in shards of 4.
fn ten_rows(dir: &Path, dtype: CacheDtype) {
    let mut writer = CacheWriter::open(dir, 3, dtype).unwrap().with_shard_rows(4);
    writer.push(&rows(0..3, 3)).unwrap();
    writer.push(&rows(3..10, 3)).unwrap();
    assert_eq!(writer.rows(), 8, "two full shards seal themselves");
    writer.seal().unwrap();
    assert_eq!(writer.rows(), 10);
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn blocks_are_borrowed_inside_a_shard_and_copied_across() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    let reader = CacheReader::open(dir.path()).unwrap();
    assert_eq!(reader.shape(), (10, 3));
    for start in 0..=10 {
        for end in start..=10 {
            let block = reader.rows(start..end).unwrap();
            assert_eq!(*block.data, rows(start..end, 3), "{start}..{end}");
            let one_shard = start == end || start / 4 == (end - 1) / 4;
            assert_eq!(
                matches!(block.data, std::borrow::Cow::Borrowed(_)),
                one_shard,
                "{start}..{end}"
            );
        }
    }
    assert!(reader.rows(9..11).is_err());
    reader.verify().unwrap();
}

#[test]
fn rows_are_lent_as_they_are_stored_a_piece_a_shard() {
    for dtype in [CacheDtype::F32, CacheDtype::F16, CacheDtype::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        ten_rows(dir.path(), dtype);
        let reader = CacheReader::open(dir.path()).unwrap();
        assert_eq!(reader.stored_dtype(), dtype);
        let (mut pieces, mut values) = (Vec::new(), Vec::new());
        reader
            .for_each_stored(3..9, &mut |piece| {
                assert_eq!(piece.dtype, dtype);
                pieces.push(piece.rows);
                values.extend_from_slice(piece.bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!(pieces, [1, 4, 1]);
        let want: Vec<u8> = rows(3..9, 3)
            .into_iter()
            .flat_map(|v| match dtype {
                CacheDtype::F32 => v.to_le_bytes().to_vec(),
                CacheDtype::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
                CacheDtype::Bf16 => half::bf16::from_f32(v).to_le_bytes().to_vec(),
            })
            .collect();
        assert_eq!(values, want);
        assert!(reader.for_each_stored(9..11, &mut |_| Ok(())).is_err());
    }
    // A shard that is damaged is not lent either.
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::Bf16);
    let path = dir.path().join(
        fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .min()
            .unwrap(),
    );
    flip(&path, shard::HEADER + 1);
    let reader = CacheReader::open(dir.path()).unwrap();
    let error = reader.for_each_stored(0..2, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn two_byte_dtypes_come_back_widened() {
    for dtype in [CacheDtype::F16, CacheDtype::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        ten_rows(dir.path(), dtype);
        let reader = CacheReader::open(dir.path()).unwrap();
        assert_eq!(reader.dtype(), dtype);
        // The values are exact in both.
        assert_eq!(*reader.rows(1..10).unwrap().data, rows(1..10, 3));
        let size = fs::metadata(shard::path_of(dir.path(), 0)).unwrap().len();
        assert_eq!(size, 64 + 4 * 3 * 2);
    }
}

#[test]
fn a_value_beyond_f16_is_refused_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = CacheWriter::open(dir.path(), 2, CacheDtype::F16).unwrap();
    writer.push(&[1.0, 2.0]).unwrap();
    writer.seal().unwrap();
    let error = writer.push(&[1.0, 70_000.0]).unwrap_err().to_string();
    assert!(
        error.contains("neuron 1") && error.contains("f32"),
        "{error}"
    );
    assert_eq!(CacheReader::open(dir.path()).unwrap().shape(), (1, 2));
}

#[test]
fn appending_goes_on_behind_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    let mut writer = CacheWriter::open(dir.path(), 3, CacheDtype::F32).unwrap();
    writer.push(&rows(10..12, 3)).unwrap();
    drop(writer);
    assert_eq!(
        CacheReader::open(dir.path()).unwrap().shape().0,
        10,
        "an unsealed shard is absent"
    );
    let mut writer = CacheWriter::open(dir.path(), 3, CacheDtype::F32).unwrap();
    writer.push(&rows(10..12, 3)).unwrap();
    writer.seal().unwrap();
    assert_eq!(
        *CacheReader::open(dir.path())
            .unwrap()
            .rows(0..12)
            .unwrap()
            .data,
        rows(0..12, 3)
    );
}

#[test]
fn truncating_keeps_exactly_the_first_rows() {
    for keep in 0..=10 {
        let dir = tempfile::tempdir().unwrap();
        ten_rows(dir.path(), CacheDtype::F32);
        let mut writer = CacheWriter::open(dir.path(), 3, CacheDtype::F32).unwrap();
        writer.truncate(keep).unwrap();
        assert_eq!(writer.rows(), keep);
        writer.push(&rows(keep..11, 3)).unwrap();
        writer.seal().unwrap();
        let reader = CacheReader::open(dir.path()).unwrap();
        reader.verify().unwrap();
        assert_eq!(*reader.rows(0..11).unwrap().data, rows(0..11, 3), "{keep}");
    }
}

#[test]
fn every_flipped_byte_is_found_and_the_shard_named() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    let path = shard::path_of(dir.path(), 1);
    for at in 0..fs::metadata(&path).unwrap().len() as usize {
        flip(&path, at);
        let outcome = CacheReader::open(dir.path()).and_then(|r| r.rows(5..6).map(|_| ()));
        let error = outcome.expect_err("a flipped byte").to_string();
        assert!(
            error.contains("shard-000001.rows") && !error.contains('\n'),
            "byte {at}: {error}"
        );
        if let Ok(reader) = CacheReader::open(dir.path()) {
            assert!(reader.verify().is_err());
            reader.rows(0..4).expect("the other shards stay readable");
            reader.rows(8..10).expect("the other shards stay readable");
        }
        flip(&path, at);
    }
    CacheReader::open(dir.path()).unwrap().verify().unwrap();
}

#[test]
fn truncated_missing_and_foreign_shards_are_named() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    let path = shard::path_of(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    for len in [0, 10, 63, 64, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        let error = CacheReader::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("shard-000001.rows") && error.contains("truncated"),
            "{len}: {error}"
        );
        // Damage before the last shard is not the writer's to drop.
        assert!(CacheWriter::open(dir.path(), 3, CacheDtype::F32).is_err());
    }
    fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(
        CacheReader::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("too long")
    );
    fs::write(&path, vec![b'x'; 200]).unwrap();
    assert!(
        CacheReader::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("not a shard")
    );
    fs::copy(shard::path_of(dir.path(), 2), &path).unwrap();
    assert!(
        CacheReader::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("row 8 where row 4")
    );
    fs::remove_file(&path).unwrap();
    assert!(
        CacheReader::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("missing")
    );
}

#[test]
fn a_torn_last_shard_is_dropped_by_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    let path = shard::path_of(dir.path(), 2);
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let writer = CacheWriter::open(dir.path(), 3, CacheDtype::F32).unwrap();
        assert_eq!(writer.rows(), 8, "{len}");
    }
}

#[test]
fn shards_of_another_run_are_never_dropped() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    assert!(CacheWriter::open(dir.path(), 4, CacheDtype::F32).is_err());
    assert!(CacheWriter::open(dir.path(), 3, CacheDtype::F16).is_err());
    assert_eq!(CacheReader::open(dir.path()).unwrap().shape(), (10, 3));
}

#[test]
fn a_shard_of_another_version_is_never_dropped() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    let path = shard::path_of(dir.path(), 2);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let own = xxhash_rust::xxh3::xxh3_64(&bytes[..56]);
    bytes[56..64].copy_from_slice(&own.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = CacheWriter::open(dir.path(), 3, CacheDtype::F32)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("shard-000002.rows") && error.contains("version 2"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(CacheReader::open(dir.path()).is_err());
}

#[test]
fn a_full_disk_gives_one_line_and_keeps_what_was_sealed() {
    let dir = tempfile::tempdir().unwrap();
    ten_rows(dir.path(), CacheDtype::F32);
    for room in [0, 64, 70, 64 + 24, 64 + 24 + 63] {
        let mut writer = CacheWriter::open(dir.path(), 3, CacheDtype::F32).unwrap();
        fault::limit_space(Some(room));
        let error = writer
            .push(&rows(10..12, 3))
            .and_then(|()| writer.seal())
            .unwrap_err()
            .to_string();
        fault::limit_space(None);
        assert!(
            error.starts_with("cannot write ") && !error.contains('\n'),
            "{error}"
        );
        writer.seal().unwrap();
        assert_eq!(writer.rows(), 10, "no part of a lost shard is sealed later");
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no litter");
        CacheReader::open(dir.path()).unwrap().verify().unwrap();
    }
}

#[test]
fn mapped_values_are_what_the_file_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("y.f32");
    let values: Vec<f32> = (0..100).map(|i| i as f32).collect();
    fs::write(&path, bytemuck::cast_slice(&values)).unwrap();
    assert_eq!(MappedF32::open(&path, 0, 100).unwrap().as_slice(), values);
    assert_eq!(
        MappedF32::open(&path, 64, 84).unwrap().as_slice(),
        &values[16..]
    );
    assert_eq!(
        MappedF32::open(&path, 0, 0).unwrap().as_slice(),
        &[] as &[f32]
    );
    for (offset, len) in [(0, 101), (64, 85), (4, 1), (64, usize::MAX)] {
        let error = MappedF32::open(&path, offset, len).unwrap_err().to_string();
        assert!(error.contains("y.f32"), "{error}");
    }
}

proptest! {
    #[test]
    fn a_shard_header_that_is_written_is_read_back(
        cols in 1usize..1 << 20, rows in 0usize..1 << 20, first_row in 0usize..1 << 40, checksum: u64, dtype in 0usize..3,
    ) {
        let dtype = [CacheDtype::F32, CacheDtype::F16, CacheDtype::Bf16][dtype];
        let header = Header { dtype, cols, rows, first_row, checksum };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn hostile_headers_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..130)) {
        prop_assert!(Header::decode(&bytes).is_err());
    }

    /// With a checksum that fits: an attacker's sizes must not overflow.
    #[test]
    fn hostile_sizes_do_not_overflow(numbers: [u64; 4], dtype in 0u32..5, version in 0u32..3) {
        let mut bytes = [0u8; 64];
        bytes[..8].copy_from_slice(b"MLPKROWS");
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&dtype.to_le_bytes());
        for (i, n) in numbers.iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&n.to_le_bytes());
        }
        let own = xxhash_rust::xxh3::xxh3_64(&bytes[..56]);
        bytes[56..].copy_from_slice(&own.to_le_bytes());
        let dir = tempfile::tempdir().unwrap();
        fs::write(shard::path_of(dir.path(), 0), bytes).unwrap();
        if let Ok(reader) = CacheReader::open(dir.path()) {
            prop_assert_eq!(reader.shape().0, 0);
        }
    }
}
