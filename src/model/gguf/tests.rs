//! Headers written, cut, damaged and invented.

use proptest::prelude::*;

use super::testing::GgufWriter;
use super::*;

fn small() -> GgufWriter {
    GgufWriter::new()
        .string("general.architecture", "llama")
        .uint("llama.block_count", 2)
        .flag("general.flag", true)
        .ints("some.ints", &[-1, 2])
        .floats("some.floats", &[0.5])
        .strings("some.strings", &["a".to_owned(), "é".to_owned()])
        .tensor("t", &[4, 2], 0, &[0; 32])
        .tensor("q", &[32, 2], 3, &[0; 40])
}

fn parse(bytes: &[u8]) -> Result<Header> {
    Header::parse(bytes, Path::new("m.gguf"))
}

#[test]
fn a_gguf_that_is_written_is_read_back() {
    let header = parse(&small().bytes()).unwrap();
    assert_eq!(header.string("general.architecture"), Some("llama"));
    assert_eq!(header.uint("llama.block_count"), Some(2));
    assert_eq!(header.flag("general.flag"), Some(true));
    assert_eq!(header.ints("some.ints"), Some(&[-1, 2][..]));
    assert_eq!(header.floats("some.floats"), Some(&[0.5][..]));
    assert_eq!(header.strings("some.strings").unwrap(), ["a", "é"]);
    assert_eq!(header.tensors[1].dims, [32, 2]);
    assert_eq!(header.data_start % 32, 0);
    assert_eq!(header.uint("some.ints"), None);
}

#[test]
fn a_file_cut_anywhere_is_called_damaged() {
    let bytes = small().bytes();
    // The last tensor's padding may go; its data may not.
    for keep in 0..bytes.len() - 24 {
        let message = parse(&bytes[..keep]).unwrap_err().to_string();
        assert!(message.starts_with("m.gguf: "), "{message}");
    }
    assert!(parse(&bytes[..bytes.len() - 24]).is_ok());
}

#[test]
fn claims_of_huge_lengths_allocate_nothing() {
    let huge = u64::MAX.to_le_bytes();
    let nested = [
        &9u32.to_le_bytes()[..],
        &9u32.to_le_bytes(),
        &1u64.to_le_bytes(),
    ]
    .concat()
    .repeat(2);
    for value in [
        [&8u32.to_le_bytes()[..], &huge].concat(),
        [&9u32.to_le_bytes()[..], &0u32.to_le_bytes(), &huge].concat(),
        [
            &9u32.to_le_bytes()[..],
            &8u32.to_le_bytes(),
            &(1u64 << 40).to_le_bytes(),
        ]
        .concat(),
        [
            &9u32.to_le_bytes()[..],
            &77u32.to_le_bytes(),
            &1u64.to_le_bytes(),
        ]
        .concat(),
        77u32.to_le_bytes().to_vec(),
        nested,
    ] {
        assert!(parse(&GgufWriter::new().raw("k", value).bytes()).is_err());
    }
    let overflowing = GgufWriter::new().tensor("t", &[u64::MAX, u64::MAX], 0, &[]);
    assert!(
        parse(&overflowing.bytes())
            .unwrap_err()
            .to_string()
            .contains("sane")
    );
}

#[test]
fn foreign_files_are_named_as_such() {
    assert!(
        parse(b"PK\x03\x04 zip")
            .unwrap_err()
            .to_string()
            .contains("not a GGUF")
    );
    let mut swapped = small().bytes();
    swapped[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(
        parse(&swapped)
            .unwrap_err()
            .to_string()
            .contains("big-endian")
    );
    swapped[4..8].copy_from_slice(&9u32.to_le_bytes());
    assert!(
        parse(&swapped)
            .unwrap_err()
            .to_string()
            .contains("version 9")
    );
    assert!(
        Header::read(Path::new("/"))
            .unwrap_err()
            .to_string()
            .contains("not a file")
    );
}

proptest! {
    #[test]
    fn damage_never_panics(at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
        let mut bytes = small().bytes();
        for (index, value) in at {
            let i = index.index(bytes.len());
            bytes[i] = value;
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(noise);
        let _ = parse(&bytes);
    }
}
