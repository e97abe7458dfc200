use std::io::{Cursor, Write};

use proptest::prelude::*;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

/// `{"a": tensor of 2 × 3 transposed from 3 × 2, "k": 5}` as torch.save of version 2 pickles it.
fn good() -> Vec<u8> {
    let mut out = b"\x80\x02}q\x00(".to_vec();
    text(&mut out, "a");
    tensor(&mut out, 6, 0, (2, 3), (1, 2));
    text(&mut out, "k");
    out.extend(b"K\x05u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn tensor(out: &mut Vec<u8>, count: u8, offset: u8, shape: (u8, u8), stride: (u8, u8)) {
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    text(out, "0");
    text(out, "cpu");
    out.extend([b'K', count, b't', b'Q', b'K', offset]);
    out.extend([b'K', shape.0, b'K', shape.1, 0x86]);
    out.extend([b'K', stride.0, b'K', stride.1, 0x86, 0x89]);
    out.extend(b"ccollections\nOrderedDict\n)RtR");
}

fn zipped(pickle: &[u8], values: &[f32]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("a/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    zip.start_file("a/data/0", stored).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    zip.write_all(&bytes).unwrap();
    zip.finish().unwrap().into_inner()
}

fn read(pickle: &[u8], values: &[f32], name: &str) -> Result<Vec<f32>> {
    let mut zip = ZipArchive::new(Cursor::new(zipped(pickle, values))).unwrap();
    assert!(is_torch(&zip));
    let index = Index::read(&mut zip, Path::new("x.pt"))?;
    index.values(&mut zip, Path::new("x.pt"), name)
}

const VALUES: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

#[test]
fn tensors_of_any_stride_come_back() {
    assert_eq!(
        read(&good(), &VALUES, "a").unwrap(),
        [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]
    );
    let mut zip = ZipArchive::new(Cursor::new(zipped(&good(), &VALUES))).unwrap();
    let index = Index::read(&mut zip, Path::new("x.pt")).unwrap();
    assert_eq!(index.metadata["k"], "5");
    assert_eq!(index.shape("a").unwrap(), [2, 3]);
}

#[test]
fn a_pickle_that_does_more_is_refused_by_what_it_calls() {
    let says = |pickle: &[u8], words: &str| {
        let message = read(pickle, &VALUES, "a").unwrap_err().to_string();
        assert!(
            message.starts_with("x.pt: ") && message.contains(words),
            "{message}"
        );
    };
    says(
        b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.",
        "it calls posix.system",
    );
    says(
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
        "it calls os.system",
    );
    says(b"\x80\x02cbuiltins\neval\n)\x81.", "it calls builtins.eval");
    says(b"\x80\x02(S'ls'\nios\nsystem\n.", "more than hold tensors");
    says(b"\x80\x02}.", "holds no tensors");
    says(b"\x80\x02", "ends early");
    says(b"\x80\x02R.", "stack is empty");
    says(b"\x80\x02X\xff\xff\xff\xffa.", "ends early");
    let of = |count, offset, shape, stride| {
        let mut out = b"\x80\x02}q\x00(".to_vec();
        text(&mut out, "a");
        tensor(&mut out, count, offset, shape, stride);
        out.extend(b"u.");
        out
    };
    says(&of(6, 1, (2, 3), (3, 1)), "beyond its 6 values");
    says(&of(7, 0, (2, 3), (3, 1)), "7 values in 24 bytes");
    says(&of(6, 0, (3, 3), (0, 1)), "repeats its values");
    // A list that holds itself is looked into no deeper than a dictionary of dictionaries.
    says(b"\x80\x02]q\x00h\x00a.", "holds no tensors");
}

proptest! {
    #[test]
    fn damage_never_panics(
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut pickle = good();
        for (index, value) in at {
            let i = index.index(pickle.len());
            pickle[i] = value;
        }
        pickle.truncate(keep.index(pickle.len()) + 1);
        let _ = read(&pickle, &VALUES, "a");
    }
}
