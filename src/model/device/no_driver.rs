//! What stands for CUDA's driver in a build without it: each question is refused.

use candle_core::{Device, Tensor};

use super::card::Card;
use crate::error::{Error, Result};

fn refused<T>() -> Result<T> {
    Err(Error::refused(
        "this build has no CUDA: cargo run --release --features cuda",
    ))
}

pub(super) fn count() -> Result<usize> {
    refused()
}

pub(super) fn versions() -> Result<(u32, u32)> {
    refused()
}

pub(super) fn open(_: usize) -> Result<Device> {
    refused()
}

pub(super) fn release_unused(_: &Device) -> Result<()> {
    refused()
}

pub(super) fn card(_: &Device) -> Result<Card> {
    refused()
}

pub(super) fn carry(x: &Tensor, to: &Device) -> Result<Tensor> {
    Ok(x.to_device(to)?)
}

pub(super) fn fetch(_: &Tensor, _: &mut [u32]) -> Result<()> {
    refused()
}
