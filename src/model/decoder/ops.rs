//! The small operations between the products: norms, activations, sums; this crate's loops on the
//! CPU, candle's elsewhere.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::sigmoid;

use super::linear::{Placement, with_slice};
use super::vector;
use crate::error::Result;
use crate::model::config::{Activation, Norm, NormKind};

/// A norm with its weights; Gemma's 1 + w is already added.
pub(super) struct NormWeights {
    norm: Norm,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    device: Option<(Tensor, Option<Tensor>)>,
}

impl NormWeights {
    pub(super) fn new(
        norm: Norm,
        mut weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        placement: &Placement,
    ) -> Result<Self> {
        if norm.plus_one {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        let device = match placement {
            Placement::Mapped => None,
            Placement::Device(device, dtype) => {
                let on_device =
                    |v: &[f32]| Tensor::from_slice(v, v.len(), device)?.to_dtype(*dtype);
                Some((
                    on_device(&weight)?,
                    bias.as_deref().map(on_device).transpose()?,
                ))
            }
        };
        Ok(Self {
            norm,
            weight,
            bias,
            device,
        })
    }

    pub(super) fn weight(&self) -> &[f32] {
        &self.weight
    }

    pub(super) fn kind(&self) -> NormKind {
        self.norm.kind
    }

    pub(super) fn eps(&self) -> f64 {
        self.norm.eps
    }

    pub(super) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Normalises each row of `[rows, width]`.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let eps = self.norm.eps;
        match &self.device {
            None => {
                let out = with_slice(x, |x| {
                    vector::norm(self.norm.kind, eps, &self.weight, self.bias.as_deref(), x)
                })?;
                Ok(Tensor::from_vec(out, x.shape(), &Device::Cpu)?)
            }
            Some((weight, _)) if self.norm.kind == NormKind::Rms => Ok(candle_nn::ops::rms_norm(
                &x.contiguous()?,
                weight,
                eps as f32,
            )?),
            Some((weight, bias)) => {
                let wide = x.to_dtype(DType::F32)?;
                let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
                let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
                let out = centred
                    .broadcast_div(&(variance + eps)?.sqrt()?)?
                    .to_dtype(x.dtype())?;
                let out = out.broadcast_mul(weight)?;
                Ok(match bias {
                    Some(bias) => out.broadcast_add(bias)?,
                    None => out,
                })
            }
        }
    }
}

/// act(gate) ∘ up of `[rows, gate | up]`, or act(x) of `[rows, width]`.
pub(super) fn activate(
    x: &Tensor,
    kind: Activation,
    gated: bool,
    width: usize,
    on_cpu: bool,
) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if on_cpu {
        let out = with_slice(x, |x| vector::activate(kind, gated, x, width))?;
        return Ok(Tensor::from_vec(out, (rows, width), &Device::Cpu)?);
    }
    let gate = if gated {
        x.narrow(1, 0, width)?.contiguous()?
    } else {
        x.clone()
    };
    let out = match kind {
        Activation::Silu => gate.silu()?,
        Activation::Gelu => gate.gelu_erf()?,
        Activation::GeluTanh => gate.gelu()?,
        Activation::Relu => gate.relu()?,
        Activation::Relu2 => gate.relu()?.sqr()?,
        Activation::QuickGelu => (&gate * sigmoid(&(&gate * 1.702)?)?)?,
    };
    if gated {
        Ok((out * x.narrow(1, width, width)?.contiguous()?)?)
    } else {
        Ok(out)
    }
}

/// The sum of two tensors of one shape.
pub(super) fn add(a: &Tensor, b: &Tensor, on_cpu: bool) -> Result<Tensor> {
    if !on_cpu {
        return Ok((a + b)?);
    }
    let out = with_slice(a, |a| with_slice(b, |b| vector::add(a, b)))??;
    Ok(Tensor::from_vec(out, a.shape(), &Device::Cpu)?)
}

/// `cap · tanh(x / cap)`
pub(super) fn softcap(x: &Tensor, cap: f64) -> Result<Tensor> {
    Ok(((x / cap)?.tanh()? * cap)?)
}
