//! Zeros added around the input of a convolution: it adds them itself, and reads what was padded.

use super::super::ir::{Graph, Op};
use crate::conv::Padding;

pub(super) fn run(graph: &mut Graph) {
    for value in 0..graph.nodes.len() {
        let Op::Layer(layer) = &graph.nodes[value].op else { continue };
        let padded = graph.nodes[value].inputs[0];
        let Op::Gather(gather, _) = &graph.nodes[padded].op else { continue };
        let Some(zeros) = gather.zero_padding().filter(|_| !layer.linear) else { continue };
        let image = graph.nodes[padded].inputs[0];
        let input = graph.nodes[image].shape.size();
        let node = &mut graph.nodes[value];
        node.inputs[0] = image;
        node.fused.push("pad");
        if let Op::Layer(layer) = &mut node.op {
            let Padding { top, bottom, left, right } = layer.conv.padding;
            let padding = Padding {
                top: top + zeros.top,
                bottom: bottom + zeros.bottom,
                left: left + zeros.left,
                right: right + zeros.right,
            };
            layer.conv.input = input;
            layer.conv.padding = padding;
        }
    }
}
