//! Sums and activations behind an operation that can apply them before it stores its result.

use super::super::ir::{Graph, Op, Value, activation_name};
use crate::conv::Activation;
use crate::layers::activation::Function;

/// `layer(x) + y`: of two layers the one that runs last takes the sum.
pub(in super::super) fn add(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::Add(_) = graph.nodes[value].op else { continue };
        let (a, b) = (graph.nodes[value].inputs[0], graph.nodes[value].inputs[1]);
        for (from, other) in [(a.max(b), a.min(b)), (a.min(b), a.max(b))] {
            if readers[from] != 1 {
                continue;
            }
            let Some(layer) = graph.open_layer(from).filter(|layer| !layer.residual) else {
                continue;
            };
            layer.residual = true;
            graph.absorb(from, value, "add");
            graph.nodes[value].inputs.push(other);
            break;
        }
    }
}

/// ReLU or clamp of a layer, a batch norm or a sum.
pub(in super::super) fn activation(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::Map(Function::Clamp(function)) = graph.nodes[value].op else { continue };
        let from = graph.nodes[value].inputs[0];
        if readers[from] != 1 {
            continue;
        }
        let slot = match &mut graph.nodes[from].op {
            Op::Layer(layer) => &mut layer.activation,
            Op::BatchNorm(_, activation) | Op::Add(activation) => activation,
            _ => continue,
        };
        if *slot == Activation::Identity {
            *slot = function;
            graph.absorb(from, value, activation_name(function));
        }
    }
}
