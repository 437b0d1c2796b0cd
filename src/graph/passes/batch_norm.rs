//! Batch norms behind a layer: the layer's weights and bias take them in when they are packed.

use super::super::ir::{Graph, Op, Value};

pub(super) fn run(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::BatchNorm(norm, _) = &graph.nodes[value].op else { continue };
        let (norm, from) = (norm.clone(), graph.nodes[value].inputs[0]);
        if readers[from] != 1 {
            continue;
        }
        if let Some(layer) = graph.open_layer(from).filter(|layer| layer.norm.is_none()) {
            layer.norm = Some(norm);
            graph.absorb(from, value, "batch_norm");
        }
    }
}
