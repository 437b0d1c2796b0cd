//! Packed layers, shared between the plans of a network.
//!
//! A plan for another image size, precision or set of outputs asks here before it packs a layer.
//! The cache does not keep layers alive: one that no plan uses any more is freed with the last of
//! them, so weights that training has replaced do not pile up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::ir::{Constant, Key, Layer, Norm};
use crate::Result;
use crate::conv::{Conv2d, Options, Packing, PreparedConv};
use crate::layers::batch_norm;
use crate::layers::fold::{fold, fold_packed};

/// Everything a packed layer follows from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LayerKey {
    weights: Key,
    /// Constants of the batch norm folded in, and the bits of its eps.
    norm: Option<(Key, u64)>,
    /// Bits of the factor and summand folded in.
    scale: Option<(u32, u32)>,
    /// Height, width and channels of the image that a linear layer flattens.
    image: Option<(usize, usize, usize)>,
    packing: Packing,
}

/// The cache of packed layers of one network.
#[derive(Debug, Default)]
pub struct PackedWeights {
    layers: Mutex<HashMap<LayerKey, Weak<PreparedConv>>>,
}

impl PackedWeights {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of packed layers in use.
    pub fn len(&self) -> usize {
        self.lock().values().filter(|layer| layer.strong_count() > 0).count()
    }

    /// Whether no packed layer is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the packed layers in use.
    pub fn bytes(&self) -> usize {
        let layers: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        layers.iter().map(|layer| layer.weight_bytes()).sum()
    }

    /// The layer called `name`, packed now if nobody has done so. `constants` are all arrays of the
    /// graph.
    pub(super) fn prepare(
        &self,
        name: &str,
        layer: &Layer,
        constants: &[&[f32]],
        options: Options,
    ) -> Result<Arc<PreparedConv>> {
        let key = key(layer, options);
        if let Some(key) = &key {
            let mut layers = self.lock();
            if let Some(found) = layers.get(key).and_then(Weak::upgrade) {
                let found = fit(found, layer);
                // The newest plan is likely to live longest.
                layers.insert(key.clone(), Arc::downgrade(&found));
                return Ok(found);
            }
        }
        // Not under the lock: packing is parallel, and a pool thread that waits for its helpers may
        // take up another plan's packing, which would wait for this lock. Two plans that pack one
        // layer at the same moment do it twice, and one result is kept.
        let packed = Arc::new(pack(name, layer, constants, options)?);
        let Some(key) = key else { return Ok(packed) };
        let mut layers = self.lock();
        if let Some(found) = layers.get(&key).and_then(Weak::upgrade) {
            return Ok(fit(found, layer));
        }
        layers.retain(|_, layer| layer.strong_count() > 0);
        layers.insert(key, Arc::downgrade(&packed));
        Ok(packed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LayerKey, Weak<PreparedConv>>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A packed layer for the image size of `layer`: itself, or another one on the same weights.
fn fit(found: Arc<PreparedConv>, layer: &Layer) -> Arc<PreparedConv> {
    let same = layer.linear || *found.geometry() == Conv2d { batch: 1, ..layer.conv };
    if same { found } else { Arc::new(found.resized(&layer.conv)) }
}

/// The key of a layer, if all its constants have an identity.
fn key(layer: &Layer, options: Options) -> Option<LayerKey> {
    let norm = layer.norm.as_ref().map(|norm| (norm.key.clone(), norm.eps.to_bits()));
    if layer.key.is_empty() || norm.as_ref().is_some_and(|(key, _)| key.is_empty()) {
        return None;
    }
    let conv = &layer.conv;
    let image = layer.linear.then_some((conv.input.0, conv.input.1, conv.in_channels));
    let packing = PreparedConv::packing(conv, options);
    let scale = layer.scale.map(|(factor, summand)| (factor.to_bits(), summand.to_bits()));
    Some(LayerKey { weights: layer.key.clone(), image, norm, scale, packing })
}

/// Packs one layer; folded weights, where there is a batch norm, are freed on return.
fn pack(name: &str, layer: &Layer, constants: &[&[f32]], options: Options) -> Result<PreparedConv> {
    let conv = &layer.conv;
    let (weight, bias) = (constants[layer.weight], layer.bias.map(|bias| constants[bias]));
    let prepare = |weight: &[f32], bias: Option<&[f32]>| {
        PreparedConv::check_range(conv, weight, options, name)?;
        if layer.linear {
            let image = (conv.input.0, conv.input.1, conv.in_channels);
            PreparedConv::linear(image, weight, bias, conv.out_channels, options)
        } else {
            Ok(PreparedConv::new(conv, weight, bias, options))
        }
    };
    if layer.norm.is_none() && layer.scale.is_none() {
        return prepare(weight, bias);
    }
    let (mut weight, mut bias) = (weight.to_vec(), bias.map(<[f32]>::to_vec));
    if let Some(norm) = &layer.norm {
        let norm = norm_of(norm, constants)?;
        if layer.linear {
            let folded = fold(conv.out_channels, &weight, bias.as_deref(), &norm)?;
            (weight, bias) = (folded.0, Some(folded.1));
        } else {
            bias = Some(fold_packed(conv.out_channels, &mut weight, bias.as_deref(), &norm)?);
        }
    }
    if let Some((factor, summand)) = layer.scale {
        weight.iter_mut().for_each(|w| *w *= factor);
        let bias = bias.get_or_insert_with(|| vec![0.0; conv.out_channels]);
        bias.iter_mut().for_each(|b| *b = *b * factor + summand);
    }
    prepare(&weight, bias.as_deref())
}

/// A batch norm over the arrays it refers to.
pub(super) fn norm_of<'a>(norm: &Norm, constants: &[&'a [f32]]) -> Result<batch_norm::Norm<'a>> {
    let at = |constant: Constant| constants[constant];
    batch_norm::Norm::new(
        at(norm.mean),
        at(norm.var),
        norm.weight.map(at),
        norm.bias.map(at),
        norm.eps,
    )
}
