//! Batch norms and scalings behind a layer: its weights and bias take them in when they are packed.

use super::super::ir::{Graph, Layer, Op, Value};
use crate::layers::activation::Function;

pub(in super::super) fn run(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::BatchNorm(norm, _) = &graph.nodes[value].op else { continue };
        let (norm, from) = (norm.clone(), graph.nodes[value].inputs[0]);
        if readers[from] != 1 {
            continue;
        }
        if let Some(layer) = graph.open_layer(from).filter(|layer| layer.norm.is_none()) {
            let name = norm.name();
            layer.norm = Some(norm);
            graph.absorb(from, value, name);
        }
    }
}

/// `layer(x) * factor + summand`, as in the scaled residuals of Inception-ResNet.
pub(super) fn scale(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::Map(Function::Scale(factor, summand)) = graph.nodes[value].op else { continue };
        let from = graph.nodes[value].inputs[0];
        if readers[from] != 1 || !factor.is_finite() || !summand.is_finite() {
            continue;
        }
        let open = |layer: &&mut Layer| layer.scale.is_none() && !layer.residual;
        if let Some(layer) = graph.open_layer(from).filter(open) {
            layer.scale = Some((factor, summand));
            graph.absorb(from, value, "scale");
        }
    }
}
