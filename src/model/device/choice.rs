//! What a user asks for by `--device`: a kind of device, and which NVIDIA cards.
//!
//! Knows nothing of what is there.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most cards that layers are put on.
const MOST_CARDS: usize = 16;

/// Which device the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// A GPU where this build and the machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU, in f32.
    Cpu,
    /// NVIDIA GPUs (needs the `cuda` feature).
    Cuda(Cards),
    /// An Apple GPU (needs the `metal` feature).
    Metal,
}

/// The numbers of NVIDIA cards as CUDA counts them (CUDA_VISIBLE_DEVICES decides which there are
/// and in which order), in the order in which a model's layers are put on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cards {
    numbers: [u8; MOST_CARDS],
    count: u8,
}

impl Cards {
    /// The first card, alone.
    pub const FIRST: Self = Self {
        numbers: [0; MOST_CARDS],
        count: 1,
    };

    /// Cards by their numbers.
    ///
    /// # Errors
    /// [`Error::Usage`] for none, for too many and for one that is named twice.
    pub fn new(numbers: &[u8]) -> Result<Self> {
        let count = numbers.len();
        if count == 0 || count > MOST_CARDS {
            return Err(Error::usage(format!(
                "{count} cards are named: name 1 to {MOST_CARDS}"
            )));
        }
        let twice = |(i, number): (usize, &u8)| numbers[..i].contains(number);
        if let Some((_, number)) = numbers.iter().enumerate().find(|&n| twice(n)) {
            return Err(Error::usage(format!("cuda:{number} is named twice")));
        }
        let mut cards = Self {
            numbers: [0; MOST_CARDS],
            count: count as u8,
        };
        cards.numbers[..count].copy_from_slice(numbers);
        Ok(cards)
    }

    /// The numbers, in the order in which they were named.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        self.numbers[..usize::from(self.count)]
            .iter()
            .map(|&n| usize::from(n))
    }
}

/// Where a model computes, and in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// Where it computes; of several cards each has some of the layers.
    pub device: DeviceChoice,
    /// What activations are computed in on a GPU; `None`: bf16 where the card knows it.
    pub dtype: Option<DType>,
}

/// A type that a model computes in, as its name.
pub(crate) mod dtype_name {
    use candle_core::DType;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        dtype: &Option<DType>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        dtype.map(|dtype| dtype.as_str()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<DType>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        name.map(|name| {
            name.parse()
                .map_err(|_| de::Error::custom(format!("'{name}' is no type of numbers")))
        })
        .transpose()
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::usage(format!(
                "'{text}' is no device: use auto, cpu, cuda, metal, cuda:1 (a card by its number) or cuda:0,1 \
                 (layers on several cards, in this order)"
            ))
        };
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(Cards::FIRST)),
            "metal" => return Ok(Self::Metal),
            _ => {}
        }
        let numbers = text.strip_prefix("cuda:").ok_or_else(unknown)?;
        let numbers = numbers
            .split(',')
            .map(|n| n.parse::<u8>().map_err(|_| unknown()))
            .collect::<Result<Vec<_>>>()?;
        Cards::new(&numbers).map(Self::Cuda)
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Metal => f.write_str("metal"),
            Self::Cuda(cards) if *cards == Cards::FIRST => f.write_str("cuda"),
            Self::Cuda(cards) => {
                let numbers: Vec<String> = cards.numbers().map(|n| n.to_string()).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_choice_is_displayed_as_it_was_typed() {
        for text in ["auto", "cpu", "cuda", "metal", "cuda:1", "cuda:3,0,2"] {
            let choice: DeviceChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), choice);
        }
        assert_eq!(
            "cuda:0".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(Cards::FIRST)
        );
        let DeviceChoice::Cuda(cards) = "cuda:3,0,2".parse().unwrap() else {
            panic!("cards were named");
        };
        assert_eq!(cards.numbers().collect::<Vec<_>>(), [3, 0, 2]);
    }

    #[test]
    fn a_wrong_device_name_is_refused_with_the_valid_ones() {
        for text in [
            "", "gpu", "CUDA", "cuda:", "cuda:a", "cuda:0,", "cuda:-1", "cuda:300", "cpu:0",
        ] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(error.to_string().contains("cuda:0,1"), "{text}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        let twice = "cuda:1,0,1".parse::<DeviceChoice>().unwrap_err();
        assert_eq!(twice.to_string(), "cuda:1 is named twice");
        let many = (0..17).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let many = format!("cuda:{many}").parse::<DeviceChoice>().unwrap_err();
        assert!(many.to_string().contains("1 to 16"), "{many}");
    }
}
