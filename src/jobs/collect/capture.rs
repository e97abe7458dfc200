//! The tap that collects.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::model::{HookPoint, Pass, Tap};

/// Copies the rows of real tokens, BOS left out, to where they belong in the group.
pub(super) struct Capture {
    pub hooks: Vec<HookPoint>,
    pub widths: Vec<usize>,
    /// Of each hook: the group's rows.
    pub data: Vec<Vec<f32>>,
    /// Of each row of the batch: its first row in the group, and how many tokens (BOS) to leave
    /// out.
    pub places: Vec<(usize, usize)>,
    /// Hooks that the present pass has called.
    pub seen: usize,
}

impl Capture {
    pub fn new(hooks: &[HookPoint], widths: &[usize], rows: usize) -> Self {
        let data = widths.iter().map(|w| vec![0.0; w * rows]).collect();
        Self {
            hooks: hooks.to_vec(),
            widths: widths.to_vec(),
            data,
            places: Vec::new(),
            seen: 0,
        }
    }
}

impl Tap for Capture {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn intercept(
        &mut self,
        pass: &Pass<'_>,
        hook: HookPoint,
        x: &Tensor,
    ) -> Result<Option<Tensor>> {
        let Some(i) = self.hooks.iter().position(|&h| h == hook) else {
            return Ok(None);
        };
        let width = self.widths[i];
        let (rows, tokens, found) = x.dims3()?;
        if found != width || rows != self.places.len() || pass.lengths.len() != rows {
            return Err(Error::refused(format!(
                "{hook}: activations of shape [{rows}, {tokens}, {found}] where [{}, _, {width}] is due",
                self.places.len()
            )));
        }
        // Chosen where they lie: neither padding nor BOS crosses the bus, and what does is still in
        // the compute dtype.
        let all = self.places.iter().zip(pass.lengths).enumerate();
        let real: Vec<u32> = all
            .flat_map(|(row, (&(_, skip), &len))| {
                (row * tokens + skip..row * tokens + len).map(|at| at as u32)
            })
            .collect();
        self.seen += 1;
        if real.is_empty() {
            return Ok(None);
        }
        let real = Tensor::new(real, x.device())?;
        let real = x.flatten(0, 1)?.index_select(&real, 0)?;
        let real = real.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let values = real.flatten_all()?.to_vec1::<f32>()?;
        let mut rest = values.as_slice();
        for (&(first_row, skip), &len) in self.places.iter().zip(pass.lengths) {
            let (from, after) = rest.split_at(len.saturating_sub(skip) * width);
            self.data[i][first_row * width..first_row * width + from.len()].copy_from_slice(from);
            rest = after;
        }
        Ok(None)
    }
}
