//! Which layers lie on which device: all on one, or the layers on several cards in order.
//!
//! Owns the division of the layers and the way of the residual stream from device to device; knows
//! nothing of what a layer computes. Invariant: the layers of a device follow each other, so that
//! the stream crosses once a boundary.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::linear::Placement;
use crate::error::Result;
use crate::model::device;

/// The devices of a network, each with the layers that it holds.
#[derive(Clone)]
pub(super) struct Spread {
    places: Vec<Placement>,
    /// The first layer of each place, ascending; the first one's is 0.
    firsts: Vec<usize>,
}

impl Spread {
    /// All layers at one place.
    pub(super) fn one(place: Placement) -> Self {
        Self {
            places: vec![place],
            firsts: vec![0],
        }
    }

    /// Layers from `firsts[i]` on, up to the next device's, on device i; `None` where no device is
    /// given.
    pub(super) fn over(devices: &[Device], dtype: DType, firsts: &[usize]) -> Option<Self> {
        let ordered = firsts.first() == Some(&0) && firsts.is_sorted();
        (!devices.is_empty() && devices.len() == firsts.len() && ordered).then(|| Self {
            places: devices
                .iter()
                .map(|device| Placement::Device(device.clone(), dtype))
                .collect(),
            firsts: firsts.to_vec(),
        })
    }

    /// The number of the place that holds a layer.
    fn index(&self, layer: usize) -> usize {
        self.firsts.partition_point(|&first| first <= layer) - 1
    }

    /// Where a layer lies.
    pub(super) fn of(&self, layer: usize) -> &Placement {
        &self.places[self.index(layer)]
    }

    /// Where the residual stream begins.
    pub(super) fn first(&self) -> &Placement {
        &self.places[0]
    }

    /// Where what follows the last layer lies.
    pub(super) fn last(&self) -> &Placement {
        &self.places[self.places.len() - 1]
    }

    /// Every place, in the order of the layers.
    pub(super) fn places(&self) -> &[Placement] {
        &self.places
    }

    /// The device of a layer.
    pub(super) fn device(&self, layer: usize) -> &Device {
        device_of(self.of(layer))
    }

    /// Whether a pass that runs the layers in `run` brings the stream to another device before
    /// `layer`.
    pub(super) fn crosses(&self, layer: usize, run: &Range<usize>) -> bool {
        layer == run.start || self.index(layer) != self.index(layer - 1)
    }

    /// The residual stream on the device that reads it.
    pub(super) fn carry(&self, x: Tensor, layer: usize) -> Result<Tensor> {
        match self.of(layer) {
            Placement::Mapped => Ok(x),
            Placement::Device(to, _) => device::carry(&x, to),
        }
    }
}

/// The device that computes at a place.
pub(super) fn device_of(place: &Placement) -> &Device {
    match place {
        Placement::Mapped => &Device::Cpu,
        Placement::Device(device, _) => device,
    }
}

/// The first layer of each of `room.len()` devices, so that the fullest is as empty as can be.
/// `layers`: bytes of each layer; `last`: bytes of what follows them; `room`: bytes for weights on
/// each device, `None` where that is unknown, and then all count alike.
pub(super) fn divide(layers: &[u64], last: u64, room: &[Option<u64>]) -> Vec<usize> {
    let known: Option<Vec<f64>> = room.iter().map(|r| r.map(|bytes| bytes as f64)).collect();
    let room = known
        .filter(|room| room.iter().any(|&r| r > 0.0))
        .unwrap_or_else(|| vec![1.0; room.len()]);
    let devices = room.len();
    let whole = layers.iter().sum::<u64>() as f64 + last as f64;
    // The devices in order take layers up to a share of their room; the last one takes the rest.
    let filled = |share: f64| {
        let (mut firsts, mut next) = (Vec::with_capacity(room.len()), 0);
        for (i, room) in room.iter().enumerate() {
            firsts.push(next);
            let mut held = 0.0;
            while i + 1 < devices
                && next < layers.len()
                && held + layers[next] as f64 <= share * room
            {
                held += layers[next] as f64;
                next += 1;
            }
        }
        let begun = firsts.last().copied().unwrap_or(0);
        let rest = layers[begun..].iter().sum::<u64>() as f64 + last as f64;
        (firsts, rest)
    };
    let end = room[devices - 1];
    let fits = |share: f64| filled(share).1 <= share * end;
    let most = room.iter().copied().fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, 2.0 * whole / if end > 0.0 { end } else { most });
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if fits(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    filled(high).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_divided_so_that_the_fullest_card_is_as_empty_as_can_be() {
        let equal = [10; 8];
        let room = |bytes: &[u64]| bytes.iter().map(|&b| Some(b)).collect::<Vec<_>>();
        assert_eq!(divide(&equal, 0, &room(&[100, 100])), [0, 4]);
        // What follows the layers counts where it lies.
        assert_eq!(divide(&equal, 20, &room(&[100, 100])), [0, 5]);
        // A card with three times the room takes three times the layers.
        assert_eq!(divide(&equal, 0, &room(&[300, 100])), [0, 6]);
        assert_eq!(divide(&equal, 0, &room(&[100, 300])), [0, 2]);
        assert_eq!(divide(&equal, 0, &room(&[90, 90, 90])).len(), 3);
        assert_eq!(divide(&equal, 0, &[None, Some(1)]), [0, 4]);
        assert_eq!(divide(&equal, 0, &room(&[0, 0])), [0, 4]);
        // A full card takes none.
        assert_eq!(divide(&equal, 0, &room(&[0, 100])), [0, 0]);
        assert_eq!(divide(&equal, 0, &room(&[100])), [0]);
        // Of every division of unequal layers, none has a lower share on its fullest card.
        let (layers, last, free) = ([7, 3, 9, 4, 4, 8, 2u64], 5, [40u64, 20, 30]);
        let fullest = |firsts: &[usize]| {
            let held = |i: usize| {
                let end = firsts.get(i + 1).copied().unwrap_or(layers.len());
                let own = layers[firsts[i]..end].iter().sum::<u64>();
                own + if i == 2 { last } else { 0 }
            };
            (0..3)
                .map(|i| held(i) as f64 / free[i] as f64)
                .fold(0.0, f64::max)
        };
        let best = (0..=7)
            .flat_map(|a| (a..=7).map(move |b| fullest(&[0, a, b])))
            .fold(f64::INFINITY, f64::min);
        let found = divide(&layers, last, &room(&free));
        assert!((fullest(&found) - best).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn the_stream_crosses_once_a_boundary_and_where_a_pass_begins() {
        let cpu = || Device::Cpu;
        let spread = Spread::over(&[cpu(), cpu(), cpu()], DType::F32, &[0, 2, 5]).unwrap();
        let crossings = |run: Range<usize>| -> Vec<usize> {
            run.clone().filter(|&i| spread.crosses(i, &run)).collect()
        };
        assert_eq!(crossings(0..8), [0, 2, 5]);
        assert_eq!(crossings(3..5), [3]);
        for firsts in [&[1, 2, 3][..], &[0, 3, 2], &[0, 1]] {
            assert!(Spread::over(&[cpu(), cpu(), cpu()], DType::F32, firsts).is_none());
        }
    }
}
