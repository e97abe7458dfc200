//! What is known of a GPU, and what follows from it: what a model computes in on it, and what a user
//! is told.
//!
//! Knows no driver: [`super::driver`] asks one. Invariant: what is not known is `None`, and is never
//! taken for 0.

use candle_core::DType;

use crate::disk::human_bytes;
use crate::error::{Error, Result};

/// The least compute capability whose kernels know bf16.
const BF16_FROM: (u32, u32) = (8, 0);

/// What the driver says of a card.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// How it is named on the command line: "cuda:0", "metal".
    pub place: String,
    /// Its model, such as "NVIDIA H200".
    pub name: Option<String>,
    /// The UUID by which CUDA_VISIBLE_DEVICES may name it.
    pub uuid: Option<String>,
    /// CUDA's compute capability.
    pub capability: Option<(u32, u32)>,
    /// Bytes that can still be taken on it, and that it has.
    pub memory: Option<CardMemory>,
    /// Bytes a second between its memory and its processors, at most.
    pub bandwidth: Option<f64>,
    /// Operations a second of its tensor cores in half precision, at most.
    pub peak: Option<f64>,
}

/// The memory of a card, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardMemory {
    /// What this process can still take.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

impl Card {
    /// The place and the model: "cuda:0 (NVIDIA H200)".
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.place),
            None => self.place.clone(),
        }
    }

    /// Bytes that can still be taken on it.
    pub fn free(&self) -> Option<u64> {
        self.memory.map(|memory| memory.free)
    }

    /// All that is known, in a line; what is not known is said.
    pub fn described(&self) -> String {
        let unknown = || "unknown".to_owned();
        let capability = self
            .capability
            .map_or_else(unknown, |(major, minor)| format!("{major}.{minor}"));
        let memory = self.memory.map_or_else(unknown, |m| {
            format!("{} of {} free", human_bytes(m.free), human_bytes(m.total))
        });
        let uuid = self
            .uuid
            .as_ref()
            .map_or_else(String::new, |uuid| format!(", {uuid}"));
        format!(
            "{}: compute capability {capability}, memory {memory}{uuid}",
            self.title()
        )
    }
}

/// What a model computes in on `cards`, and what the user is told of it. bf16 unless something else
/// is asked for; f16 where a card has no kernels for bf16.
///
/// # Errors
/// A type that is no type of activations.
pub fn compute_dtype(asked: Option<DType>, cards: &[Card]) -> Result<(DType, Option<String>)> {
    let dtype = asked.unwrap_or(DType::BF16);
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(Error::usage(format!(
            "a model cannot compute in {dtype:?}: use f32, f16 or bf16"
        )));
    }
    let old = |card: &&Card| card.capability.is_some_and(|c| c < BF16_FROM);
    match cards.iter().find(old) {
        Some(card) if dtype == DType::BF16 => {
            let (major, minor) = card.capability.unwrap_or_default();
            let note = format!(
                "{} has compute capability {major}.{minor}, and bf16 needs {}.{}: it computes in f16 (--dtype f32 is exact)",
                card.title(),
                BF16_FROM.0,
                BF16_FROM.1
            );
            Ok((DType::F16, Some(note)))
        }
        _ => Ok((dtype, None)),
    }
}

/// Operations a second of the tensor cores of `processors` multiprocessors at `hertz`, in f16 or bf16
/// with sums in f32 and without sparsity; `None` for a capability of which there are cards with
/// several rates.
#[cfg(any(feature = "cuda", test))]
pub(super) fn peak(capability: (u32, u32), processors: u32, hertz: f64) -> Option<f64> {
    let each = match capability {
        (7, 0) => 1024.0,
        (8, 0) => 2048.0,
        (9, 0) => 4096.0,
        (10, 0) => 8192.0,
        _ => return None,
    };
    Some(each * f64::from(processors) * hertz)
}

/// A version as the driver counts it, 1000 · major + 10 · minor, as people write it.
pub(super) fn version(number: u32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// Why a driver that knows CUDA up to `driver` does not run a build with toolkit `toolkit`; `None`
/// where it does.
#[cfg(any(feature = "cuda", test))]
pub(super) fn driver_refusal(driver: u32, toolkit: u32) -> Option<String> {
    (driver < toolkit).then(|| {
        format!(
            "the driver knows CUDA up to {} and this build was made with the toolkit {}: take a newer driver, or build \
             with a toolkit up to {}",
            version(driver),
            version(toolkit),
            version(driver)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(capability: Option<(u32, u32)>) -> Card {
        Card {
            place: "cuda:0".into(),
            name: Some("Tesla T4".into()),
            uuid: None,
            capability,
            memory: None,
            bandwidth: None,
            peak: None,
        }
    }

    #[test]
    fn the_peak_is_that_of_the_data_sheets() {
        // An H100 SXM has 132 processors at 1.83 GHz and 989 Tflop/s; an A100 108 at 1.41 GHz and 312.
        let h100 = peak((9, 0), 132, 1.83e9).unwrap();
        assert!((h100 / 989e12 - 1.0).abs() < 0.01, "{h100}");
        let a100 = peak((8, 0), 108, 1.41e9).unwrap();
        assert!((a100 / 312e12 - 1.0).abs() < 0.01, "{a100}");
        assert_eq!(peak((3, 5), 13, 7e8), None);
    }

    #[test]
    fn bf16_becomes_f16_below_compute_capability_8_and_the_user_is_told() {
        let dtype_of = |asked, cards: &[Card]| compute_dtype(asked, cards).unwrap();
        let (old, new) = (card(Some((7, 5))), card(Some((8, 0))));
        assert_eq!(
            dtype_of(None, std::slice::from_ref(&new)),
            (DType::BF16, None)
        );
        for asked in [None, Some(DType::BF16)] {
            let (dtype, note) = dtype_of(asked, &[new.clone(), old.clone()]);
            let note = note.unwrap();
            assert!(
                dtype == DType::F16 && note.contains("Tesla T4") && note.contains("7.5"),
                "{note}"
            );
        }
        for asked in [DType::F32, DType::F16] {
            assert_eq!(
                dtype_of(Some(asked), std::slice::from_ref(&old)),
                (asked, None)
            );
        }
        // A card that does not say, as Apple's.
        assert_eq!(dtype_of(None, &[card(None)]), (DType::BF16, None));
        assert!(compute_dtype(Some(DType::U8), &[]).is_err());
    }

    #[test]
    fn unknown_facts_of_a_card_are_reported_as_unknown() {
        let unknown = card(None);
        assert_eq!(unknown.free(), None);
        let text = unknown.described();
        assert!(
            text.contains("capability unknown") && text.contains("memory unknown"),
            "{text}"
        );
        let known = Card {
            memory: Some(CardMemory {
                free: 3 << 30,
                total: 16 << 30,
            }),
            uuid: Some("GPU-1".into()),
            ..card(Some((7, 5)))
        };
        assert_eq!(
            known.described(),
            "cuda:0 (Tesla T4): compute capability 7.5, memory 3.0 GiB of 16.0 GiB free, GPU-1"
        );
    }

    #[test]
    fn a_driver_older_than_the_toolkit_is_refused_with_both_versions() {
        assert_eq!(driver_refusal(13000, 13000), None);
        assert_eq!(driver_refusal(13010, 12080), None);
        let text = driver_refusal(12040, 13000).unwrap();
        assert!(text.contains("12.4") && text.contains("13.0"), "{text}");
    }
}
