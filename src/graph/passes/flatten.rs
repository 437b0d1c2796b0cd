//! A fully connected layer behind a flatten: its weights are permuted when they are packed, so that
//! it reads the pixels of an image as one row, as they lie in memory. So they must lie there without
//! gaps: [`placement`](super::super::placement) sees to that for what operations compute, and what
//! is a slice of channels is left alone here.

use super::super::ir::{Graph, Op, Shape};
use crate::conv::Conv2d;

pub(super) fn run(graph: &mut Graph) {
    for value in 0..graph.nodes.len() {
        let Op::Layer(layer) = &graph.nodes[value].op else { continue };
        let flat = graph.nodes[value].inputs[0];
        if !layer.linear || !matches!(graph.nodes[flat].op, Op::Flatten) {
            continue;
        }
        let image = graph.nodes[flat].inputs[0];
        let Shape::Image { channels, height, width } = graph.nodes[image].shape else { continue };
        let slice = height * width > 1 && matches!(graph.nodes[image].op, Op::Channels(_));
        if height * width * channels == 0 || slice {
            continue;
        }
        let node = &mut graph.nodes[value];
        node.inputs[0] = image;
        node.fused.push("flatten");
        if let Op::Layer(layer) = &mut node.op {
            let (input, kernel) = ((height, width), (height, width));
            layer.conv = Conv2d { input, in_channels: channels, kernel, ..layer.conv };
        }
    }
}
