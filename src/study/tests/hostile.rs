//! Bytes from elsewhere never panic a parser.

use proptest::prelude::*;

use super::*;
use crate::factor::{Coding, SparseColumns};
use crate::study::tokens::{Log, Segment};

fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let counts = proptest::collection::vec(0u32..4, 1..5);
    let segment = (
        counts,
        proptest::collection::vec((any::<u32>(), any::<String>()), 0..3),
        any::<u32>(),
    );
    proptest::collection::vec(segment, 0..4).prop_map(|parts| {
        let mut first_sample = 0;
        let segment = |(counts, pieces, seed): (Vec<u32>, Vec<(u32, String)>, u32)| {
            let rows = (0..counts.iter().sum())
                .map(|i| (seed.wrapping_add(i), i))
                .collect();
            let segment = Segment {
                first_sample,
                counts,
                rows,
                pieces,
            };
            first_sample += segment.counts.len();
            segment
        };
        parts.into_iter().map(segment).collect()
    })
}

proptest! {
    #[test]
    fn a_torn_log_is_a_prefix_of_its_segments(segments in segments(), at in any::<prop::sample::Index>()) {
        let bytes: Vec<u8> = segments.iter().flat_map(Segment::encode).collect();
        prop_assert_eq!(&Log::parse(&bytes).unwrap().segments, &segments);
        let torn = Log::parse(&bytes[..at.index(bytes.len() + 1)]).unwrap();
        prop_assert_eq!(&torn.segments[..], &segments[..torn.segments.len()]);
    }

    #[test]
    fn a_cut_log_ends_with_a_sample(segments in segments(), rows in 0usize..40) {
        let mut log = Log::parse(&segments.iter().flat_map(Segment::encode).collect::<Vec<u8>>()).unwrap();
        let counts: Vec<u32> = log.segments.iter().flat_map(|s| s.counts.clone()).collect();
        log.cut_to_rows(rows);
        let kept = &counts[..log.samples()];
        prop_assert!(kept.iter().sum::<u32>() as usize <= rows && log.rows() == kept.iter().sum::<u32>() as usize);
        if let Some(next) = counts.get(kept.len()) {
            prop_assert!(log.rows() + *next as usize > rows);
        }
    }

    #[test]
    fn hostile_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Log::parse(&bytes).map(|l| l.segments.len()), Ok(0));
        prop_assert!(Manifest::parse(&bytes).is_err());
        prop_assert!(crate::study::fit_file::FitFile::parse(&bytes).is_err());
        prop_assert!(factor_files::decode_features(&bytes).is_err());
        let _ = samples::decode(&bytes);
    }

    /// Headers whose checksums fit, with an attacker's numbers.
    #[test]
    fn hostile_counts_do_not_overflow(numbers: [u64; 4], pieces: u32, payload in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = Segment::default().encode()[..64].to_vec();
        bytes[12..16].copy_from_slice(&pieces.to_le_bytes());
        for (i, n) in numbers.iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&n.to_le_bytes());
        }
        bytes[40..48].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes[48..56].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(&payload).to_le_bytes());
        let own = xxhash_rust::xxh3::xxh3_64(&bytes[..56]);
        bytes[56..64].copy_from_slice(&own.to_le_bytes());
        bytes.extend_from_slice(&payload);
        let _ = Log::parse(&bytes);
    }

    #[test]
    fn hostile_features_are_refused_or_sound(
        rows: usize, offsets in proptest::collection::vec(0usize..6, 0..5), indices in proptest::collection::vec(0u32..6, 0..5),
        values in proptest::collection::vec(any::<f32>(), 0..5),
        centre in proptest::option::of(proptest::collection::vec(any::<f32>(), 0..9)),
        weights in proptest::option::of(proptest::collection::vec(any::<f32>(), 0..9)),
    ) {
        let z = SparseColumns { rows: rows % 8, offsets, indices, values };
        let weights = weights.map(std::sync::Arc::new);
        let coding = Coding { centre: centre.map(std::sync::Arc::new), neuron_weights: weights, row_cap: None };
        let bytes = factor_files::encode_features(&z, &coding).unwrap();
        if let Ok((z, read)) = factor_files::decode_features(&bytes) {
            assert_eq!(read, coding);
            for j in 0..z.columns() {
                z.dense_column(j);
            }
        }
    }
}
